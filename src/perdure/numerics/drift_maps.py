"""Maps from old features to new ones, fitted on the features of the same images before and after.

Prompts that go on learning move the features of classes whose images are gone. The current task's
images are seen by both models: from pairs (z₀, z₁) a map z ↦ z + d(z) is fitted that moves what is
stored of old classes, see `perdure.numerics.drift_statistics`. `local_shift` is SDC (Yu et al.,
CVPR 2020, "Semantic Drift Compensation"); `linear_map` is a ridge regression towards the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

RATIOS = (0.0, *(10 ** (step / 2) for step in range(-8, 9)))
"""Penalties of `linear_map` that are compared, over the mean eigenvalue: 1e-4 to 1e4, and none.

With fewer pairs than dimensions strong ones are chosen, 0.3 to 3."""
NARROWNESS = 0.3
"""Width of `local_shift`'s kernel over the mean distance between points and old features."""
SMALLEST = 1e-9
"""What must be left of an image, 1 − its leverage, for an answer without it."""


@dataclass(frozen=True)
class AffineMap:
    """z ↦ z + d̄ + (z − m)V, and how images of a class scatter around it.

    Attributes:
        centre: m, mean of the old features.
        shift: d̄, mean of the differences.
        slope: V; None for 0.
        spread: R, covariance within groups of the errors on pairs that are left out; None for none.
    """

    centre: Float[Tensor, "d"]
    shift: Float[Tensor, "d"]
    slope: Float[Tensor, "d d"] | None = None
    spread: Float[Tensor, "d d"] | None = None

    def __call__(self, points: Float[Tensor, "c d"]) -> Float[Tensor, "c d"]:
        """Move points, in float64."""
        z = points.double()
        moved = z + self.shift
        return moved if self.slope is None else moved + (z - self.centre) @ self.slope


@dataclass(frozen=True)
class Fit:
    """A map, and what it makes of pairs that it was not fitted on.

    Attributes:
        map: fitted on all pairs.
        error: Σ ‖z₁ − map(z₀)‖² over pairs that are left out in turn, exactly.
        drift: Σ ‖z₁ − z₀‖².
        ratio: penalty that was chosen; None where there is none to choose.
        misses: per group that was left out, in ascending order, by how much its mean was missed,
            less what chance alone gives so few images; a group of one image is none. None where
            pairs were left out singly.
    """

    map: AffineMap
    error: float
    drift: float
    ratio: float | None = None
    misses: Float[Tensor, "g d"] | None = None

    @property
    def explained(self) -> float:
        """Share of the drift that the map explains: 1 for all; negative where it does harm."""
        return 1 - self.error / self.drift if self.drift > 0 else 0.0


def drift_size(before: Float[Tensor, "n d"], after: Float[Tensor, "n d"]) -> float:
    """‖Z₁ − Z₀‖ / ‖Z₀ − m‖, m the mean of Z₀: how far features moved, over their own spread.

    0 where nothing moved, infinite where features without any spread did.

    Args:
        before: Z₀, one row per image.
        after: Z₁, of the same images in the same order.
    """
    old, new = before.double(), after.double()
    moved, spread = float((new - old).norm()), float((old - old.mean(dim=0)).norm())
    return moved / spread if spread > 0 else float("inf") if moved > 0 else 0.0


def mean_map(before: Float[Tensor, "n d"], after: Float[Tensor, "n d"]) -> Fit:
    """Fit z ↦ z + d̄; exact where all features moved alike.

    Args:
        before: Z₀, at least one row.
        after: Z₁, of the same images in the same order.

    Raises:
        ValueError: no pair, or not as many rows after as before.
    """
    centre, shift, _, rest = _centred(before, after)
    pairs = len(rest)
    stretch = pairs / (pairs - 1) if pairs > 1 else float("inf")
    error = float(rest.square().sum()) * stretch**2 if pairs > 1 else _drift(before, after)
    return Fit(AffineMap(centre, shift), error, _drift(before, after))


