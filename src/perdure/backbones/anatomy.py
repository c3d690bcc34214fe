"""Anatomy of a timm vision transformer: its spec, and obstacles to adding prompts."""

from __future__ import annotations

from typing import Any

from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import nn

from perdure.types import BackboneSpec


def obstacles(vit: Any) -> tuple[str, ...]:
    """Return the reasons why prompts cannot be added to this transformer; empty when they can.

    Every reason names the block and what it does that plain pre-norm attention does not.
    """
    reasons: list[str] = []
    for index, block in enumerate(vit.blocks):
        where = f"block {index}"
        if type(block) is not Block:
            reasons.append(f"{where} is a {type(block).__name__}, not a plain pre-norm block")
            continue
        attention = block.attn
        if type(attention) is not Attention:
            reasons.append(f"{where} attends with {type(attention).__name__}")
        elif not isinstance(attention.q_norm, nn.Identity):
            reasons.append(f"{where} normalises queries and keys (qk-norm)")
        elif not isinstance(attention.norm, nn.Identity):
            reasons.append(f"{where} normalises the attention output")
        elif getattr(attention, "gate", None) is not None:
            reasons.append(f"{where} gates the attention output")
        if not isinstance(block.norm1, nn.LayerNorm):
            reasons.append(f"{where} uses {type(block.norm1).__name__} instead of LayerNorm")
    return tuple(reasons)


def describe(vit: Any, name: str) -> BackboneSpec:
    """Return the spec of this transformer."""
    reasons = obstacles(vit)
    plain = not reasons
    dim = vit.embed_dim
    head = vit.head
    return BackboneSpec(
        name=name,
        dim=dim,
        heads=vit.blocks[0].attn.num_heads if plain else 0,
        blocks=len(vit.blocks),
        prefix_tokens=vit.num_prefix_tokens,
        has_class_token=vit.cls_token is not None,
        patches=vit.patch_embed.num_patches,
        norm_eps=vit.blocks[0].norm1.eps if plain else 0.0,
        key_weight=tuple(b.attn.qkv.weight[dim : 2 * dim] for b in vit.blocks) if plain else (),
        norm_scale=tuple(b.norm1.weight for b in vit.blocks) if plain else (),
        projection=(head.weight, head.bias) if isinstance(head, nn.Linear) else None,
        obstacles=reasons,
    )
