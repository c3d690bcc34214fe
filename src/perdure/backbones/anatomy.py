"""Anatomy of a timm vision transformer: its spec, and what it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.eva import Eva
from torch import nn

from perdure.backbones.blocks import AttentionBlock, nonlinear, obstacle
from perdure.capabilities import CAPABILITIES, Capability
from perdure.types import BackboneSpec

NO_CLASS_TOKEN = "there is no class token"
NO_PROJECTION = "it was not trained with texts, or its projection is not known"


def lacks(vit: Any) -> dict[Capability, str]:
    """Return what a transformer cannot do, each with the reason: the block, and what it does."""
    missing: dict[Capability, str] = {}
    for index, block in enumerate(vit.blocks):
        if reason := obstacle(block):
            told = f"block {index} {reason}"
            closed: tuple[Capability, ...] = ("keys", "key_value_prompts", "linear_keys")
            missing |= dict.fromkeys((*closed, "input_tokens", "class_attention"), told)
            break
        if reason := nonlinear(block):
            missing.setdefault("linear_keys", f"block {index} {reason}")
    if not reads_class_token(vit):
        missing.setdefault("class_attention", NO_CLASS_TOKEN)
    if not isinstance(vit.head, nn.Linear):
        missing["projection"] = NO_PROJECTION
    return missing


def reads_class_token(vit: Any) -> bool:
    """Whether the class token stands for the image.

    Only where the last norm is not behind the pooling: EVA and EVA-02 were trained on the mean of the
    image tokens, normalised after it. And in rotary models only where nothing is pooled by attention.
    """
    if vit.cls_token is None:
        return False
    pooled = vit.attn_pool is not None or isinstance(vit.norm, nn.Identity)
    behind = not isinstance(vit.fc_norm, nn.Identity)
    return not (pooled if isinstance(vit, Eva) else behind)


def describe(vit: Any, name: str) -> BackboneSpec:
    """Return the spec of this transformer."""
    missing = lacks(vit)
    parts = [AttentionBlock(block) for block in vit.blocks] if "keys" not in missing else []
    head = vit.head
    linear = "linear_keys" not in missing
    return BackboneSpec(
        name=name,
        dim=vit.embed_dim,
        heads=parts[0].heads[0] if parts else 0,
        blocks=len(vit.blocks),
        prefix_tokens=vit.num_prefix_tokens,
        has_class_token=reads_class_token(vit),
        patches=vit.patch_embed.num_patches,
        norm_eps=vit.blocks[0].norm1.eps if linear else 0.0,
        key_weight=tuple(part.key_weight for part in parts) if linear else (),
        norm_scale=tuple(b.norm1.weight for b in vit.blocks) if linear else (),
        projection=(head.weight, head.bias) if isinstance(head, nn.Linear) else None,
        lacks=missing,
    )


def features_alone(name: str, dim: int, reason: str) -> BackboneSpec:
    """Return the spec of a model that gives one feature vector per image and nothing else."""
    missing: Mapping[Capability, str] = {
        capability: reason for capability in CAPABILITIES if capability != "features"
    }
    return BackboneSpec(
        name=name,
        dim=dim,
        heads=0,
        blocks=0,
        prefix_tokens=0,
        has_class_token=False,
        patches=0,
        norm_eps=0.0,
        lacks={**missing, "projection": NO_PROJECTION},
    )
