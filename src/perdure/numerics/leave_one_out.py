"""Leave-one-out of the Gaussian head: exact scores of images left out in turn.

One eigendecomposition serves every shrinkage, and no image of earlier lessons is needed: what is
accumulated of them stays, only images at hand are left out. Friedman (1989, "Regularized
discriminant analysis") leaves images out by the same rank-one update.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perdure.numerics.gaussians import views_of
from perdure.numerics.pooled_means import PooledMeans
from perdure.numerics.spectrum import Spectrum

SHRINKAGES = (
    *(0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    *(0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99),
)
"""Weights ρ of the identity that are compared; the best were found between 0.3 and 0.95."""
ROWS = 4096
"""Images whose distances are in memory together."""
POOLED_ROWS = 256
"""The same where means are pooled anew without each."""


@dataclass(frozen=True)
class LeftOut:
    """Leave-one-out results at every point of a grid: images, right answers, loss.

    Sums over images, of constant size: those of several lessons add up.

    Attributes:
        right: images told right, per point.
        loss: summed loss, per point.
        judged: images that were left out in turn.
    """

    right: Int[Tensor, "g"]
    loss: Float[Tensor, "g"]
    judged: int

    def __add__(self, other: LeftOut) -> LeftOut:
        """The sums over the images of both."""
        return LeftOut(self.right + other.right, self.loss + other.loss, self.judged + other.judged)

    def best(self, allowed: Bool[Tensor, "g"] | None = None) -> int | None:
        """Position of the point with most right answers, of ties the one with the least loss.

        Args:
            allowed: points that may be chosen; None for all.

        Returns:
            None where no image was judged, or no point may be chosen.
        """
        points = [k for k in range(len(self.right)) if allowed is None or bool(allowed[k])]
        if not self.judged or not points:
            return None
        return min(points, key=lambda k: (-int(self.right[k]), float(self.loss[k])))


def can_be_left_out(counts: Int[Tensor, "c"], labels: Int[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Tell which images have an answer: those whose class has another image."""
    return counts[labels] > 1


@dataclass(frozen=True)
class GaussianMoments:
    """Moments of all images so far, the scatter decomposed.

    Attributes:
        means: mean feature per class; any for a class without images.
        counts: images per class.
        scatter: spectrum of Σ (x − mean of its class)(x − mean of its class)ᵀ over all images.
    """

    means: Float[Tensor, "c d"]
    counts: Int[Tensor, "c"]
    scatter: Spectrum


def gaussian_left_out(
    moments: GaussianMoments,
    features: Float[Tensor, "n *v d"],
    labels: Int[Tensor, "n"],
    shrinkages: Sequence[float] = SHRINKAGES,
    class_of: Int[Tensor, "c"] | None = None,
    pooled_by: Callable[[float], PooledMeans | None] = lambda rho: None,
) -> LeftOut:
    """Judge every shrinkage by the answers to images that are left out in turn.

    Images that are the only one of their class are not judged. The loss is the cross-entropy.

    Args:
        moments: moments of all images so far, those given included.
        features: features of the images to leave out; of all their views, that to be judged first.
        labels: their rows in ``moments``.
        shrinkages: the grid of ρ, each in (0, 1].
        class_of: class that each row of ``moments`` stands for, −1 for none (a forgotten class);
            rows of one class are right for each other. None: every row is a class of its own.
        pooled_by: the pooled means under a shrinkage, see `gaussian_scores_left_out`.

    Raises:
        ValueError: a shrinkage outside (0, 1], or a label whose class has no image.
    """
    rotated = _Rotated(moments, features, labels)
    rows = torch.arange(len(moments.means)) if class_of is None else class_of
    rows = rows.to(labels.device)
    none = (rows < 0) | (rotated.counts < 1)
    same = rows == rows[rotated.labels][:, None]
    right, loss = [], []
    for rho in shrinkages:
        scores = rotated.scores(rho, pooled_by(rho)).masked_fill(none, -torch.inf)
        right.append(same.gather(1, scores.argmax(dim=1, keepdim=True)).sum())
        own = scores.masked_fill(~same, -torch.inf).logsumexp(dim=1)
        loss.append((scores.logsumexp(dim=1) - own).sum())
    return LeftOut(torch.stack(right).cpu(), torch.stack(loss).cpu(), len(rotated.labels))


