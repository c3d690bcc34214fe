"""Capabilities: what a method may need of a backbone, and which families have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Capability = Literal[
    "features",
    "tokens",
    "keys",
    "class_attention",
    "key_value_prompts",
    "linear_keys",
    "input_tokens",
    "projection",
]


@dataclass(frozen=True)
class CapabilityEntry:
    """Meaning of a capability.

    Attributes:
        meaning: what a backbone that has it can do.
        examples: backbones that have it, by architecture; the first with weights that are easy to get.
    """

    meaning: str
    examples: tuple[str, ...]


_ATTENTION = ("vit_base_patch16_224", "vit_small_patch16_dinov3", "eva02_base_patch14_224")
_STAGES = ("swin_tiny_patch4_window7_224", "convnext_tiny")

CAPABILITIES: Mapping[Capability, CapabilityEntry] = {
    "features": CapabilityEntry("one feature vector per image", ("any model of timm",)),
    "tokens": CapabilityEntry("image tokens after the last norm", (*_ATTENTION, *_STAGES)),
    "keys": CapabilityEntry(
        "a key for every token of a block, by which something is added to it",
        (*_ATTENTION, *_STAGES),
    ),
    "class_attention": CapabilityEntry(
        "attention of a class token on the image tokens", _ATTENTION[:2]
    ),
    "key_value_prompts": CapabilityEntry("prompts as keys and values of attention", _ATTENTION),
    "linear_keys": CapabilityEntry(
        "keys that are a linear map of a LayerNorm's output, so that a condition on them is one on "
        "prompts",
        _ATTENTION,
    ),
    "input_tokens": CapabilityEntry("prompts that join the input as tokens", _ATTENTION),
    "projection": CapabilityEntry(
        "the image projection that texts are compared behind",
        ("clip_vit_base_patch16", "vit_base_patch16_clip_224", "vit_pe_core_base_patch16_224"),
    ),
}
