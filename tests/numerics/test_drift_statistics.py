"""Statistics moved by a map are those of images that moved by it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.numerics.drift_maps import AffineMap, linear_map, mean_map
from perdure.numerics.drift_statistics import (
    Moments,
    anchored,
    missed,
    mixed,
    moved,
    moved_linearly_and_locally,
    moved_locally,
    score_lost,
)
from tests.numerics.drifts import Affine, features, noisy
from tests.reference import drift_literal as literal

few = settings(max_examples=20)  # each is compared with a slow literal twin
seeds = st.integers(0, 10**6)
dims = st.integers(1, 5)
labels = torch.arange(12) % 3


def fits(seed: int, dim: int) -> list[AffineMap]:
    pairs = noisy(seed, 9, dim)
    return [mean_map(*pairs).map, linear_map(*pairs).map]


@few
@given(seed=seeds, dim=dims)
def test_moved(seed: int, dim: int) -> None:
    """Equal to the moments of the moved images, spread around where the map takes them.

    A shift leaves the scatter bit for bit.
    """
    images = features(seed, 12, dim)
    before = Moments(*literal.moments(images, labels), images=12)
    for fit in fits(seed, dim):
        found = moved(before, fit)
        means, scatter = literal.moments(fit(images), labels)
        torch.testing.assert_close(found.means, means)
        spread = 0 if fit.spread is None else 12 * fit.spread
        torch.testing.assert_close(found.scatter, scatter + spread)
        assert found.images == 12
        torch.testing.assert_close(found.scatter, found.scatter.T, rtol=0, atol=0)
        assert (fit.slope is not None) or torch.equal(found.scatter, before.scatter)


@few
@given(seed=seeds, dim=dims)
def test_moved_follows_a_known_affine_drift(seed: int, dim: int) -> None:
    """The pairs are of other images than the moments: means and scatter are exact to 1e-8."""
    old, current, drift = (
        features(seed, 12, dim),
        features(seed + 1, dim + 9, dim),
        Affine(seed, dim),
    )
    fit = linear_map(current, drift(current)).map
    found = moved(Moments(*literal.moments(old, labels), images=12), fit)
    means, scatter = literal.moments(drift(old), labels)
    assert float((found.means - means).abs().max()) < 1e-8
    assert float((found.scatter - scatter).norm()) < 1e-8 * float(scatter.norm())


@few
@given(seed=seeds, dim=dims)
def test_moved_locally(seed: int, dim: int) -> None:
    """Means by the literal twin, the scatter as it is; with the linear map before it, as that."""
    moments = Moments(*literal.moments(features(seed, 12, dim), labels))
    before, after = noisy(seed + 1, 8, dim)
    found = moved_locally(moments, before, after)
    shift = literal.local(moments.means, before, after, 0.3)
    torch.testing.assert_close(found.means, moments.means + shift)
    assert torch.equal(found.scatter, moments.scatter)
    fit = linear_map(before, after).map
    both, linear = moved_linearly_and_locally(moments, fit, before, after), moved(moments, fit)
    rest = literal.local(linear.means, fit(before), after, 0.3)
    torch.testing.assert_close(both.means, linear.means + rest)
    torch.testing.assert_close(both.scatter, linear.scatter)


@few
@given(seed=seeds, dim=dims, share=st.sampled_from([0.0, 0.5, 1.0]))
def test_anchored(seed: int, dim: int, share: float) -> None:
    """map(a) + share · what the map of the own task missed; all of it gives the own mean back."""
    anchors = Moments(*literal.moments(features(seed, 12, dim), labels))
    own, now = linear_map(*noisy(seed, 9, dim)).map, linear_map(*noisy(seed + 1, 9, dim)).map
    means = own(anchors.means) + features(seed + 2, 3, dim)
    correction = missed(own, anchors.means, means)
    found = anchored(anchors, now, correction, share)
    for label in range(3):
        wanted = now(anchors.means[label : label + 1])[0] + share * (
            means[label] - own(anchors.means[label : label + 1])[0]
        )
        torch.testing.assert_close(found.means[label], wanted)
    torch.testing.assert_close(found.scatter, moved(anchors, now).scatter)
    torch.testing.assert_close(anchored(anchors, own, correction, 1.0).means, means)


def test_an_anchored_map_does_not_chain() -> None:
    """Ten tasks of noise: the chain's error grows, that of a map from where nothing moves does not."""
    dim, old = 4, features(0, 12, 4)
    means, scatter = literal.moments(old, labels)
    chained = Moments(means, scatter)
    drifts = [Affine(task, dim) for task in range(10)]

    def now(points: torch.Tensor, tasks: int) -> torch.Tensor:
        for drift in drifts[:tasks]:
            points = points + 0.2 * (drift(points) - points)
        return points

    errors = []
    for task in range(10):
        current = features(100 + task, 14, dim)
        noise = 0.05 * (features(200 + task, 14, dim) - 3)
        before, after = now(current, task), now(current, task + 1)
        chained = moved(chained, linear_map(before, after + noise).map)
        direct = anchored(
            Moments(means, scatter), linear_map(current, after + noise).map, 0 * means
        )
        truth = now(means, task + 1)
        errors.append(
            [float((one.means - truth).norm() / truth.norm()) for one in (chained, direct)]
        )
    assert errors[0][0] == pytest.approx(errors[0][1], rel=0.2)
    assert errors[-1][0] > 1.5 * errors[-1][1]


@few
@given(seed=seeds, dim=dims, share=st.sampled_from([0.0, 0.3, 1.0]))
def test_mixed(seed: int, dim: int, share: float) -> None:
    first = Moments(*literal.moments(features(seed, 12, dim), labels))
    second = Moments(*literal.moments(features(seed + 1, 12, dim), labels))
    found = mixed(first, second, share)
    torch.testing.assert_close(found.means, (1 - share) * first.means + share * second.means)
    torch.testing.assert_close(found.scatter, (1 - share) * first.scatter + share * second.scatter)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_no_share_is_refused(share: float) -> None:
    moments = Moments(torch.zeros(1, 2).double(), torch.zeros(2, 2).double())
    fit = AffineMap(torch.zeros(2).double(), torch.zeros(2).double())
    with pytest.raises(ValueError, match=f"share {share}: allowed is 0 up to 1"):
        mixed(moments, moments, share)
    with pytest.raises(ValueError, match=f"share {share}: allowed is 0 up to 1"):
        anchored(moments, fit, moments.means, share)


@few
@given(seed=seeds, dim=dims, count=st.integers(1, 6), empty=st.integers(0, 2))
def test_score_lost(seed: int, dim: int, count: int, empty: int) -> None:
    """That of the literal twin, by trace and determinant; rows of zeros count for nothing."""
    misses = torch.cat([features(seed, count, dim), torch.zeros(empty, dim).double()])
    rows = features(seed + 1, dim + 3, dim)
    covariance = rows.T @ rows / len(rows) + torch.eye(dim).double()
    found = float(score_lost(misses, torch.linalg.solve(covariance, misses.T).T))
    assert found == pytest.approx(literal.score_lost(misses, covariance), abs=1e-9)
    assert (found > 0) == (count > 2)
