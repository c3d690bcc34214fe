"""Pooled means beside a literal twin, and what they are for: being nearer to the truth."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perdure.numerics.gaussians import class_moments
from perdure.numerics.leave_one_out import (
    GaussianMoments,
    gaussian_scores_left_out,
    spectral_discriminant,
)
from perdure.numerics.pooled_means import PooledMeans, image_error
from perdure.numerics.spectrum import add_rows, empty_spectrum, spectrum_of


def drawn(classes: int, width: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Means, the inverse of a covariance, and counts."""
    random = torch.Generator().manual_seed(seed)
    means = torch.randn(classes, width, generator=random, dtype=torch.float64)
    root = torch.randn(width, width, generator=random, dtype=torch.float64)
    inverse = torch.linalg.inv(root @ root.T + torch.eye(width, dtype=torch.float64))
    counts = torch.randint(1, 9, (classes,), generator=random)
    return means, inverse, counts


def literal(means: Tensor, inverse: Tensor, counts: Tensor, error: float) -> Tensor:
    """The definition, number by number."""
    centre = sum(means) / len(means)
    gram = torch.zeros(len(means), len(means), dtype=torch.float64)
    for a, one in enumerate(means):
        for b, other in enumerate(means):
            gram[a, b] = (one - centre) @ inverse @ (other - centre)
    errors = torch.diag(torch.tensor([error / int(n) for n in counts], dtype=torch.float64))
    weights = gram @ torch.linalg.inv(gram + errors)
    pooled = [
        centre + sum(weights[a, b] * (means[b] - centre) for b in range(len(means)))
        for a in range(len(means))
    ]
    return torch.stack(pooled)


@pytest.mark.parametrize(("classes", "width"), [(2, 5), (4, 3), (7, 7)])
def test_they_are_what_the_definition_says(classes: int, width: int) -> None:
    means, inverse, counts = drawn(classes, width, seed=classes)
    pooled = PooledMeans(means, means @ inverse, counts, error=2.5)
    torch.testing.assert_close(pooled.means, literal(means, inverse, counts, 2.5))


def test_they_lie_between_the_means_and_their_mean() -> None:
    means, inverse, counts = drawn(6, 8, seed=1)
    near = PooledMeans(means, means @ inverse, counts, error=1e-9).means
    far = PooledMeans(means, means @ inverse, counts, error=1e9).means
    torch.testing.assert_close(near, means, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(far, means.mean(dim=0).expand(6, 8), rtol=1e-6, atol=1e-6)


def test_a_class_that_is_gone_has_no_say() -> None:
    means, inverse, counts = drawn(5, 4, seed=2)
    counts[3], kept = 0, [0, 1, 2, 4]
    all_rows = PooledMeans(means, means @ inverse, counts, error=3.0)
    without = PooledMeans(means[kept], means[kept] @ inverse, counts[kept], error=3.0)
    torch.testing.assert_close(all_rows.means[kept], without.means)
    assert torch.equal(all_rows.means[3], means[3])


@pytest.mark.parametrize("gone", [(1,), (0, 4), (2, 2), (0, 1, 2, 3), (0, 1, 2, 3, 4)])
def test_labels_left_out_have_no_say(gone: tuple[int, ...]) -> None:
    means, inverse, counts = drawn(5, 4, seed=6)
    found = PooledMeans(means, means @ inverse, counts, error=3.0).without(torch.tensor(gone))
    kept = [label for label in range(5) if label not in gone]
    assert torch.equal(found[list(gone)], means[list(gone)])
    if kept:
        wanted = literal(means[kept], inverse, counts[kept], 3.0)
        torch.testing.assert_close(found[kept], wanted)


def test_pooled_means_are_nearer_to_the_truth() -> None:
    """Forty classes that differ in three directions of sixty, three images each."""
    random = torch.Generator().manual_seed(4)
    directions = torch.randn(3, 60, generator=random, dtype=torch.float64)
    ratios = []
    for _ in range(10):
        true = torch.randn(40, 3, generator=random, dtype=torch.float64) @ directions
        noise = torch.randn(40, 60, generator=random, dtype=torch.float64) / 3**0.5
        means, counts = true + noise, torch.full((40,), 3)
        pooled = PooledMeans(means, means, counts, error=60.0).means
        ratios.append(float((pooled - true).square().sum() / noise.square().sum()))
    assert max(ratios) < 0.5


@pytest.mark.parametrize("rho", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("images", [3, 10])
def test_error_of_an_image_is_that_of_new_ones(images: int, rho: float) -> None:
    random = torch.Generator().manual_seed(images)
    classes, width = 20, 30
    scales = torch.linspace(0.1, 2.0, width, dtype=torch.float64)
    found = []
    for _ in range(5):
        x = torch.randn(classes, images, width, generator=random, dtype=torch.float64) * scales
        apart = (x - x.mean(dim=1, keepdim=True)).flatten(0, 1)
        covariance = apart.T @ apart / len(apart)
        level = covariance.diagonal().mean()
        metric = torch.linalg.inv((1 - rho) * covariance + rho * level * torch.eye(width))
        new = torch.randn(4000, width, generator=random, dtype=torch.float64) * scales
        truth = float(torch.einsum("ni,ij,nj->n", new, metric, new).mean())
        values = torch.linalg.eigvalsh(covariance)
        found.append(image_error(values, width, rho, len(apart), classes) / truth)
    assert sum(found) / len(found) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("rho", [0.1, 0.8])
def test_images_left_out_of_a_thin_scatter_are_scored_the_same(rho: float) -> None:
    """Fewer images than columns: means lie outside what the scatter knows."""
    random = torch.Generator().manual_seed(7)
    labels = torch.arange(4).repeat_interleave(torch.tensor([2, 3, 4, 5]))
    images = (
        5 + torch.randn(4, 40, generator=random)[labels] + torch.randn(14, 40, generator=random)
    )
    found, thin = class_moments(images, labels, (0, 1, 2, 3)), empty_spectrum(40)
    for label, mean in enumerate(found.means):
        thin = add_rows(thin, images[labels == label].double() - mean)
    scores = []
    for scatter in (thin, spectrum_of(found.scatter)):
        moments = GaussianMoments(found.means, found.counts, scatter)
        solved, _ = spectral_discriminant(moments, rho)
        pooled = PooledMeans(found.means, solved, found.counts, error=30.0)
        scores.append(gaussian_scores_left_out(moments, images, labels, rho, pooled))
    assert len(thin.values) < 40
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-8, atol=1e-8)
