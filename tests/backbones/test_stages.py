"""Swin and ConvNeXt compute what timm computes; what is added goes to the tokens whose keys match."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from timm.models.swin_transformer import window_reverse
from torch import Tensor

from perdure.backbones.additions import Additions, TokenResidual
from perdure.backbones.stages import FrozenStages
from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.errors import BackboneError
from perdure.types import BlockView, Task
from tests.reference.small_vits import error, images, lively

SIDE = 64
SWIN = {"embed_dim": 16, "depths": (1, 2, 2, 1), "num_heads": (1, 2, 2, 2), "img_size": SIDE}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "swin": ("swin_tiny_patch4_window7_224", {**SWIN, "window_size": 4}),
    "convnext": ("convnext_tiny", {"dims": (16, 16, 32, 32), "depths": (1, 2, 2, 1)}),
    "convnext_conv_mlp": ("convnext_atto", {"dims": (16, 16, 32, 32), "depths": (1, 1, 1, 1)}),
    "convnextv2": ("convnextv2_atto", {"dims": (16, 16, 32, 32), "depths": (1, 1, 1, 1)}),
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def built(kind: str) -> Any:
    """The same weights for the same kind."""
    name, options = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lively(timm.create_model(name, num_classes=0, **options), 0.05)


def frozen(kind: str, **options: Any) -> FrozenStages:
    """Of random weights."""
    return FrozenStages(built(kind), name=kind, img_size=SIDE, **options)


class Seen:
    """Observer that keeps every view."""

    def __init__(self) -> None:
        self.views: dict[int, BlockView] = {}

    def start_batch(self, *batch: object) -> None:
        """Nothing depends on it."""

    def block(self, index: int, view: BlockView) -> None:
        self.views[index] = view

    def merge(self, other: Seen) -> None:
        raise AssertionError("one pass has one observer")


@torch.no_grad()
def test_features_equal_timm_bit_for_bit(kind: str) -> None:
    model, backbone = built(kind), frozen(kind)
    pixels = images(2, SIDE)
    theirs = model.forward_head(model.forward_features(pixels), pre_logits=True)
    ours = backbone(pixels, read="all")
    assert ours.cls is not None
    assert ours.tokens is not None
    assert torch.equal(ours.cls, theirs)
    assert ours.tokens.shape == (2, backbone.spec.patches, backbone.spec.dim)
    if kind == "swin":
        torch.testing.assert_close(ours.tokens.mean(1), ours.cls)


@torch.no_grad()
def test_a_change_of_nothing_changes_nothing_and_sizes_are_as_told(kind: str) -> None:
    backbone, seen = frozen(kind), Seen()
    sizes: dict[int, tuple[int, ...]] = {}

    def nothing(index: int) -> TokenResidual:
        def fn(x: Tensor, keys: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
            assert keys.shape == x.shape
            sizes[index] = (x.shape[2], x.shape[1])
            return torch.zeros_like(x), {}, {}

        return TokenResidual(fn, "mlp" if index % 2 else "attention")

    pixels = images(2, SIDE)
    residual = {index: nothing(index) for index in range(backbone.spec.blocks)}
    plain = backbone(pixels).cls
    ours = backbone(pixels, Additions(residual=residual), observer=seen).cls
    assert plain is not None
    assert ours is not None
    assert error(ours, plain) < 1e-6
    assert tuple(sizes[index] for index in range(backbone.spec.blocks)) == backbone.spec.block_sizes
    for index, view in seen.views.items():
        assert view.queries is None
        assert view.normed.shape == (2, backbone.spec.patches_in(index), backbone.spec.width(index))


@torch.no_grad()
def test_keys_of_swin_are_those_of_its_windows_put_back_in_place() -> None:
    """Each window's keys as timm computes them, windows joined and shifts undone."""
    backbone, seen, caught = frozen("swin"), Seen(), {}
    for index, part in enumerate(backbone._blocks):
        attention = part.block.attn
        attention.qkv.register_forward_hook(
            lambda _, __, out, index=index: caught.__setitem__(index, out.clone())
        )
    backbone(images(2, SIDE), observer=seen)
    shifted = 0
    for index, part in enumerate(backbone._blocks):
        block = part.block
        keys = caught[index].chunk(3, dim=-1)[1]
        grid, window = block.input_resolution, block.window_size
        keys = keys.view(-1, *window, keys.shape[-1])
        whole = window_reverse(keys, window, *grid)
        whole = torch.roll(whole, shifts=tuple(block.shift_size), dims=(1, 2))
        shifted += any(block.shift_size)
        ours = seen.views[index].keys.transpose(1, 2).flatten(2)
        assert error(ours, whole.flatten(1, 2)) < 1e-5
    assert shifted


