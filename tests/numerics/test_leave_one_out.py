"""Exact leave-one-out of the Gaussian head, against refitting without the image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perdure.numerics.gaussians import class_moments, discriminant
from perdure.numerics.leave_one_out import (
    SHRINKAGES,
    GaussianMoments,
    LeftOut,
    can_be_left_out,
    gaussian_left_out,
    gaussian_scores_left_out,
    spectral_discriminant,
)
from perdure.numerics.spectrum import add_rows, empty_spectrum, spectrum_of
from perdure.randomness import generator
from tests.reference.leave_one_out_literal import scores_without

few = settings(max_examples=20)  # each is compared with a slow literal twin
seeds = st.integers(0, 10**6)
sizes = st.lists(st.integers(1, 5), min_size=2, max_size=5)
rhos = st.sampled_from([0.01, 0.3, 0.9, 0.99, 1.0])


def drawn(seed: int, counts: list[int], dim: int) -> tuple[Tensor, Tensor]:
    """Rows of classes 0, 1, … in mixed order, with the large common offset that features have."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    random = generator(seed, "left out", dim)
    centres = 10 + torch.randn(len(counts), dim, generator=random)
    rows = centres[labels] + torch.linspace(0.2, 2, dim) * torch.randn(
        len(labels), dim, generator=random
    )
    order = torch.randperm(len(labels), generator=random)
    return rows[order], labels[order]


def moments_of(images: Tensor, labels: Tensor) -> GaussianMoments:
    found = class_moments(images, labels, tuple(labels.unique().tolist()))
    return GaussianMoments(found.means, found.counts, spectrum_of(found.scatter))


def literal(images: Tensor, labels: Tensor, rho: float) -> Tensor:
    judged = can_be_left_out(torch.bincount(labels), labels).nonzero()[:, 0]
    rows = [scores_without(images, labels, int(i), rho) for i in judged]
    return torch.tensor(rows, dtype=torch.float64).view(len(rows), len(labels.unique()))


@few
@given(seed=seeds, counts=sizes, dim=st.integers(1, 12), rho=rhos)
def test_gaussian_scores_left_out(seed: int, counts: list[int], dim: int, rho: float) -> None:
    """Equal to refitting without the image, t, n − 1 and ρ as they were."""
    images, labels = drawn(seed, counts, dim)
    found = gaussian_scores_left_out(moments_of(images, labels), images, labels, rho)
    wanted = literal(images, labels, rho)
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max() if found.numel() else 0) < 1e-10 * (
        1 + float(wanted.abs().max() if found.numel() else 0)
    )


@few
@given(seed=seeds, counts=sizes, dim=st.sampled_from([1, 3, 30]), rho=rhos, count=st.integers(1, 3))
def test_an_image_is_left_out_with_all_its_views(
    seed: int, counts: list[int], dim: int, rho: float, count: int
) -> None:
    """Each view counts for 1/v; the first is the one that is asked about."""
    images, labels = drawn(seed, counts, dim)
    noise = torch.randn(len(images), count, dim, generator=generator(seed, "views"))
    views = images[:, None].double() + noise
    found = gaussian_scores_left_out(moments_of(views, labels), views, labels, rho)
    wanted = literal(views, labels, rho)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


@few
@given(seed=seeds, counts=sizes, rho=rhos)
def test_a_thin_scatter_gives_the_same(seed: int, counts: list[int], rho: float) -> None:
    """Fewer images than columns: directions that no image knows have the level alone."""
    images, labels = drawn(seed, counts, 40)
    found = class_moments(images, labels, tuple(range(len(counts))))
    thin = empty_spectrum(40)
    for label, mean in enumerate(found.means):
        thin = add_rows(thin, images[labels == label].double() - mean)
    moments = GaussianMoments(found.means, found.counts, thin)
    assert len(thin.values) <= len(images)
    if float(thin.values.sum()) == 0:
        return
    scores = gaussian_scores_left_out(moments, images, labels, rho)
    torch.testing.assert_close(scores, literal(images, labels, rho), rtol=1e-9, atol=1e-9)


@few
@given(seed=seeds, counts=sizes, dim=st.sampled_from([1, 4, 40]), rho=rhos)
def test_spectral_discriminant(seed: int, counts: list[int], dim: int, rho: float) -> None:
    """The classifier of `discriminant` for the covariance S/(n − 1), from a thin spectrum too."""
    images, labels = drawn(seed, counts, dim)
    found = class_moments(images, labels, tuple(range(len(counts))))
    wanted = discriminant(found.means, found.scatter / (len(images) - 1), rho)
    thin = empty_spectrum(dim)
    for label, mean in enumerate(found.means):
        thin = add_rows(thin, images[labels == label].double() - mean)
    for scatter in (spectrum_of(found.scatter), thin):
        ours = spectral_discriminant(GaussianMoments(found.means, found.counts, scatter), rho)
        for one, other in zip(ours, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8 * float(other.abs().max()))


