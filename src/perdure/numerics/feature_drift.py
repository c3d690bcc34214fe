"""Drift of the features over a task, and statistics that follow it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perdure.numerics.drift_maps import Fit, drift_size, linear_map, mean_map
from perdure.numerics.drift_statistics import (
    Moments,
    mixed,
    moved,
    moved_linearly_and_locally,
    moved_locally,
)


@dataclass(frozen=True)
class FeatureDrift:
    """Features of the same images before and after a task, and the moments that follow them.

    Attributes:
        before: Z₀, readouts of the task's images under the prompts of before, one row per image.
        after: Z₁, readouts of the same images in the same order under the prompts of now.
        known: number of labels of earlier tasks; their statistics are what is to follow.
        groups: number of the class of every image, see `linear_map`; None for each its own.
        anchored: moments of these labels by a map from the plain backbone's features, where some
            head asks for it.
    """

    before: Float[Tensor, "n d"]
    after: Float[Tensor, "n d"]
    known: int
    groups: Int[Tensor, "n"] | None = None
    anchored: Moments | None = None

    @cached_property
    def size(self) -> float:
        """How far the features moved, over their own spread; see `drift_size`."""
        return drift_size(self.before, self.after)

    def fit(self, kind: str) -> Fit:
        """The map before → after that a kind of ``drift`` begins with: a mean shift, or linear."""
        return self._mean if kind in ("mean", "local") else self._linear

    def moved(self, kind: str, moments: Moments) -> Moments:
        """Moments as they would be measured now, as far as the map tells.

        Args:
            kind: a value of the option ``drift``, but ``none``.
            moments: of the `known` labels, as they were before.

        Raises:
            ValueError: no kind of that name, or an anchored one without anchors.
        """
        if kind in ("mean", "linear"):
            return moved(moments, self.fit(kind).map)
        if kind == "local":
            return moved_locally(moments, self.before, self.after)
        if kind == "linear+local":
            return moved_linearly_and_locally(moments, self._linear.map, self.before, self.after)
        if kind not in ("anchored", "mixed") or self.anchored is None:
            raise ValueError(f"drift {kind!r}: no such kind, or no anchors to follow it by")
        if kind == "anchored":
            return self.anchored
        return mixed(moved(moments, self._linear.map), self.anchored)

    def misses(self, kind: str, count: int) -> Float[Tensor, "c d"]:
        """By how much the map misses the means of classes that it was not fitted on, as a measure.

        Each class of the task is left out in turn, see `Fit.misses`. The mean of two estimates
        (``mixed``) errs by half the square of one. Zero for what was not measured: a task of one
        class, a class of one image, kinds whose map leaves no class out.

        Args:
            kind: a value of the option ``drift``.
            count: number c of new classes, the first labels from `known` on.
        """
        found = self.before.new_zeros(count, self.before.shape[1], dtype=torch.float64)
        fit = self._linear if kind in ("linear", "mixed") else None
        if fit is None or fit.misses is None or self.groups is None:
            return found
        for label, miss in zip(self.groups.unique().tolist(), fit.misses, strict=True):
            if 0 <= label - self.known < count:
                found[label - self.known] = miss
        return found * 0.5**0.5 if kind == "mixed" else found

    def moved_factors(self, kind: str, factors: Float[Tensor, "c d d"]) -> Float[Tensor, "c d d"]:
        """Factors L of covariances L Lᵀ, one per class, moved as a scatter is; unchanged by a shift."""
        fit = self.fit(kind).map
        if fit.slope is None or fit.spread is None:
            return factors
        turned = factors.double() + fit.slope.T @ factors.double()
        moved: Tensor = torch.linalg.cholesky(turned @ turned.mT + fit.spread)
        return moved.to(factors)

    @cached_property
    def _mean(self) -> Fit:
        return mean_map(self.before, self.after)

    @cached_property
    def _linear(self) -> Fit:
        return linear_map(self.before, self.after, groups=self.groups)
