"""The prompts that `finetune`, `joint` and `nsp2` share, and how they are trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.engine.run import plan
from perdure.errors import BackboneError
from perdure.methods.nsp2 import NSP2
from perdure.testing import make_trial
from perdure.types import Features, Task
from tests.reference.small_vits import frozen

PROMPTED = ["finetune", "joint", "nsp2"]
FIRST, SECOND = Task(0, (0, 1), ("a", "b"), 2), Task(1, (2, 3), ("c", "d"), 4)


def model(method: str, **options: Any) -> Model:
    return Model(frozen("test_vit"), make_config({"method": method, **options}))


@pytest.mark.parametrize("method", PROMPTED)
def test_prompts_start_uniform_and_are_named_by_block_and_seed(method: str) -> None:
    first, again, other = model(method), model(method), model(method, seed=1)
    parameters = dict(first.method.named_parameters())
    assert list(parameters) == [f"prompts.matrices.{block}" for block in range(6)]
    for name, parameter in parameters.items():
        assert parameter.shape == (4, 64)
        assert 0.9 < float(parameter.detach().abs().max()) <= 1
        assert torch.equal(parameter, again.method.get_parameter(name))
        assert not torch.equal(parameter, other.method.get_parameter(name))


@pytest.mark.parametrize("method", PROMPTED)
def test_methods_start_from_equal_prompts(method: str) -> None:
    """The same names give the same numbers: what differs between methods is the method."""
    ours, theirs = model(method), model("finetune")
    for name, parameter in ours.method.named_parameters():
        assert torch.equal(parameter, theirs.method.get_parameter(name))


@pytest.mark.parametrize("method", PROMPTED)
def test_prompt_blocks(method: str) -> None:
    made = model(method, prompt_blocks=[1, 4], prompt_length=5)
    additions = made.method.additions(None, None)
    assert {b: tuple(p.shape) for b, p in additions.tokens.items()} == {
        1: (1, 5, 64),
        4: (1, 5, 64),
    }
    with pytest.raises(BackboneError, match=r"prompt_blocks=\[6\]: \[6\] outside the blocks"):
        model(method, prompt_blocks=[6])


@pytest.mark.parametrize("method", PROMPTED)
def test_training_logits_are_tempered_and_prediction_is_not(method: str) -> None:
    logits = torch.tensor([[3.0, 1.0, -2.0]])
    labels = torch.tensor([1])
    for temperature in (1.0, 28.0):
        made = model(method, temperature=temperature)
        loss = made.method.loss(logits, Features(), labels, FIRST)
        wanted = torch.nn.functional.cross_entropy(logits / temperature, labels)
        torch.testing.assert_close(loss.total, wanted)


@pytest.mark.parametrize(("factor", "second"), [(1.0, 0.01), (0.05, 0.0005)])
def test_finetune_cuts_the_learning_rate_after_the_first_task(factor: float, second: float) -> None:
    made = model("finetune", lr_after_first=factor)
    rates = []
    for task in (FIRST, SECOND):
        made.start_task(task)
        rates += [group["lr"] for group in made.method.param_groups(0.01)]
    assert rates == pytest.approx([0.01, second])


def test_joint_trains_once_or_after_every_task() -> None:
    trial = make_trial("joint", sizes=(2, 2, 2), images=4)
    for after, wanted in (("last", [(0, 6, 2)]), ("each", [(0, 2, 0), (0, 4, 1), (0, 6, 2)])):
        stages = plan(trial.stream, trial.config.replace(train_after=after))
        found = [(s.data.task.index, len(s.data.task.classes), s.last) for s in stages]
        assert found == wanted
        assert all(stage.fresh for stage in stages)


class TestNullSpace:
    """What `nsp2` keeps; its numbers are compared with the literal twin in tests/reference."""

    def test_nothing_is_projected_before_a_task_has_ended(self) -> None:
        method = model("nsp2").method
        delta = torch.randn(4, 64)
        assert torch.equal(method.project("prompts.matrices.3", delta), delta)

    def test_projection_is_linear(self) -> None:
        trial = make_trial("nsp2")
        method = trial.run().model.method
        a, b = torch.randn(2, 4, 64)
        name = "prompts.matrices.2"
        both = method.project(name, 2 * a - b)
        torch.testing.assert_close(both, 2 * method.project(name, a) - method.project(name, b))

    def test_first_task_has_no_norm_term(self) -> None:
        method = model("nsp2").method
        logits, labels = torch.zeros(1, 2), torch.tensor([0])
        assert list(method.loss(logits, Features(), labels, FIRST).terms) == ["cross_entropy"]
        later = method.loss(logits, Features(), labels, SECOND).terms
        assert list(later) == ["cross_entropy", "layer_norm"]
        method = model("nsp2", ln_weight=0.0).method
        assert "layer_norm" not in method.loss(logits, Features(), labels, SECOND).terms

    @pytest.mark.parametrize(("eta1", "eta2"), [(0.0, 0.9), (0.9, 0.0), (0.0, 0.0)])
    def test_strength_zero_is_no_projection(self, eta1: float, eta2: float) -> None:
        method = make_trial("nsp2", eta1=eta1, eta2=eta2).run().model.method
        for eta, name, dim in ((eta1, "affinity", 64), (eta2, "aggregation", 4)):
            projector = method.get_buffer(f"projector_{name}_0")
            assert torch.equal(projector, torch.eye(dim)) == (eta == 0)

    def test_published_damping_cuts_every_step(self) -> None:
        """B = Π/√R and η < 1: no direction keeps more than η/√R + 1 − η of its length."""
        method = make_trial("nsp2", eta1=0.97).run().model.method
        assert isinstance(method, NSP2)
        values = torch.linalg.eigvalsh(method.get_buffer("projector_affinity_0").double())
        rank = int((values > 0.05).sum())
        assert float(values.max()) == pytest.approx(0.97 / rank**0.5 + 0.03, rel=1e-4)
        assert float(values.min()) == pytest.approx(0.03, rel=1e-3)

    def test_old_moments_are_those_at_the_end_of_the_task(self) -> None:
        method = make_trial("nsp2").run().model.method
        for block in range(6):
            prompts: Tensor = method.get_parameter(f"prompts.matrices.{block}").detach()
            torch.testing.assert_close(method.get_buffer(f"old_mean_{block}"), prompts.mean(1))
            deviation = prompts.std(1, correction=0)
            torch.testing.assert_close(method.get_buffer(f"old_std_{block}"), deviation)
        assert int(method.get_buffer("images_seen")) == 32
