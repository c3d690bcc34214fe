"""NSP²: what its guard keeps and projects; numbers are compared with the twin in tests/reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.methods import Method
from perdure.methods.nsp2 import NSP2
from perdure.testing import make_trial
from perdure.types import Features, Task
from tests.reference.small_vits import frozen

FIRST, SECOND = Task(0, (0, 1), ("a", "b"), 2), Task(1, (2, 3), ("c", "d"), 4)


def new(**options: Any) -> Method:
    return Model(frozen("test_vit"), make_config({"method": "nsp2", **options})).method


def test_nothing_is_projected_before_a_task_has_ended() -> None:
    method = new()
    delta = torch.randn(4, 64)
    assert torch.equal(method.project("prompts.matrices.3", delta), delta)


def test_projection_is_linear() -> None:
    trial = make_trial("nsp2")
    method = trial.run().model.method
    a, b = torch.randn(2, 4, 64)
    name = "prompts.matrices.2"
    both = method.project(name, 2 * a - b)
    torch.testing.assert_close(both, 2 * method.project(name, a) - method.project(name, b))


def test_first_task_has_no_norm_term() -> None:
    method = new()
    logits, labels = torch.zeros(1, 2), torch.tensor([0])
    assert list(method.loss(logits, Features(), labels, FIRST).terms) == ["cross_entropy"]
    later = method.loss(logits, Features(), labels, SECOND).terms
    assert list(later) == ["cross_entropy", "layer_norm"]
    method = new(ln_weight=0.0)
    assert "layer_norm" not in method.loss(logits, Features(), labels, SECOND).terms


@pytest.mark.parametrize(("eta1", "eta2"), [(0.0, 0.9), (0.9, 0.0), (0.0, 0.0)])
def test_strength_zero_is_no_projection(eta1: float, eta2: float) -> None:
    method = make_trial("nsp2", eta1=eta1, eta2=eta2).run().model.method
    for eta, name, dim in ((eta1, "affinity", 64), (eta2, "aggregation", 4)):
        projector = method.state_dict()[f"projector_{name}_0"]
        assert torch.equal(projector, torch.eye(dim)) == (eta == 0)


def test_published_damping_cuts_every_step() -> None:
    """B = Π/√R and η < 1: no direction keeps more than η/√R + 1 − η of its length."""
    method = make_trial("nsp2", eta1=0.97).run().model.method
    assert isinstance(method, NSP2)
    values = torch.linalg.eigvalsh(method.state_dict()["projector_affinity_0"].double())
    rank = int((values > 0.05).sum())
    assert float(values.max()) == pytest.approx(0.97 / rank**0.5 + 0.03, rel=1e-4)
    assert float(values.min()) == pytest.approx(0.03, rel=1e-3)


def test_old_moments_are_those_at_the_end_of_the_task() -> None:
    method = make_trial("nsp2").run().model.method
    for block in range(6):
        prompts: Tensor = method.get_parameter(f"prompts.matrices.{block}").detach()
        torch.testing.assert_close(method.state_dict()[f"old_mean_{block}"], prompts.mean(1))
        deviation = prompts.std(1, correction=0)
        torch.testing.assert_close(method.state_dict()[f"old_std_{block}"], deviation)
    assert int(method.state_dict()["images_seen"]) == 32
