"""Baselines on frozen features: no additions at all, only a head."""

from __future__ import annotations

from typing import ClassVar

from perdure.methods.base import METHODS, Method
from perdure.types import Traits


@METHODS.register("linear")
class LinearProbe(Method):
    """One linear layer per task on frozen features."""

    traits: ClassVar[Traits] = Traits(
        paper="linear probing",
        summary="frozen features, one linear layer per task",
        frozen_features=True,
        fixed_heads=True,
    )


@METHODS.register("ncm")
class NearestClassMean(Method):
    """Frozen features, nearest class mean by cosine similarity."""

    traits: ClassVar[Traits] = Traits(
        paper="nearest class mean",
        summary="frozen features, nearest class mean",
        trains=False,
        frozen_features=True,
        heads=("ncm",),
        fixed_heads=True,
    )


@METHODS.register("lda")
class LinearDiscriminant(Method):
    """Frozen features, class means and one pooled covariance."""

    traits: ClassVar[Traits] = Traits(
        paper="linear discriminant analysis",
        summary="frozen features, class means and one pooled covariance",
        trains=False,
        frozen_features=True,
        heads=("gaussian",),
        fixed_heads=True,
    )
