"""Families of backbones: which class runs a model of timm.

A new family is a `FrozenBackbone` and a line here; docs/backbones.md says in its table what it can do,
and the tests run that table.
"""

from __future__ import annotations

from typing import Any

from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from perdure.backbones.frozen import FrozenBackbone, FrozenFeatures
from perdure.backbones.stages import FrozenStages
from perdure.backbones.vit import FrozenViT

FAMILIES: tuple[tuple[type[nn.Module], type[FrozenBackbone]], ...] = (
    (VisionTransformer, FrozenViT),
    (Eva, FrozenViT),
    (SwinTransformer, FrozenStages),
    (ConvNeXt, FrozenStages),
)
"""Models that perdure looks into; of all others it takes the features."""


def family_of(model: nn.Module) -> type[FrozenBackbone]:
    """Return the class that runs a model."""
    for kind, frozen in FAMILIES:
        if isinstance(model, kind):
            return frozen
    return FrozenFeatures


def freeze(model: nn.Module, **options: Any) -> FrozenBackbone:
    """Freeze a model of timm, in the class of its family.

    Args:
        model: it is taken over, not copied.
        **options: of `FrozenBackbone`.

    Raises:
        BackboneError: it gives no feature vector.
    """
    return family_of(model)(model, **options)
