"""Log densities of classes and background, with images and classes left out, against refits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perdure.numerics.evidence import GaussianEvidence
from perdure.randomness import generator
from tests.reference.evidence_literal import densities_without

SIZES = [(3, (5, 4, 6), 1), (12, (3, 2, 4, 2), 1), (4, (7, 2), 1), (5, (4, 3, 2), 2)]
"""Numbers, images per class, views of each image."""
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def drawn(
    dim: int, counts: tuple[int, ...], views: int = 1
) -> tuple[Tensor, Tensor, GaussianEvidence, float]:
    random, rho = generator(0, "evidence"), 0.3
    labels = torch.cat([torch.full((count,), k) for k, count in enumerate(counts)])
    centres = 3 * torch.randn(len(counts), dim, generator=random, dtype=torch.float64)
    noise = torch.randn(len(labels), views, dim, generator=random, dtype=torch.float64)
    images = 5 + centres[labels][:, None] + noise
    means = torch.stack([images[labels == k].mean((0, 1)) for k in range(len(counts))])
    apart = (images - means[labels][:, None]).flatten(0, 1) / views**0.5
    sizes = torch.tensor(counts)
    measure = GaussianEvidence(means, sizes, apart.T @ apart, len(images), rho)
    return images if views > 1 else images[:, 0], labels, measure, rho


def first_view(images: Tensor) -> Tensor:
    return images if images.ndim == 2 else images[:, 0]


@pytest.mark.parametrize(("dim", "counts", "views"), SIZES)
def test_evidence_is_that_of_the_two_gaussians(
    dim: int, counts: tuple[int, ...], views: int
) -> None:
    images, labels, measure, rho = drawn(dim, counts, views)
    none = torch.zeros(len(images), dtype=torch.bool)
    classes, background = densities_without(images, labels, none, first_view(images), rho)
    found = measure.of(first_view(images))
    assert found.whole
    torch.testing.assert_close(found.scores, torch.stack(list(classes.values()), 1), **CLOSE)
    torch.testing.assert_close(found.background, background, **CLOSE)


@pytest.mark.parametrize(("dim", "counts", "views"), SIZES)
def test_background_left_out_is_a_refit_without_the_image(
    dim: int, counts: tuple[int, ...], views: int
) -> None:
    images, labels, measure, rho = drawn(dim, counts, views)
    found = measure.background_left_out(images, labels)
    for index in range(len(images)):
        out = torch.arange(len(images)) == index
        _, literal = densities_without(images, labels, out, first_view(images[out]), rho)
        torch.testing.assert_close(found[index : index + 1], literal, **CLOSE)


@pytest.mark.parametrize(("dim", "counts", "views"), SIZES)
def test_class_left_out_is_a_refit_without_its_images(
    dim: int, counts: tuple[int, ...], views: int
) -> None:
    images, labels, measure, rho = drawn(dim, counts, views)
    for label in range(len(counts)):
        out = labels == label
        classes, background = densities_without(images, labels, out, first_view(images[out]), rho)
        found = measure.class_left_out(images[out], labels[out])
        for other, literal in classes.items():
            torch.testing.assert_close(found.scores[:, other], literal, **CLOSE)
        torch.testing.assert_close(found.background, background, **CLOSE)


def test_of_a_class_taught_before_only_the_images_at_hand_are_left_out() -> None:
    images, labels, measure, rho = drawn(3, (5, 4, 6))
    here = torch.arange(len(images)) < 2
    classes, background = densities_without(images, labels, here, images[here], rho)
    found = measure.class_left_out(images[here], labels[here])
    for other in (1, 2):
        torch.testing.assert_close(found.scores[:, other], classes[other], **CLOSE)
    torch.testing.assert_close(found.background, background, **CLOSE)


def test_without_spread_there_are_no_distances() -> None:
    with pytest.raises(ValueError, match="no spread"):
        GaussianEvidence(torch.eye(2), torch.tensor([2, 2]), torch.zeros(2, 2), 4, 0.5)