def linear_map(
    before: Float[Tensor, "n d"],
    after: Float[Tensor, "n d"],
    ratios: Sequence[float] = RATIOS,
    groups: Int[Tensor, "n"] | None = None,
) -> Fit:
    """Fit z ↦ z + d̄ + (z − m)V, with V = (XᵀX + λI)⁻¹Xᵀ(Z₁ − Z₀ − d̄), X = Z₀ − m.

    λ = ratio · tr(XᵀX)/d shrinks V to 0, so the map to a mean shift, never to a map onto 0. The
    ratio with the least error on pairs that are left out is taken: one pair at a time, or one group
    at a time. The map moves classes that have no pair, and one that is left out with all its images
    is as they are; a single image is not, its class is still there. The errors of a group are
    (I − H)⁻¹ times its residuals, H its block of 11ᵀ/n + X(XᵀX + λI)⁻¹Xᵀ: exact. Exact for an
    affine drift with n > d + 1 pairs in general position, whose error no penalty is less than
    without one.

    Args:
        before: Z₀.
        after: Z₁, of the same images in the same order.
        ratios: the grid; 0 is passed by where it interpolates.
        groups: number of the group of every pair, such as its class; None for each its own. Where
            all are of one, each is its own, too.

    Returns:
        The map; with fewer than three pairs, or without spread, that of `mean_map`.

    Raises:
        ValueError: no pair, not as many rows after as before, or no ratio that can be judged.
    """
    centre, shift, x, rest = _centred(before, after)
    level = float(x.square().sum()) / x.shape[1]
    if len(x) < 3 or level <= 0:  # noqa: PLR2004
        return mean_map(before, after)
    left, singular, right = torch.linalg.svd(x, full_matrices=False)
    known = singular > SMALLEST * singular[0]
    left, squares, right = left[:, known], singular[known].square(), right[known]
    along = left.T @ rest
    blocks = _blocks(groups, len(x))
    best: tuple[float, float, Tensor] | None = None
    for ratio in ratios:
        share = squares / (squares + ratio * level)
        errors = _left_out(rest - left @ (share[:, None] * along), left, share, blocks)
        if errors is not None and (best is None or float(errors.square().sum()) < best[0]):
            best = float(errors.square().sum()), ratio, errors
    if best is None:
        raise ValueError(
            f"ratios {list(ratios)}: each interpolates {len(x)} pairs; add one above 0"
        )
    error, ratio, errors = best
    gain = squares.sqrt() / (squares + ratio * level)
    slope = right.T @ (gain[:, None] * along)
    fit = AffineMap(centre, shift, slope, _spread(errors, blocks))
    misses = torch.stack([_miss(errors[rows]) for rows in blocks]) if blocks else None
    return Fit(fit, error, _drift(before, after), ratio, misses)


def _miss(errors: Float[Tensor, "k d"]) -> Float[Tensor, "d"]:
    """Mean error on a group, its square shrunk by the variance of a mean of so many; 0 for one."""
    mean, count = errors.mean(dim=0), len(errors)
    square = float(mean.square().sum())
    if count < 2 or square <= 0:  # noqa: PLR2004
        return torch.zeros_like(mean)
    chance = float(errors.var(dim=0).sum()) / count
    shrunk: Tensor = mean * max(1 - chance / square, 0.0) ** 0.5
    return shrunk


def _spread(
    errors: Float[Tensor, "n d"], blocks: Sequence[Int[Tensor, "_"]]
) -> Float[Tensor, "d d"]:
    """Covariance of errors around the mean of their group; of all where there are no groups."""
    groups = blocks or [torch.arange(len(errors), device=errors.device)]
    centred = torch.cat([errors[rows] - errors[rows].mean(dim=0) for rows in groups])
    return centred.T @ centred / max(len(errors) - len(groups), 1)


def _blocks(groups: Int[Tensor, "n"] | None, count: int) -> list[Int[Tensor, "_"]]:
    """Positions of the pairs of every group; none where each pair is its own."""
    if groups is None or len(groups.unique()) < 2:  # noqa: PLR2004
        return []
    return [(groups == group).nonzero()[:, 0] for group in groups.unique()]


