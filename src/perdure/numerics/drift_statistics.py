"""Stored statistics that follow the features: moments and sums of closed-form heads, moved by a map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from perdure.numerics.drift_maps import AffineMap, linear_and_local_shift, local_shift
from perdure.numerics.spectrum import Spectrum, add_rows, empty_spectrum


@dataclass(frozen=True)
class Moments:
    """Class means and the pooled within-class scatter, in float64.

    Attributes:
        means: mean feature per class.
        scatter: Σ (x − mean of its class)(x − mean of its class)ᵀ; None where none is kept.
    """

    means: Float[Tensor, "c d"]
    scatter: Float[Tensor, "d d"] | None = None


def moved(moments: Moments, fit: AffineMap) -> Moments:
    """μ ← map(μ), S ← (I + V)ᵀ S (I + V): the moments of images that all moved by the map.

    Args:
        moments: moments as measured.
        fit: the map; a mean shift leaves the scatter as it is, bit for bit.
    """
    return Moments(fit(moments.means), moved_scatter(moments.scatter, fit))


def moved_scatter(
    scatter: Float[Tensor, "d d"] | None, fit: AffineMap
) -> Float[Tensor, "d d"] | None:
    """S ← (I + V)ᵀ S (I + V), symmetric; S itself under a mean shift, and None of None."""
    if fit.slope is None or scatter is None:
        return scatter
    turn = _turn(fit)
    turned = turn.T @ scatter.double() @ turn
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
    return Moments(means + local_shift(means, before, after), moments.scatter)


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
    return Moments(means + shift, moved_scatter(moments.scatter, fit))


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

    μ ← map(a) + share · correction, S ← (I + V)ᵀ S_plain (I + V).

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
    return Moments(moments.means + share * correction.double(), moments.scatter)


def mixed(first: Moments, second: Moments, share: float = 0.5) -> Moments:
    """(1 − share) · first + share · second: two estimates whose errors are not the same.

    Args:
        first: moments from `moved`, chained over tasks.
        second: moments from `anchored`.
        share: share of the second, in [0, 1]; see `precision_share`.

    Raises:
        ValueError: a share outside [0, 1].
    """
    _check_share(share)
    scatter = None
    if first.scatter is not None and second.scatter is not None:
        scatter = torch.lerp(first.scatter.double(), second.scatter.double(), share)
    return Moments(torch.lerp(first.means.double(), second.means.double(), share), scatter)


def precision_share(first: float, second: float) -> float:
    """Share of the second estimate when each weighs the inverse of its squared error.

    Half where both are exact.

    Args:
        first: leave-one-out error of the first, not negative.
        second: that of the second.
    """
    total = first + second
    return first / total if total > 0 else 0.5


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"share {share}: allowed is 0 up to 1")


# ---------------------------------------------------------------------------------- ridge heads


def ridge_turn(fit: AffineMap) -> Float[Tensor, "m m"]:
    """T with φ ← Tᵀφ for features φ = (z, 1) whose z moves by the map.

    T has the blocks (I + V, 0) above (d̄ − mV, 1); m = d + 1. Sums over images become those of moved
    images: G = Σ φφᵀ ← Tᵀ G T and Q = Σ φyᵀ ← Tᵀ Q, exactly.
    """
    dim = len(fit.centre)
    turn = torch.eye(dim + 1, dtype=torch.float64, device=fit.centre.device)
    turn[:dim, :dim] = _turn(fit)
    turn[dim, :dim] = fit.shift
    if fit.slope is not None:
        turn[dim, :dim] -= fit.centre @ fit.slope
    return turn


def moved_gram(gram: Float[Tensor, "m m"], turn: Float[Tensor, "m m"]) -> Float[Tensor, "m m"]:
    """G ← Tᵀ G T, symmetric."""
    turned = turn.T @ gram.double() @ turn
    return (turned + turned.T) / 2


def moved_spectrum(gram: Spectrum, turn: Float[Tensor, "m m"]) -> Spectrum:
    """The spectrum of Tᵀ G T, thin as before."""
    rows = (gram.basis * gram.values.sqrt()).T @ turn
    return add_rows(empty_spectrum(len(turn)), rows)


def moved_sums(sums: Float[Tensor, "m c"], turn: Float[Tensor, "m m"]) -> Float[Tensor, "m c"]:
    """Q ← Tᵀ Q."""
    return turn.T @ sums.double()


def _turn(fit: AffineMap) -> Float[Tensor, "d d"]:
    """I + V."""
    identity = torch.eye(len(fit.centre), dtype=torch.float64, device=fit.centre.device)
    return identity if fit.slope is None else identity + fit.slope
