"""The invariants of `perdure.numerics.spectrum`."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.numerics.spectrum import Spectrum, add_rows, empty_spectrum, spectrum_of
from perdure.randomness import generator

few = settings(max_examples=20)  # each is compared with a slow literal twin
seeds = st.integers(0, 10**6)


def rows_of(seed: int, count: int, width: int) -> torch.Tensor:
    random = generator(seed, "rows", count, width)
    scales = torch.logspace(-3, 1, width, dtype=torch.float64)
    return 3 + scales * torch.randn(count, width, generator=random, dtype=torch.float64)


@few
@given(seed=seeds, count=st.integers(0, 9), width=st.integers(1, 7))
def test_spectrum_of(seed: int, count: int, width: int) -> None:
    """It gives the matrix back, VᵀV = I, and the values rise from 0."""
    rows = rows_of(seed, count, width)
    found = spectrum_of(rows.T @ rows)
    torch.testing.assert_close(found.gram(), rows.T @ rows, rtol=0, atol=1e-11)
    torch.testing.assert_close(found.basis.T @ found.basis, torch.eye(width).double())
    assert float(found.values.min()) >= 0
    assert found.values.tolist() == sorted(found.values.tolist())
    assert found.width == width


@few
@given(seed=seeds, parts=st.lists(st.integers(0, 6), max_size=6), width=st.integers(1, 9))
def test_add_rows(seed: int, parts: list[int], width: int) -> None:
    """Whatever the division into calls, the Gram is that of all rows; r ≤ rows and r ≤ m."""
    rows = rows_of(seed, sum(parts), width)
    found: Spectrum = empty_spectrum(width)
    for part in rows.split(parts) if parts else ():
        found = add_rows(found, part)
    gram = rows.T @ rows
    assert float((found.gram() - gram).norm()) <= 1e-12 * float(gram.norm())
    assert len(found.values) <= min(sum(parts), width)
    inner = found.basis.T @ found.basis
    torch.testing.assert_close(inner, torch.eye(len(inner)).double())


def test_add_rows_over_lessons_of_wide_features() -> None:
    """Eight lessons of 30 images, 500 columns: 2e-13 here in float64, 3e-7 were it kept in float32."""
    rows = rows_of(1, 240, 500)
    found = single = empty_spectrum(500)
    for part in rows.split(30):
        found = add_rows(found, part)
        single = add_rows(single, part)
        single = Spectrum(single.values.float().double(), single.basis.float().double())
    gram = rows.T @ rows
    exact, rounded = (float((one.gram() - gram).norm() / gram.norm()) for one in (found, single))
    assert exact < 2e-12
    assert rounded < 1e-6
    assert found.basis.shape == (500, 240)
