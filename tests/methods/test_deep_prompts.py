"""The prompts that `finetune`, `joint` and `nsp2` share, and how they are trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.errors import BackboneError
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
