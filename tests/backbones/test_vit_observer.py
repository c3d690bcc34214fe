"""An observer sees exactly what the literal forward computes, and changes nothing."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor

from perdure.backbones.additions import Additions
from perdure.backbones.vit import FrozenViT
from perdure.errors import BackboneError
from perdure.randomness import generator
from perdure.traits import Read
from perdure.types import BlockView
from tests.reference.small_vits import KINDS, built, error, frozen, images, small_vit
from tests.reference.vit_literal import LiteralViT

RTOL = 1e-5


class Recorder:
    """Keeps every block's view."""

    def __init__(self) -> None:
        self.views: dict[int, BlockView] = {}

    def start_batch(self, positions: Tensor, total: int, labels: Tensor) -> None:
        """Surveys announce batches; a bare forward does not."""

    def block(self, index: int, view: BlockView) -> None:
        assert index not in self.views
        self.views[index] = view

    def merge(self, other: Recorder) -> None:
        raise AssertionError("one forward has one observer")


def prompts(name: str, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator(0, name)) * 2 - 1


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("read", [("cls",), ("cls", "tokens")])
@torch.no_grad()
def test_views_equal_explicit_softmax(kind: str, read: tuple[Read, ...]) -> None:
    backbone, twin, seen = frozen(kind), LiteralViT(small_vit(kind)), Recorder()
    spec = backbone.spec
    tokens = {b: prompts(f"p{b}", 1, 4, spec.dim) for b in range(spec.blocks) if b != 1}
    passed = twin.forward(images(), tokens=tokens)
    observed = backbone(images(), Additions(tokens=tokens), frozenset(read), observer=seen)
    unseen = backbone(images(), Additions(tokens=tokens), frozenset(read))
    assert list(seen.views) == list(range(spec.blocks))
    rows = spec.prefix_tokens + spec.patches
    for index, literal in enumerate(passed.blocks):
        view = seen.views[index]
        assert error(view.inputs, literal.inputs) < RTOL
        assert error(view.queries, literal.queries) < RTOL
        if index == 1:
            assert view.prompt_attention is None
        else:
            assert view.prompt_attention is not None
            assert error(view.prompt_attention, literal.weights[..., rows:]) < RTOL
    assert observed.cls is not None
    assert unseen.cls is not None
    assert error(observed.cls, unseen.cls) < RTOL


@torch.no_grad()
def test_prompt_attention_is_that_of_tokens_among_all_additions() -> None:
    """A prefix and input tokens share the softmax; only the prompts' columns are told."""
    backbone, twin, seen = frozen("test_vit"), LiteralViT(small_vit("test_vit")), Recorder()
    tokens = {0: prompts("t", 1, 4, 64)}
    prefix = {0: (prompts("k", 1, 4, 64), prompts("v", 1, 4, 64))}
    extra = prompts("input", 1, 4, 64)
    additions = Additions(tokens=tokens, prefix=prefix, input=extra)
    backbone(images(), additions, observer=seen)
    weights = twin.forward(images(), tokens=tokens, prefix=prefix, extra=extra).blocks[0].weights
    view = seen.views[0]
    assert view.inputs.shape == (3, 9, 64)
    assert view.prompt_attention is not None
    assert error(view.prompt_attention, weights[..., 9:13]) < RTOL


@torch.no_grad()
def test_prompts_of_each_image_are_observed() -> None:
    backbone, twin, seen = frozen("test_vit"), LiteralViT(small_vit("test_vit")), Recorder()
    tokens = {5: prompts("own", 3, 2, 64)}
    backbone(images(), Additions(tokens=tokens), observer=seen)
    weights = twin.forward(images(), tokens=tokens).blocks[5].weights
    view = seen.views[5]
    assert view.prompt_attention is not None
    assert error(view.prompt_attention, weights[..., 5:]) < RTOL


def test_an_obstacle_refuses_an_observer() -> None:
    backbone = FrozenViT(built(block_fn=ResPostBlock), name="post_norm")
    with pytest.raises(
        BackboneError, match=r"'post_norm' lacks keys .*: block 0 is a ResPostBlock"
    ):
        backbone(images(), observer=Recorder())
