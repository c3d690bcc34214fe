"""Class Gaussians: moments, shrinkage, closed-form discriminants, samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ClassMoments:
    """Class means, counts and scatter, in float64.

    Attributes:
        means: mean feature per class.
        counts: images per class.
        scatter: Σ (x − mean of its class)(x − mean of its class)ᵀ over all images.
    """

    means: Float[Tensor, "c d"]
    counts: Int[Tensor, "c"]
    scatter: Float[Tensor, "d d"]


def class_moments(
    features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"], classes: tuple[int, ...]
) -> ClassMoments:
    """Compute means, counts and the pooled within-class scatter of the given classes.

    Args:
        features: one row per image, or one per view of each.
        labels: class of each row, any of ``classes``.
        classes: the classes wanted, in the order of the result's rows.

    Raises:
        ValueError: a class without images.
    """
    means, counts, centred = centred_rows(features, labels, classes)
    return ClassMoments(means, counts, centred.T @ centred)


def views_of(features: Float[Tensor, "n *v d"]) -> Float[Tensor, "n v d"]:
    """Features of all views of each image; where there is one view, as rows are without it."""
    return features[:, None] if features.ndim == 2 else features  # noqa: PLR2004  images, numbers


def centred_rows(
    features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"], classes: tuple[int, ...]
) -> tuple[Float[Tensor, "c d"], Int[Tensor, "c"], Float[Tensor, "m d"]]:
    """Means, counts, and the rows less the mean of their class, whose Gram matrix is the scatter.

    Of an image with v views each is a row, and counts for 1/v: rows are divided by √v.

    Args:
        features: one row per image, or one per view of each.
        labels: class of each row, any of ``classes``.
        classes: the classes wanted, in the order of means and counts; rows are in this order too.

    Raises:
        ValueError: a class without images.
    """
    x = views_of(features.double())
    counts = torch.stack([(labels == c).sum() for c in classes])
    if int(counts.min()) == 0:
        raise ValueError(f"class {classes[int(counts.argmin())]} has no image")
    rows = [x[labels == c].flatten(0, 1) for c in classes]
    means = torch.stack([row.mean(dim=0) for row in rows])
    centred = torch.cat([row - mean for row, mean in zip(rows, means, strict=True)])
    return means, counts, centred / x.shape[1] ** 0.5


def merge_moments(first: ClassMoments, second: ClassMoments) -> ClassMoments:
    """Return the moments of the images of both together; exact, by the parallel-axis theorem.

    scatter = scatter₁ + scatter₂ + Σ_c n₁n₂/(n₁ + n₂) (μ₁ − μ₂)(μ₁ − μ₂)ᵀ

    Args:
        first: moments of some images.
        second: moments of others, of the same classes; each class has at least one image in either.
    """
    means, counts, between = merged_means(first.means, first.counts, second.means, second.counts)
    return ClassMoments(means, counts, first.scatter + second.scatter + between.T @ between)


def merged_means(
    first: Float[Tensor, "c d"],
    first_counts: Int[Tensor, "c"],
    second: Float[Tensor, "c d"],
    second_counts: Int[Tensor, "c"],
) -> tuple[Float[Tensor, "c d"], Int[Tensor, "c"], Float[Tensor, "c d"]]:
    """Means and counts of the images of both, and one row per class that the scatter gains.

    The rows are √(n₁n₂/(n₁ + n₂)) (μ₂ − μ₁), whose Gram matrix is the last term of `merge_moments`.
    """
    counts = first_counts + second_counts
    share = (second_counts.double() / counts)[:, None]
    apart = second - first
    return first + share * apart, counts, (first_counts * share[:, 0]).sqrt()[:, None] * apart


def oracle_shrinkage(covariance: Float[Tensor, "d d"], samples: int) -> float:
    """Weight of the scaled identity in an oracle-approximating shrinkage estimate (Chen et al. 2010).

    Needs the covariance and the number of samples only, so no image has to be kept. In [0, 1].

    Args:
        covariance: maximum-likelihood estimate.
        samples: number of independent samples in it.
    """
    s = covariance.double()
    return _oracle(s.diagonal().sum(), (s * s).sum(), len(s), samples)


def oracle_shrinkage_of(values: Float[Tensor, "r"], dim: int, samples: int) -> float:
    """`oracle_shrinkage` by the covariance's eigenvalues, those that are 0 left out or not."""
    return _oracle(values.sum(), values.square().sum(), dim, samples)


def _oracle(
    trace: Float[Tensor, ""], trace_square: Float[Tensor, ""], dim: int, samples: int
) -> float:
    square_trace = trace**2
    above = (1 - 2 / dim) * trace_square + square_trace
    below = (samples + 1 - 2 / dim) * (trace_square - square_trace / dim)
    if float(below) <= 0:
        return 1.0
    return float((above / below).clamp(0, 1))


def discriminant(
    means: Float[Tensor, "c d"], covariance: Float[Tensor, "d d"], shrinkage: float
) -> tuple[Float[Tensor, "c d"], Float[Tensor, "c"]]:
    """Return weight and bias of the classifier that is optimal for equal priors and one covariance.

    weight = Σ⁻¹μ_c and bias = −½ μ_cᵀΣ⁻¹μ_c with Σ = (1 − ρ) S + ρ tr(S)/d I, so that
    weight · x + bias = −½ (x − μ_c)ᵀΣ⁻¹(x − μ_c) + a term that all classes share.

    Args:
        means: class means.
        covariance: pooled within-class covariance S.
        shrinkage: ρ in [0, 1]; must be positive where S is singular.
    """
    s = covariance.double()
    dim = len(s)
    level = s.diagonal().mean()
    if float(level) <= 0:
        s, level = torch.eye(dim, dtype=s.dtype, device=s.device), s.new_ones(())
    shrunk = (1 - shrinkage) * s
    shrunk.diagonal().add_(shrinkage * level)
    factor = torch.linalg.cholesky(shrunk)
    if len(means) > dim:  # a product is faster than so many solves
        weight = means.double() @ torch.cholesky_inverse(factor)
    else:
        weight = torch.cholesky_solve(means.double().T, factor).T
    return weight, -0.5 * (weight * means.double()).sum(dim=1)


def gaussian_factor(
    features: Float[Tensor, "n d"], ridge: float
) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
    """Return mean and lower-triangular Cholesky factor of one class's Gaussian, in float64.

    factor · factorᵀ = covariance + ridge · I, the covariance with divisor n − 1; that of a single
    image is zero.

    Args:
        features: one row per image, at least one.
        ridge: positive; it makes the covariance of few images invertible.
    """
    x = features.double()
    mean = x.mean(dim=0)
    covariance = (x - mean).T @ (x - mean) / max(len(x) - 1, 1)
    covariance.diagonal().add_(ridge)
    return mean, torch.linalg.cholesky(covariance)


def gaussian_samples(
    means: Float[Tensor, "c d"],
    factors: Float[Tensor, "c d d"],
    count: int,
    random: torch.Generator,
) -> Float[Tensor, "c n d"]:
    """Draw from N(mean, factor · factorᵀ) of every class, in the type and on the device of both.

    mean + factor · noise, with noise from the generator in order of class and sample.

    Args:
        means: one row per class.
        factors: see `gaussian_factor`.
        count: samples n per class.
        random: on the same device.
    """
    noise = torch.empty(len(means), count, means.shape[1], dtype=means.dtype, device=means.device)
    return torch.baddbmm(means[:, None], noise.normal_(generator=random), factors.mT)
