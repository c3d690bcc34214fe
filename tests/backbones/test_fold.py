"""A folded backbone computes the same within rounding, and surveys see the same."""

from __future__ import annotations

import pytest
import torch
from timm.layers import LayerScale

from perdure.backbones.additions import Additions
from perdure.backbones.catalog import create_backbone
from perdure.backbones.fold import InPlaceSiLU, _fold_scales, folded
from perdure.randomness import generator
from perdure.traits import Read
from perdure.types import BlockView
from tests.reference.small_vits import KINDS, error, frozen, images, small_vit

RTOL = 1e-5
READS: frozenset[Read] = frozenset({"cls", "tokens", "cls_attention"})
FOLDED = {"clip", "dinov2", "dinov3", "rope_mixed"}
"""Kinds that have something to fold; `eva02` has neither quick-GELU nor LayerScale."""


class Seen:
    """Observer that keeps keys and queries."""

    def __init__(self) -> None:
        self.views: list[BlockView] = []

    def start_batch(self, *batch: object) -> None:
        """Nothing depends on it."""

    def block(self, index: int, view: BlockView) -> None:
        self.views.append(view)

    def merge(self, other: Seen) -> None:
        raise AssertionError("one pass has one observer")


@pytest.mark.parametrize("kind", list(KINDS))
@torch.no_grad()
def test_readouts_agree_with_timms(kind: str) -> None:
    plain, ours = frozen(kind), frozen(kind, fold="auto")
    prompts = torch.randn(1, 3, plain.spec.dim, generator=generator(0, "prompts"))
    for additions in (Additions(), Additions(tokens={0: prompts, 1: prompts})):
        one, other = ours(images(), additions, READS), plain(images(), additions, READS)
        for name in READS:
            assert error(getattr(one, name), getattr(other, name)) < RTOL, name
    assert ours.digest() == plain.digest()
    changed = not torch.equal(ours(images()).cls, plain(images()).cls)  # type: ignore[arg-type]
    assert changed == (kind in FOLDED)


@torch.no_grad()
def test_surveys_see_what_they_saw() -> None:
    for kind in sorted(FOLDED):
        plain, ours, seen, others = frozen(kind), frozen(kind, fold="auto"), Seen(), Seen()
        ours(images(), observer=seen)
        plain(images(), observer=others)
        for one, other in zip(seen.views, others.views, strict=True):
            assert one.queries is not None
            assert other.queries is not None
            assert error(one.normed, other.normed) < RTOL
            assert error(one.queries, other.queries) < RTOL
            assert error(one.keys, other.keys) < RTOL
        for scale, block in zip(ours.spec.norm_scale, ours._model.blocks, strict=True):
            assert scale is block.norm1.weight


def test_gradients_pass_through_the_folded_blocks() -> None:
    grads = []
    for fold in ("auto", "off"):
        prompts = torch.ones(1, 2, 32, requires_grad=True)
        cls = frozen("clip", fold=fold)(images(), Additions(tokens={0: prompts})).cls
        assert cls is not None
        cls.square().sum().backward()
        assert prompts.grad is not None
        grads.append(prompts.grad)
    assert error(*grads) < 10 * RTOL


def test_what_is_not_folded_is_shared_and_the_model_stays() -> None:
    vit = small_vit("clip")
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    twin = folded(vit, torch.float32)
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())
    theirs = dict(vit.named_parameters())
    own = {name for name, value in twin.named_parameters() if value is not theirs[name]}
    assert own == {
        f"blocks.{block}.mlp.{layer}"
        for block in range(3)
        for layer in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    }
    assert not any(isinstance(module, InPlaceSiLU) for module in vit.modules())


@torch.no_grad()
def test_bf16_is_as_near_float32_folded_as_not() -> None:
    wide = frozen("clip")(images()).cls
    errors = [
        error(frozen("clip", precision="bf16", fold=fold)(images()).cls, wide)  # type: ignore[arg-type]
        for fold in ("auto", "off")
    ]
    assert errors[0] < 3 * errors[1]


@pytest.mark.long
def test_backbones_are_folded_unless_told_otherwise() -> None:
    options = {"weights": "random", "img_size": 32, "precision": "fp32"}
    name = "vit_base_patch32_clip_quickgelu_224"
    acts = [
        type(create_backbone(name, **options, **fold)._model.blocks[0].mlp.act)  # type: ignore[arg-type]
        for fold in ({}, {"fold": "off"})
    ]
    assert acts[0] is InPlaceSiLU
    assert acts[1] is not InPlaceSiLU


def test_a_gated_mlp_without_a_second_layer_keeps_its_scale() -> None:
    """As ViTamin's: timm's own layers, only their names differ."""

    class Gated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.norm = torch.nn.GELU(), torch.nn.Identity()

    block = torch.nn.Module()
    block.attn, block.mlp = torch.nn.Module(), Gated()
    block.attn.proj = torch.nn.Linear(4, 4)
    block.ls1, block.ls2 = LayerScale(4), LayerScale(4)
    _fold_scales(block, torch.float32)
    assert isinstance(block.ls1, torch.nn.Identity)
    assert isinstance(block.ls2, LayerScale)
