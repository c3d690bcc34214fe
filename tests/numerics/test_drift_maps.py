"""The invariants of `perdure.numerics.drift_maps`, and their literal twins."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.numerics.drift_maps import (
    RATIOS,
    AffineMap,
    drift_size,
    linear_and_local_shift,
    linear_map,
    local_shift,
    mean_map,
)
from tests.numerics.drifts import Affine, features, noisy
from tests.reference import drift_literal as literal

few = settings(max_examples=20)  # each is compared with a slow literal twin
seeds = st.integers(0, 10**6)
dims = st.integers(1, 6)


@few
@given(seed=seeds, count=st.integers(1, 9), dim=dims)
def test_mean_map_is_exact_for_a_shift(seed: int, count: int, dim: int) -> None:
    before, shift = features(seed, count, dim), Affine(seed, dim).shift
    found = mean_map(before, before + shift)
    others = features(seed + 1, 4, dim)
    torch.testing.assert_close(found.map(others), others + shift, rtol=0, atol=1e-12)


@few
@given(seed=seeds, extra=st.integers(2, 8), dim=dims)
def test_linear_map_is_exact_for_an_affine_drift(seed: int, extra: int, dim: int) -> None:
    """n > d + 1: to 1e-8 on features that it was not fitted on; all of the drift is explained."""
    before, drift = features(seed, dim + 1 + extra, dim), Affine(seed, dim)
    found = linear_map(before, drift(before))
    others = features(seed + 1, 5, dim)
    assert float((found.map(others) - drift(others)).abs().max()) < 1e-8
    assert found.explained == pytest.approx(1)
    assert found.ratio == 0


@few
@given(seed=seeds, count=st.integers(2, 9), dim=dims)
def test_mean_map(seed: int, count: int, dim: int) -> None:
    """Its shift and its leave-one-out error are those of the literal twin."""
    before, after = noisy(seed, count, dim)
    found = mean_map(before, after)
    torch.testing.assert_close(found.map.shift, literal.mean_shift(before, after))
    assert found.error == pytest.approx(literal.mean_error(before, after))
    assert found.drift == pytest.approx(float((after - before).square().sum()))


@few
@given(seed=seeds, count=st.integers(3, 10), dim=dims, ratio=st.sampled_from([1e-4, 0.1, 3.0]))
def test_linear_map(seed: int, count: int, dim: int, ratio: float) -> None:
    """Map and leave-one-out error of one ratio are those of the literal twin, whatever n and d."""
    before, after = noisy(seed, count, dim)
    found = linear_map(before, after, (ratio,))
    penalty = ratio * float((before - before.mean(0)).square().sum()) / dim
    others = features(seed + 1, 5, dim)
    wanted = literal.linear(before, after, penalty, others)
    torch.testing.assert_close(found.map(others), wanted, rtol=1e-7, atol=1e-8)
    assert found.error == pytest.approx(literal.linear_error(before, after, penalty), rel=1e-6)


@few
@given(seed=seeds, sizes=st.lists(st.integers(1, 4), min_size=2, max_size=4), dim=dims)
def test_a_class_that_is_left_out(seed: int, sizes: list[int], dim: int) -> None:
    """With groups, the error is that of whole groups by the map of all others."""
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    before, after = noisy(seed, len(groups), dim)
    found = linear_map(before, after, (0.3,), groups)
    if len(groups) < 3:
        assert found.ratio is None
        return
    penalty = 0.3 * float((before - before.mean(0)).square().sum()) / dim
    wanted = literal.linear_error(before, after, penalty, groups)
    assert found.error == pytest.approx(wanted, rel=1e-6)
    spread = literal.linear_spread(before, after, penalty, groups)
    torch.testing.assert_close(found.map.spread, spread, rtol=1e-5, atol=1e-8)
    misses = literal.linear_misses(before, after, penalty, groups)
    torch.testing.assert_close(found.misses, misses, rtol=1e-4, atol=1e-6)
    alone = linear_map(before, after, (0.3,), torch.zeros_like(groups))
    assert alone.error == linear_map(before, after, (0.3,)).error
    assert alone.misses is None


@pytest.mark.long
@few
@given(seed=seeds, count=st.integers(3, 12), dim=dims)
def test_the_ratio_of_the_least_error_is_taken(seed: int, count: int, dim: int) -> None:
    before, after = noisy(seed, count, dim)
    found = linear_map(before, after)
    level = float((before - before.mean(0)).square().sum()) / dim
    errors = {r: literal.linear_error(before, after, r * level) for r in RATIOS if r}
    assert found.ratio in RATIOS
    assert found.error <= min(errors.values()) * (1 + 1e-6)
    if found.ratio:
        assert errors[found.ratio] == pytest.approx(min(errors.values()), rel=1e-6)


def test_a_strong_penalty_leaves_a_mean_shift_never_a_map_onto_zero() -> None:
    before, after = noisy(0, 20, 5)
    strong, mean = linear_map(before, after, (1e9,)), mean_map(before, after)
    others = features(1, 5, 5)
    torch.testing.assert_close(strong.map(others), mean.map(others), rtol=1e-6, atol=1e-6)
    assert strong.error == pytest.approx(mean.error, rel=1e-6)


def test_few_pairs_in_many_dimensions_ask_for_a_strong_penalty() -> None:
    """Noise that nothing explains: the mean shift is nearly all that is left."""
    before = features(0, 20, 60)
    after = before + 1 + features(1, 20, 60) - 3
    found = linear_map(before, after)
    assert found.ratio is not None
    assert found.ratio >= 1
    assert found.error <= mean_map(before, after).error * 1.05


def test_pairs_that_interpolate_are_no_answer() -> None:
    before, after = noisy(0, 4, 6)
    assert linear_map(before, after).ratio != 0
    with pytest.raises(
        ValueError, match=r"ratios \[0.0\]: each interpolates 4 pairs; add one above 0"
    ):
        linear_map(before, after, (0.0,))


@few
@given(seed=seeds, count=st.integers(1, 7), dim=dims, narrowness=st.sampled_from([0.1, 0.3, 2.0]))
def test_local_shift(seed: int, count: int, dim: int, narrowness: float) -> None:
    """That of the literal twin; of one pair, and of a wide kernel, the mean shift."""
    before, after = noisy(seed, count, dim)
    points = features(seed + 1, 3, dim)
    found = local_shift(points, before, after, narrowness)
    torch.testing.assert_close(found, literal.local(points, before, after, narrowness))
    wide = local_shift(points, before, after, 1e6)
    torch.testing.assert_close(wide, literal.mean_shift(before, after).expand_as(wide))


@few
@given(seed=seeds, count=st.integers(8, 12), dim=st.integers(1, 4))
def test_linear_and_local_shift(seed: int, count: int, dim: int) -> None:
    """The linear map, then the local shift of what it leaves; nothing is left of an affine drift."""
    before, after = noisy(seed, count, dim)
    points, fit = features(seed + 1, 3, dim), linear_map(before, after).map
    found = points + linear_and_local_shift(fit, points, before, after)
    wanted = fit(points) + literal.local(fit(points), fit(before), after, 0.3)
    torch.testing.assert_close(found, wanted)
    drift = Affine(seed, dim)
    fit = linear_map(before, drift(before)).map
    both = points + linear_and_local_shift(fit, points, before, drift(before))
    assert float((both - drift(points)).abs().max()) < 1e-8


@few
@given(seed=seeds, count=st.integers(2, 9), dim=dims)
def test_drift_size(seed: int, count: int, dim: int) -> None:
    """‖Z₁ − Z₀‖ / ‖Z₀ − m‖: the scale of the features does not matter."""
    before, after = noisy(seed, count, dim)
    centre = before.mean(0)
    above = sum(float((b - a).square().sum()) for a, b in zip(before, after, strict=True))
    below = sum(float((a - centre).square().sum()) for a in before)
    assert drift_size(before, after) == pytest.approx((above / below) ** 0.5)
    assert drift_size(7 * before, 7 * after) == pytest.approx(drift_size(before, after))
    assert drift_size(before, before) == 0


def test_images_that_are_all_alike_move_together() -> None:
    """Without spread, or with one pair or two, a mean shift is all there is to know."""
    before = torch.ones(5, 3).double()
    found = linear_map(before, before + 2)
    assert found.map.slope is None
    assert found.explained == pytest.approx(1)
    assert drift_size(before, before + 2) == float("inf")
    assert drift_size(before, before) == 0
    torch.testing.assert_close(local_shift(before[:2], before, before + 2), 2 * before[:2])
    for count in (1, 2):
        few = linear_map(*noisy(0, count, 3))
        assert few.map.slope is None
    assert mean_map(*noisy(0, 1, 3)).explained == 0


def test_nothing_that_moved_is_nothing_explained() -> None:
    before = features(0, 9, 3)
    found = linear_map(before, before)
    assert found.explained == 0
    torch.testing.assert_close(found.map(before), before, rtol=0, atol=1e-14)


def test_what_is_no_pair_is_refused() -> None:
    before = features(0, 4, 3)
    expected = r"features of shape \(0, 3\) before and \(0, 3\) after: allowed are pairs, at least"
    for fit in (mean_map, linear_map, lambda a, b: local_shift(before, a, b)):
        with pytest.raises(ValueError, match=expected):
            fit(before[:0], before[:0])
    with pytest.raises(ValueError, match=r"narrowness 0\.0: allowed is what lies above 0"):
        local_shift(before, before, before, 0.0)


def test_an_affine_map_gives_float64() -> None:
    fit = AffineMap(torch.zeros(2).double(), torch.ones(2).double())
    assert fit(torch.zeros(1, 2)).dtype == torch.float64
