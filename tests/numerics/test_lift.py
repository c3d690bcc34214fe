"""The invariants of `perdure.numerics.lift`."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.numerics.lift import Lift, cosine_lift, kernel_gamma, relu_lift
from perdure.randomness import generator

few = settings(max_examples=20)

features = torch.randn(7, 4, generator=generator(0, "lifted"))


def test_relu_lift() -> None:
    """relu(xR), number by number; R has the moments of N(0, 1)."""
    lift = relu_lift(4, 5, 3, "lift")
    for row, raised in zip(features, lift(features), strict=True):
        for column, value in enumerate(raised):
            wanted = sum(
                float(a) * float(b) for a, b in zip(row, lift.weight[:, column], strict=True)
            )
            assert float(value) == pytest.approx(max(wanted, 0), abs=1e-5)
    wide = relu_lift(100, 1000, 0, "lift").weight
    assert abs(float(wide.mean())) < 0.01
    assert float(wide.std()) == pytest.approx(1, abs=0.01)


def test_cosine_lift() -> None:
    """Inner products tend to exp(−γ‖x − x′‖²)."""
    gamma = 0.2
    raised = cosine_lift(4, 50_000, gamma, 1, "lift")(features.double())
    wanted = (-gamma * torch.cdist(features.double(), features.double()).square()).exp()
    assert float((raised @ raised.T - wanted).abs().max()) < 0.03
    assert float(raised.abs().max()) <= math.sqrt(2 / 50_000)


@few
@given(seed=st.integers(0, 10**6), width=st.integers(1, 9))
def test_draws_are_a_function_of_seed_and_name(seed: int, width: int) -> None:
    first, again = (relu_lift(3, width, seed, "gaussian", 1) for _ in range(2))
    others = (relu_lift(3, width, seed + 1, "gaussian", 1), relu_lift(3, width, seed, "ridge", 1))
    assert torch.equal(first.weight, again.weight)
    assert first.digest() == again.digest()
    assert first.digest() not in {other.digest() for other in others}


def test_numbers_are_cast_from_float64() -> None:
    """The same on every machine; here those of this seed."""
    random = generator(5, "lift")
    wanted = torch.randn(6, 3, generator=random, dtype=torch.float64).float()
    assert torch.equal(relu_lift(6, 3, 5, "lift").weight, wanted)
    assert relu_lift(6, 3, 5, "lift").digest().startswith("9a6fc6ff5f0beda1")


def test_the_digest_is_of_the_phase_too() -> None:
    lift = cosine_lift(3, 4, 0.5, 0, "lift")
    assert lift.phase is not None
    assert Lift(lift.weight, lift.phase + 1).digest() != lift.digest()
    assert Lift(lift.weight).digest() != lift.digest()


def test_kernel_gamma() -> None:
    """1 over the median squared distance; of a part of many rows."""
    squares = sorted(
        float((a - b).double().square().sum())
        for k, a in enumerate(features)
        for b in features[k + 1 :]
    )
    assert kernel_gamma(features) == pytest.approx(1 / squares[(len(squares) - 1) // 2])
    many = torch.randn(5000, 3, generator=generator(1, "many"))
    exact = float(torch.pdist(many[:2000].double()).square().median())
    assert kernel_gamma(many) == pytest.approx(1 / exact, rel=0.1)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_images_that_are_all_alike_have_the_width_one(rows: int) -> None:
    assert kernel_gamma(torch.ones(rows, 2)) == 1.0


def test_no_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gamma 0\.0: allowed is what lies above 0"):
        cosine_lift(3, 4, 0.0, 0, "lift")