def _left_out(
    residual: Float[Tensor, "n d"],
    left: Float[Tensor, "n r"],
    share: Float[Tensor, "r"],
    blocks: Sequence[Int[Tensor, "_"]],
) -> Float[Tensor, "n d"] | None:
    """Errors on pairs that are left out; None where the fit interpolates some."""
    pairs = len(residual)
    if not blocks:
        remaining = 1 - 1 / pairs - (left.square() * share).sum(dim=1)
        return None if float(remaining.min()) < SMALLEST else residual / remaining[:, None]
    errors = torch.empty_like(residual)
    for rows in blocks:
        found = _block_errors(residual[rows], left[rows] * share.sqrt(), pairs)
        if found is None:
            return None
        errors[rows] = found
    return errors


def _block_errors(
    residual: Float[Tensor, "k d"], factor: Float[Tensor, "k r"], pairs: int
) -> Float[Tensor, "k d"] | None:
    """(I − BBᵀ)⁻¹ times the residuals of a group, B its factor of the map and 1/√n of the mean.

    The smaller of two systems is solved: of the group's pairs, or of B's columns,
    (I − BBᵀ)⁻¹ = I + B(I − BᵀB)⁻¹Bᵀ. None where it is singular: then the fit interpolates.
    """
    ones = factor.new_full((len(factor), 1), pairs**-0.5)
    both = torch.cat([factor, ones], dim=1)
    narrow = both.shape[1] < len(both)
    gram = both.T @ both if narrow else both @ both.T
    remaining = torch.eye(len(gram), dtype=gram.dtype, device=gram.device) - gram
    triangle, failed = torch.linalg.cholesky_ex(remaining)
    if int(failed) or float(triangle.diagonal().square().min()) < SMALLEST:
        return None
    if not narrow:
        return torch.cholesky_solve(residual, triangle)
    return residual + both @ torch.cholesky_solve(both.T @ residual, triangle)


def local_shift(
    points: Float[Tensor, "c d"],
    before: Float[Tensor, "n d"],
    after: Float[Tensor, "n d"],
    narrowness: float = NARROWNESS,
) -> Float[Tensor, "c d"]:
    """Shift of each point by that of the features around it, Σ wᵢ (z₁ᵢ − z₀ᵢ).

    wᵢ = softmax(−‖z − z₀ᵢ‖² / 2σ²), σ = narrowness × mean distance between points and Z₀; the mean
    shift where that is 0.

    Args:
        points: z, as class means.
        before: Z₀.
        after: Z₁, of the same images in the same order.
        narrowness: positive.

    Raises:
        ValueError: no pair, not as many rows after as before, or a narrowness that is not positive.
    """
    _check_pairs(before, after)
    if not narrowness > 0:
        raise ValueError(f"narrowness {narrowness}: allowed is what lies above 0")
    apart = torch.cdist(
        points.double(), before.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    width = narrowness * float(apart.mean()) if apart.numel() else 0.0
    scaled = apart.square() / (2 * width**2) if width > 0 else torch.zeros_like(apart)
    return (-scaled).softmax(dim=1) @ (after.double() - before.double())


def linear_and_local_shift(
    fit: AffineMap,
    points: Float[Tensor, "c d"],
    before: Float[Tensor, "n d"],
    after: Float[Tensor, "n d"],
    narrowness: float = NARROWNESS,
) -> Float[Tensor, "c d"]:
    """Shift of each point by a map, and by `local_shift` of what that leaves of the drift.

    The kernel is around the moved point among the moved features.

    Args:
        fit: the map, as of `linear_map`.
        points: z, as class means.
        before: Z₀.
        after: Z₁, of the same images in the same order.
        narrowness: see `local_shift`.

    Raises:
        ValueError: as of `local_shift`.
    """
    moved = fit(points)
    return moved - points.double() + local_shift(moved, fit(before), after, narrowness)


def _centred(
    before: Float[Tensor, "n d"], after: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"], Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Mean of old features and of differences, and both less their means."""
    _check_pairs(before, after)
    old, moved = before.double(), after.double() - before.double()
    centre, shift = old.mean(dim=0), moved.mean(dim=0)
    return centre, shift, old - centre, moved - shift


def _drift(before: Float[Tensor, "n d"], after: Float[Tensor, "n d"]) -> float:
    return float((after.double() - before.double()).square().sum())


def _check_pairs(before: Tensor, after: Tensor) -> None:
    if before.shape != after.shape or not len(before):
        shapes = f"{tuple(before.shape)} before and {tuple(after.shape)} after"
        raise ValueError(f"features of shape {shapes}: allowed are pairs, at least one")
