"""Stored statistics that follow the features: moments and sums of closed-form heads, moved by a map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from perdure.numerics.drift_maps import AffineMap, linear_and_local_shift, local_shift


@dataclass(frozen=True)
class Moments:
    """Class means and the pooled within-class scatter, in float64.

    Attributes:
        means: mean feature per class.
        scatter: Σ (x − mean of its class)(x − mean of its class)ᵀ; None where none is kept.
        images: n, how many the scatter sums over.
    """

    means: Float[Tensor, "c d"]
    scatter: Float[Tensor, "d d"] | None = None
    images: int = 0


def moved(moments: Moments, fit: AffineMap) -> Moments:
    """μ ← map(μ), S ← (I + V)ᵀ S (I + V) + nR: moments of images that moved by the map, and around it.

    What the map does not tell of images of a class is no error of theirs: they are spread by R where
    it takes them. Without that, classes of before would look narrower with every task.

    Args:
        moments: moments as measured.
        fit: the map; a mean shift leaves the scatter as it is, bit for bit.
    """
    return Moments(fit(moments.means), moved_scatter(moments, fit), moments.images)


def moved_scatter(moments: Moments, fit: AffineMap) -> Float[Tensor, "d d"] | None:
    """S ← (I + V)ᵀ S (I + V) + nR, symmetric; S itself under a mean shift, and None of None."""
    if fit.slope is None or moments.scatter is None:
        return moments.scatter
    turn = torch.eye(len(fit.centre), dtype=torch.float64, device=fit.centre.device) + fit.slope
    turned = turn.T @ moments.scatter.double() @ turn
    if fit.spread is not None:
        turned += moments.images * fit.spread
    return (turned + turned.T) / 2


def moved_locally(
    moments: Moments, before: Float[Tensor, "n d"], after: Float[Tensor, "n d"]
) -> Moments:
    """μ ← μ + the shift of the features around it; the scatter stays.

    Args:
        moments: moments as measured.
        before: Z₀.
        after: Z₁, of the same images in the same order.
    """
    means = moments.means.double()
    moved_means = means + local_shift(means, before, after)
    return Moments(moved_means, moments.scatter, moments.images)


def moved_linearly_and_locally(
    moments: Moments, fit: AffineMap, before: Float[Tensor, "n d"], after: Float[Tensor, "n d"]
) -> Moments:
    """Moments moved by a map, the means by what that leaves around them too.

    Args:
        moments: moments as measured.
        fit: the map, as of `linear_map`.
        before: Z₀.
        after: Z₁, of the same images in the same order.
    """
    means = moments.means.double()
    shift = linear_and_local_shift(fit, means, before, after)
    return Moments(means + shift, moved_scatter(moments, fit), moments.images)


def score_lost(misses: Float[Tensor, "k d"], solved: Float[Tensor, "k d"]) -> Float[Tensor, ""]:
    """Score that a class loses on the average because its mean was moved by a map that errs.

    A mean μ + e in place of μ takes ½ eᵀA⁻¹e from the log density of the class's own images, and so
    favours classes whose means were not moved. The density N(μ, A + P), P the covariance of e, which
    knows of the error, takes ½ log |I + A⁻¹P|. The difference is ½ Σ λ − log(1 + λ) over the
    eigenvalues λ of A⁻¹P, with P = EᵀE/k, k rows of E that are not 0. It is weighed by (k − 2)/k: of
    two classes each is missed by a map that has seen one, which knows nothing of their differences.

    Args:
        misses: E, one row per class that was left out; zeros where nothing was measured.
        solved: E A⁻¹.
    """
    count = int(misses.any(dim=1).sum())
    if count < 3:  # noqa: PLR2004
        return misses.new_zeros(())
    values = torch.linalg.eigvalsh(misses @ solved.T / count).clamp(min=0)
    lost: Tensor = (values - values.log1p()).sum() / 2 * (count - 2) / count
    return lost


# ------------------------------------------------------------------------------------- anchored


def missed(
    fit: AffineMap, anchors: Float[Tensor, "c d"], means: Float[Tensor, "c d"]
) -> Float[Tensor, "c d"]:
    """What a map from the plain space misses of classes whose means are known: μ − map(a).

    Args:
        fit: the map plain → now of the classes' own task.
        anchors: their means a in the plain backbone's space, which never moves.
        means: their means μ under the prompts of their own task.
    """
    return means.double() - fit(anchors)


def anchored(
    anchors: Moments, fit: AffineMap, correction: Float[Tensor, "c d"], share: float = 0.5
) -> Moments:
    """Moments by one map from the plain space, so that no errors of a chain add up.

    μ ← map(a) + share · correction, S ← (I + V)ᵀ S_plain (I + V) + nR.

    Args:
        anchors: moments in the plain backbone's space.
        fit: the map plain → now, fitted on the current task's images.
        correction: what the map of each class's own task missed, see `missed`.
        share: of the correction, in [0, 1]: a part of it belongs to the class wherever it goes.

    Raises:
        ValueError: a share outside [0, 1].
    """
    _check_share(share)
    moments = moved(anchors, fit)
    means = moments.means + share * correction.double()
    return Moments(means, moments.scatter, moments.images)


def mixed(first: Moments, second: Moments, share: float = 0.5) -> Moments:
    """(1 − share) · first + share · second: two estimates whose errors are not the same.

    Args:
        first: moments from `moved`, chained over tasks.
        second: moments from `anchored`.
        share: share of the second, in [0, 1].

    Raises:
        ValueError: a share outside [0, 1].
    """
    _check_share(share)
    scatter = None
    if first.scatter is not None and second.scatter is not None:
        scatter = torch.lerp(first.scatter.double(), second.scatter.double(), share)
    means = torch.lerp(first.means.double(), second.means.double(), share)
    return Moments(means, scatter, first.images)


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"share {share}: allowed is 0 up to 1")
