"""Baselines on frozen features: no additions at all, only a head."""

from __future__ import annotations

from perdure.methods.base import Method
from perdure.methods.catalog import METHODS


@METHODS.register("linear")
class LinearProbe(Method):
    """One linear layer per task on frozen features."""


@METHODS.register("ncm")
class NearestClassMean(Method):
    """Frozen features, nearest class mean by cosine similarity."""


@METHODS.register("lda")
class LinearDiscriminant(Method):
    """Frozen features, class means and one pooled covariance."""