@pytest.mark.long
@few
@given(seed=seeds, counts=sizes, dim=st.integers(1, 6))
def test_gaussian_left_out(seed: int, counts: list[int], dim: int) -> None:
    """Right answers and cross-entropy of every shrinkage are those of the literal scores."""
    images, labels = drawn(seed, counts, dim)
    found = gaussian_left_out(moments_of(images, labels), images, labels, (0.1, 0.5, 0.99))
    judged = labels[can_be_left_out(torch.bincount(labels), labels)]
    assert found.judged == len(judged)
    for k, rho in enumerate((0.1, 0.5, 0.99)):
        scores = literal(images, labels, rho)
        assert int(found.right[k]) == int((scores.argmax(1) == judged).sum())
        loss = F.cross_entropy(scores, judged, reduction="sum") if len(judged) else 0.0
        assert float(found.loss[k]) == pytest.approx(float(loss), rel=1e-9, abs=1e-9)


def test_sums_of_lessons_add_up_while_old_classes_compete() -> None:
    """Only images at hand are left out; what is accumulated of old ones stays."""
    images, labels = drawn(3, [4, 5, 3, 6], 5)
    moments = moments_of(images, labels)
    both = gaussian_left_out(moments, images, labels)
    old = labels < 2
    parts = [gaussian_left_out(moments, images[rows], labels[rows]) for rows in (old, ~old)]
    added = parts[0] + parts[1]
    assert added.judged == both.judged == 18
    assert added.right.tolist() == both.right.tolist()
    torch.testing.assert_close(added.loss, both.loss)
    one = gaussian_scores_left_out(moments, images[~old], labels[~old], 0.3)
    torch.testing.assert_close(one, literal(images, labels, 0.3)[~old], rtol=1e-10, atol=1e-10)


def test_classes_of_one_name_are_right_for_each_other_and_forgotten_ones_are_out() -> None:
    images, labels = drawn(5, [6, 6, 6], 4)
    moments = moments_of(images, labels)
    scores = literal(images, labels, 0.5)
    named = gaussian_left_out(moments, images, labels, (0.5,), torch.tensor([0, 1, 0]))
    right = torch.tensor([0, 1, 0])[scores.argmax(1)] == torch.tensor([0, 1, 0])[labels]
    assert int(named.right) == int(right.sum())
    shares = scores.softmax(1)
    own = torch.where(labels == 1, shares[:, 1], shares[:, 0] + shares[:, 2])
    assert float(named.loss) == pytest.approx(float(-own.log().sum()))
    rest = labels != 2
    without = gaussian_left_out(
        moments, images[rest], labels[rest], (0.5,), torch.tensor([0, 1, -1])
    )
    loss = F.cross_entropy(scores[rest][:, :2], labels[rest], reduction="sum")
    assert float(without.loss) == pytest.approx(float(loss))


def test_one_image_per_class_has_no_answer() -> None:
    images, labels = drawn(0, [1, 1, 1], 4)
    found = gaussian_left_out(moments_of(images, labels), images, labels)
    assert (found.judged, int(found.right.sum()), float(found.loss.sum())) == (0, 0, 0.0)
    assert found.best() is None


def test_images_without_spread_are_judged_by_plain_distance() -> None:
    images = torch.tensor([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 1])
    scores = gaussian_scores_left_out(moments_of(images, labels), images, labels, 0.5)
    torch.testing.assert_close(
        scores, -2.0 * torch.tensor([[0, 1], [0, 1], [1, 0], [1, 0]]).double()
    )


def test_best_has_most_right_answers_and_of_ties_the_least_loss() -> None:
    found = LeftOut(torch.tensor([3, 5, 5, 4]), torch.tensor([0.0, 2.0, 1.0, 0.0]).double(), 6)
    assert found.best() == 2
    assert found.best(torch.tensor([True, True, False, True])) == 1
    assert found.best(torch.zeros(4, dtype=torch.bool)) is None


def test_the_grid_rises_and_reaches_99_percent() -> None:
    assert list(SHRINKAGES) == sorted(set(SHRINKAGES))
    assert SHRINKAGES[-1] == 0.99


@pytest.mark.parametrize("rho", [0.0, -0.1, 1.1])
def test_a_shrinkage_that_is_none_is_refused(rho: float) -> None:
    images, labels = drawn(0, [2, 2], 3)
    with pytest.raises(ValueError, match=f"shrinkage {rho}: allowed is what lies above 0, up to 1"):
        gaussian_scores_left_out(moments_of(images, labels), images, labels, rho)


def test_a_class_without_images_is_refused() -> None:
    images, labels = drawn(0, [2, 2], 3)
    moments = moments_of(images, labels)
    empty = GaussianMoments(moments.means, torch.tensor([4, 0]), moments.scatter)
    with pytest.raises(ValueError, match="a label's class has no image in the moments"):
        gaussian_left_out(empty, images, labels)
