"""The invariants of `perdure.numerics.ridge`, by each of its three ways to solve."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perdure.numerics import ridge
from perdure.numerics.ridge import (
    RATIOS,
    System,
    one_hot,
    ridge_left_out,
    ridge_scores_left_out,
    with_bias,
)
from perdure.numerics.spectrum import Spectrum, add_rows, empty_spectrum
from perdure.randomness import generator
from tests.reference.ridge_literal import freedom, scores_without, weights

few = settings(max_examples=20)  # each is compared with a slow literal twin
seeds = st.integers(0, 10**6)
ratios = st.sampled_from([1e-4, 1e-2, 0.3, 10.0])
ways = st.sampled_from(["decomposed", "factored", "thin"])


def drawn(seed: int, count: int, dim: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    random = generator(seed, "ridge", count, dim)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, dim, generator=random)
    rows = 2 + centres[labels] + torch.randn(count, dim, generator=random)
    return with_bias(rows), labels


def system_of(rows: Tensor, way: str) -> System:
    gram = rows.T @ rows
    if way == "thin":
        thin: Spectrum = empty_spectrum(rows.shape[1])
        for part in rows.split(4):
            thin = add_rows(thin, part)
        return System.of(thin)
    if way == "decomposed":
        return System.of(gram)
    return System(gram, float(gram.trace()), len(gram))


@few
@given(seed=seeds, count=st.integers(2, 14), dim=st.integers(1, 10), ratio=ratios, way=ways)
def test_system(seed: int, count: int, dim: int, ratio: float, way: str) -> None:
    """Weights, leverages and degrees of freedom of the literal twin; leverages lie in [0, 1)."""
    rows, labels = drawn(seed, count, dim)
    targets = one_hot(labels, 3)
    system = system_of(rows, way)
    penalty = ratio * float(rows.square().sum()) / (dim + 1)
    assert system.penalty(ratio) == pytest.approx(penalty, rel=1e-12)
    solver = system.at(ratio)
    torch.testing.assert_close(
        solver.solve(rows.T @ targets), weights(rows, targets, penalty), rtol=1e-8, atol=1e-8
    )
    leverage = solver.leverage(rows)
    assert float(leverage.min()) >= 0
    assert float(leverage.max()) < 1
    wanted = freedom(rows, penalty)
    assert solver.freedom() == pytest.approx(wanted, rel=1e-8, abs=1e-9)
    assert float(leverage.sum()) == pytest.approx(wanted, rel=1e-8, abs=1e-9)


@few
@given(seed=seeds, count=st.integers(2, 14), dim=st.integers(1, 10), ratio=ratios, way=ways)
def test_ridge_scores_left_out(seed: int, count: int, dim: int, ratio: float, way: str) -> None:
    """Equal to solving anew without the image, at the same λ."""
    rows, labels = drawn(seed, count, dim)
    targets, system = one_hot(labels, 3), system_of(rows, way)
    found = ridge_scores_left_out(system, rows.T @ targets, rows, labels, ratio)
    wanted = scores_without(rows, targets, system.penalty(ratio))
    assert float((found - wanted).abs().max()) < 1e-10 * (1 + float(wanted.abs().max())) / min(
        ratio, 1
    )


@few
@given(seed=seeds, way=ways)
def test_ridge_left_out(seed: int, way: str) -> None:
    """Right answers and squared error of the literal scores; one image of a class is not judged."""
    rows, labels = drawn(seed, 13, 6)
    labels = torch.cat([labels[:-1], torch.tensor([3])])
    targets, counts = one_hot(labels, 5), torch.tensor([4, 4, 4, 1, 0])
    system = system_of(rows, way)
    found = ridge_left_out(system, rows.T @ targets, rows, labels, counts, (1e-3, 0.1, 10.0))
    assert found.answers.judged == 12
    for k, ratio in enumerate((1e-3, 0.1, 10.0)):
        scores = scores_without(rows, targets, system.penalty(ratio))[:-1]
        assert int(found.answers.right[k]) == int((scores.argmax(1) == labels[:-1]).sum())
        error = float((targets[:-1] - scores).square().sum())
        assert float(found.answers.loss[k]) == pytest.approx(error, rel=1e-8)
        assert bool(found.allowed[k]) == (freedom(rows, system.penalty(ratio)) <= 0.9 * 13)


def test_a_penalty_that_interpolates_is_rejected() -> None:
    """Fewer images than columns: the smallest ratios fit every label, whatever it is."""
    rows, labels = drawn(0, 12, 40)
    counts = torch.bincount(labels)
    found = ridge_left_out(
        system_of(rows, "thin"), rows.T @ one_hot(labels, 3), rows, labels, counts
    )
    assert not bool(found.allowed[0])
    assert bool(found.allowed[-1])
    assert found.allowed.tolist() == sorted(found.allowed.tolist())
    best = found.answers.best(found.allowed)
    assert best is not None
    assert bool(found.allowed[best])


def test_lessons_add_up_in_the_thin_form() -> None:
    """Eight lessons of 25 images in 600 columns: the scores of all images at once, to 2e-13 here."""
    rows, labels = drawn(2, 200, 599)
    targets, thin = one_hot(labels, 3), empty_spectrum(600)
    sums = torch.zeros(600, 3).double()
    for part, part_targets in zip(rows.split(25), targets.split(25), strict=True):
        thin = add_rows(thin, part)
        sums += part.T @ part_targets
    found = rows @ System.of(thin).at(0.1).solve(sums)
    wanted = rows @ System.of(rows.T @ rows).at(0.1).solve(rows.T @ targets)
    assert float((found - wanted).norm() / wanted.norm()) < 2e-12


def test_the_bias_may_be_centred_instead() -> None:
    """With the same penalty on the bias, a column of ones is a shift of all scores."""
    rows, labels = drawn(1, 30, 4)
    targets = one_hot(labels, 3)
    found = System.of(rows.T @ rows).at(0.01).solve(rows.T @ targets)
    scores = rows @ found
    assert rows[:, -1].eq(1).all()
    torch.testing.assert_close(scores, rows[:, :-1] @ found[:-1] + found[-1])


def test_wide_grams_are_factored_and_narrow_ones_decomposed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, _ = drawn(0, 9, 5)
    gram = rows.T @ rows
    assert isinstance(System.of(gram).gram, Spectrum)
    monkeypatch.setattr(ridge, "WIDEST_SPECTRUM", 5)
    assert torch.equal(torch.as_tensor(System.of(gram).gram), gram)


def test_the_grid_rises_from_1e_7_to_10() -> None:
    assert list(RATIOS) == sorted(RATIOS)
    assert (RATIOS[0], RATIOS[-1]) == (pytest.approx(1e-7), pytest.approx(10))


def test_no_penalty_is_refused() -> None:
    rows, _ = drawn(0, 9, 5)
    with pytest.raises(ValueError, match=r"ratio 0\.0 of a Gram with trace .*: λ must be above 0"):
        System.of(rows.T @ rows).at(0.0)
    with pytest.raises(ValueError, match="of a Gram with trace 0: λ must be above 0"):
        System.of(empty_spectrum(3)).at(0.1)