def gaussian_scores_left_out(
    moments: GaussianMoments,
    features: Float[Tensor, "n *v d"],
    labels: Int[Tensor, "n"],
    rho: float,
    pooled: PooledMeans | None = None,
) -> Float[Tensor, "j c"]:
    """Score images that are left out in turn: −½ (x − μ_k′)ᵀ A′⁻¹ (x − μ_k′) for every class k.

    A = (1 − ρ) S/(n − 1) + ρ t I with t = tr S/((n − 1) d); a prime is without the image, while t,
    n − 1 and ρ stay as they were. These are full distances, whose size has a meaning too. Equal to
    refitting without the image, literally, to 1e-10.

    Args:
        moments: moments of all images so far, those given included.
        features: features of the images to leave out; of all their views, that to be judged first.
        labels: their rows in ``moments``.
        rho: shrinkage, in (0, 1].
        pooled: of these means, to score by; means are pooled anew without each image.

    Returns:
        One row per image whose class has another one, see `can_be_left_out`, in their order.

    Raises:
        ValueError: a shrinkage outside (0, 1], or a label whose class has no image.
    """
    return _Rotated(moments, features, labels).scores(rho, pooled)


def spectral_discriminant(
    moments: GaussianMoments, rho: float
) -> tuple[Float[Tensor, "c d"], Float[Tensor, "c"]]:
    """Weight and bias of the classifier that the shrinkage was judged for, from the spectrum.

    weight = A⁻¹μ_c and bias = −½ μ_cᵀA⁻¹μ_c with A as in `gaussian_scores_left_out`: the scores of
    `perdure.numerics.gaussians.discriminant` for the covariance S/(n − 1), without solving again.

    Args:
        moments: moments of all images so far.
        rho: shrinkage, in (0, 1].

    Raises:
        ValueError: a shrinkage outside (0, 1].
    """
    _check_shrinkage(rho)
    means, basis = moments.means.double(), moments.scatter.basis
    values = moments.scatter.values / max(int(moments.counts.sum()) - 1, 1)
    level = float(values.sum()) / moments.scatter.width
    if level <= 0:
        return means, -0.5 * means.square().sum(dim=1)
    inside = means @ basis
    weight = (means - inside @ basis.T) / (rho * level)
    weight += (inside / ((1 - rho) * values + rho * level)) @ basis.T
    return weight, -0.5 * (weight * means).sum(dim=1)


def _check_shrinkage(rho: float) -> None:
    if not 0 < rho <= 1:
        raise ValueError(f"shrinkage {rho}: allowed is what lies above 0, up to 1")


