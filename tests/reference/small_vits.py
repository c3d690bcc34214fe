"""Small transformers of every kind that the backbone has to take, with weights that matter."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from perdure.backbones.vit import FrozenViT
from perdure.randomness import generator

SIDE = 32


def built(**options: Any) -> VisionTransformer:
    """A transformer of three blocks on patches of eight pixels."""
    sizes = {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    return VisionTransformer(**{**sizes, "num_classes": 0, **options})


def rotary(**options: Any) -> Eva:
    """The same with rotated queries and keys."""
    sizes = {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    rotated = {"use_rot_pos_emb": True, "global_pool": "token"}
    return Eva(**{**sizes, **rotated, "num_classes": 0, **options})


def named(name: str) -> Any:
    """One of timm's own."""
    return timm.create_model(name, img_size=SIDE, num_classes=0)


def resampled() -> Any:
    """Position embeddings made for 64 pixels, resampled to 32."""
    vit = built(img_size=2 * SIDE)
    vit.set_input_size(img_size=SIDE)
    return vit


KINDS: dict[str, Callable[[], Any]] = {
    "test_vit": lambda: named("test_vit"),
    "deit_tiny": lambda: named("deit_tiny_patch16_224"),
    "clip": lambda: built(pre_norm=True, act_layer="quick_gelu", num_classes=8),
    "dinov2": lambda: built(init_values=1e-1),
    "registers": lambda: built(reg_tokens=4),
    "registers_without_positions": lambda: built(reg_tokens=4, no_embed_class=True),
    "no_qkv_bias": lambda: built(qkv_bias=False),
    "resampled": resampled,
    "qk_norm": lambda: built(qk_norm=True, scale_attn_norm=True),
    "dinov3": lambda: rotary(
        rope_type="dinov3",
        rope_rotate_half=True,
        num_reg_tokens=4,
        qkv_bias=False,
        use_abs_pos_emb=False,
        use_fc_norm=False,
        init_values=0.1,
        global_pool="avg",
    ),
    "eva02": lambda: rotary(
        qkv_fused=False,
        swiglu_mlp=True,
        scale_mlp=True,
        scale_attn_inner=True,
        ref_feat_shape=(16, 16),
    ),
    "rotary_qk_norm": lambda: rotary(qk_norm=True, norm_layer=torch.nn.LayerNorm),
    "rope_mixed": lambda: rotary(
        attn_type="rope",
        rope_type="mixed",
        use_abs_pos_emb=False,
        init_values=0.1,
        num_reg_tokens=2,
    ),
}


def lively(vit: Any, scale: float = 0.1) -> Any:
    """Add noise to every parameter: norms, biases and attention are then not trivial."""
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator(0, "lively", name))
            parameter.add_(scale * noise)
    return vit.eval()


SMALL = [kind for kind in KINDS if kind != "deit_tiny"]
"""Those that take milliseconds."""


def small_vit(kind: str) -> Any:
    """A timm transformer of that kind, the caller's own; equal weights for equal kinds."""
    return copy.deepcopy(_first(kind))


@functools.cache
def _first(kind: str) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = KINDS[kind]()
    # The noise of wide models is smaller, so that attention does not saturate.
    return lively(vit, 0.1 * (32 / vit.embed_dim) ** 0.5)


def frozen(kind: str, **options: Any) -> FrozenViT:
    """The same transformer as a backbone."""
    return FrozenViT(small_vit(kind), name=kind, **options)


def images(count: int = 3, side: int = SIDE) -> torch.Tensor:
    """Normalised images."""
    return torch.randn(count, 3, side, side, generator=generator(0, "images"))


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Distance relative to the norm of ``theirs``, in float64."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())