@torch.no_grad()
def test_a_change_reaches_its_own_token(kind: str) -> None:
    """What is added to one place of the last block changes that place alone."""
    backbone = frozen(kind)
    last, place = backbone.spec.blocks - 1, 2

    def fn(x: Tensor, keys: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        delta = torch.zeros_like(x)
        delta[:, place] = torch.linspace(-3, 3, x.shape[2])
        return delta, {}, {}

    additions = Additions(residual={last: TokenResidual(fn, "mlp")})
    one, other = (
        backbone(images(2, SIDE), given, read="all").tokens for given in (additions, Additions())
    )
    assert one is not None
    assert other is not None
    moved = (one - other).abs().amax(dim=(0, 2))
    assert moved[place] > 0.1
    assert float(moved.sum() - moved[place]) < 1e-5


@torch.no_grad()
def test_blocks_before_a_change_are_run_once(kind: str) -> None:
    backbone = frozen(kind)
    for block in range(backbone.spec.blocks):
        known = backbone.advance(images(2, SIDE), block)
        assert known.tokens.shape[1:] == (
            backbone.spec.patches_in(block),
            backbone.spec.width(block),
        )
        assert torch.equal(backbone(known).cls, backbone(images(2, SIDE)).cls)  # type: ignore[arg-type]


def test_iprompt_learns_there(kind: str) -> None:
    model = Model(frozen(kind), make_config({"method": "iprompt", "img_size": SIDE}))
    task = Task(0, (0, 1), ("a", "b"), 2)
    model.start_task(task)
    pixels = torch.randint(0, 256, (4, 3, SIDE, SIDE)).to(torch.uint8)
    before = copy.deepcopy(model.backbone.digest())
    model.training_loss(pixels, torch.tensor([0, 1, 0, 1]), task).total.backward()
    grads = [p.grad for p in model.method.parameters() if p.requires_grad]
    assert grads
    assert all(grad is not None for grad in grads)
    assert any(float(grad.norm()) > 0 for grad in grads if grad is not None)
    assert model.backbone.digest() == before
    assert all(parameter.grad is None for parameter in model.backbone._float32.parameters())


def test_what_lacks_is_said(kind: str) -> None:
    backbone = frozen(kind)
    why = "windows that shift" if kind == "swin" else "no attention"
    with pytest.raises(
        BackboneError, match=f"'nsp2' needs key_value_prompts, .* lacks: it .*{why}"
    ):
        Model(backbone, make_config({"method": "nsp2"}))
    with pytest.raises(BackboneError, match=r"lacks class_attention .* no class token"):
        backbone(images(1, SIDE), read=frozenset({"cls_attention"}))
    config = make_config({"method": "iprompt", "token_weights": "similarity"})
    with pytest.raises(BackboneError, match="has fewer tokens after every stage"):
        Model(backbone, config)


@torch.no_grad()
def test_bf16_is_near_float32(kind: str) -> None:
    backbone = frozen(kind, precision="bf16")
    low, high = backbone(images(2, SIDE)).cls, backbone.float32(images(2, SIDE)).cls
    assert low is not None
    assert high is not None
    assert 0 < error(low, high) < 0.05