class _Rotated:
    """Features and means in the scatter's eigenbasis, from which every shrinkage is answered."""

    def __init__(
        self, moments: GaussianMoments, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]
    ) -> None:
        self.counts = moments.counts.to(labels.device)
        if len(labels) and int(self.counts[labels].min()) < 1:
            raise ValueError("a label's class has no image in the moments")
        judged = can_be_left_out(self.counts, labels)
        self.labels = labels[judged]
        self.free = max(int(self.counts.sum()) - 1, 1)
        self.values = moments.scatter.values / self.free
        basis, width = moments.scatter.basis, moments.scatter.width
        self.level = float(self.values.sum()) / width
        # Distances are differences of squares: an offset that all share would cost digits.
        offset = moments.means[self.counts > 0].double().mean(dim=0)
        means = moments.means.double() - offset
        self.means = means @ basis
        self.images = (views_of(features[judged]).double() - offset) @ basis
        # An image lies outside the basis as far as its class's mean does.
        thin = len(self.values) < width
        outside = (squares(means, means) - squares(self.means, self.means)).clamp(min=0)
        self.outside = outside if thin else None

    def scores(self, rho: float, pooled: PooledMeans | None = None) -> Float[Tensor, "j c"]:
        """Answers to all images under one shrinkage, by pooled means where given."""
        _check_shrinkage(rho)
        rows = torch.arange(len(self.labels), device=self.labels.device)
        size = ROWS if pooled is None else POOLED_ROWS
        return torch.cat([self._block(part, rho, pooled) for part in rows.split(size)])

    def _block(
        self, rows: Int[Tensor, "b"], rho: float, pooled: PooledMeans | None
    ) -> Float[Tensor, "b c"]:
        # Where there is no spread, distances are plain, as in `discriminant`.
        level, values = (self.level, self.values) if self.level > 0 else (1.0, self.values + 1)
        root = ((1 - rho) * values + rho * level).sqrt()
        x, means, label = self.images[rows] / root, self.means / root, self.labels[rows]
        shown = x[:, 0]
        square = squares(shown, means)
        if self.outside is not None:
            square += self.outside[label] / (rho * level)
        apart = x - means[label][:, None]
        along = torch.einsum("bvr,br->bv", apart, shown)[:, None] - (apart @ means.T).mT
        counts = self.counts[label].double()
        without = WithoutImage(apart, counts, (1 - rho) / self.free)
        own = label[:, None]
        square.scatter_(1, own, without.square[:, None])
        along.scatter_(1, own[..., None].expand(-1, -1, along.shape[2]), without.along[:, None])
        square += without.lost(along)
        if pooled is not None:
            known = pooled.known
            square[:, known] = pooled.distances_left_out(
                x,
                torch.searchsorted(known, label),
                counts,
                means[known],
                without.kernel,
                self.outside is not None,
            )
        return -0.5 * square


class WithoutImage:
    """Distances once each of some images is taken out of a mean and a scatter that hold it.

    A scatter is whitened by A; without an image of which views v lie apart by d_v from the mean of n
    images it loses U M Uᵀ, U the columns d_v/√m of m views and M = I + 11ᵀ/(m(n − 1)), and the mean
    moves by −d̄/(n − 1). By Woodbury, |z|² for A less κ U M Uᵀ is |z|² + κ g (M⁻¹ − κ UᵀU)⁻¹ gᵀ with
    g = zᵀU and M⁻¹ = I − 11ᵀ/(mn).

    Args:
        apart: d_v of every image, whitened; the first view is the one that is asked about.
        counts: n of every image, at least 2.
        share: κ, what the scatter counts for in A.

    Attributes:
        square: squared distances of first views to the moved mean, by A.
        along: their products with every d_v.
    """

    def __init__(
        self, apart: Float[Tensor, "b v r"], counts: Float[Tensor, "b"], share: float
    ) -> None:
        views = apart.shape[1]
        moved = apart[:, 0] + apart.mean(dim=1) / (counts - 1)[:, None]
        self.square = moved.square().sum(dim=1)
        self.along = torch.einsum("bvr,br->bv", apart, moved)
        inner = torch.eye(views, dtype=apart.dtype, device=apart.device) - share / views * (
            apart @ apart.mT
        )
        self._inner = inner - 1 / (views * counts)[:, None, None]
        self._share = share / views

    @property
    def kernel(self) -> Float[Tensor, "b v v"]:
        """What products of two vectors gain as the scatter loses the image, from theirs with d_v."""
        kernel: Tensor = self._share * torch.linalg.inv(self._inner)
        return kernel

    def lost(self, along: Float[Tensor, "b c v"]) -> Float[Tensor, "b c"]:
        """What squared distances gain as the scatter loses the image, from products with every d_v."""
        solved: Tensor = torch.linalg.solve(self._inner, along.mT).mT
        return self._share * (solved * along).sum(dim=2)


def squares(x: Float[Tensor, "n d"], means: Float[Tensor, "c d"]) -> Float[Tensor, "n c"]:
    """Squared distances of points to means."""
    lengths = x.square().sum(dim=1, keepdim=True), means.square().sum(dim=1)
    return lengths[0] - 2 * x @ means.T + lengths[1]
