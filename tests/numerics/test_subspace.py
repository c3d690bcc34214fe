"""The invariants that the docstrings of `perdure.numerics.subspace` state."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from perdure.numerics.subspace import (
    RankRule,
    affinity_gram,
    damping,
    image_weights,
    null_space,
    nullity,
    projector,
)
from perdure.randomness import generator

RULES: tuple[RankRule, ...] = ("paper", "reference")
seeds = st.integers(0, 10**6)
rules = st.sampled_from(RULES)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator(seed, "drawn", *shape)).double()


def gram_of(seed: int, dim: int, rows: int) -> Tensor:
    x = drawn(seed, rows, dim)
    return x.T @ x


def basis_of(seed: int, dim: int, rank: int) -> Tensor:
    return torch.linalg.qr(drawn(seed, dim, dim))[0][:, :rank]


ranks = st.integers(2, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(seed=seeds, size=ranks)
def test_projector(seed: int, size: tuple[int, int]) -> None:
    """Π = Πᵀ = Π², trace Π = R."""
    dim, rank = size
    plain = projector(basis_of(seed, dim, rank))
    torch.testing.assert_close(plain, plain.T)
    torch.testing.assert_close(plain, plain @ plain)
    assert float(plain.trace()) == pytest.approx(rank)


@given(seed=seeds, heads=st.integers(1, 4), width=st.integers(1, 5), tokens=st.integers(1, 9))
def test_affinity_gram(seed: int, heads: int, width: int, tokens: int) -> None:
    """Equals Ω₁ᵀΩ₁ of the stacked Ω₁; symmetric and positive semidefinite, in float64."""
    dim = heads * width + 1
    queries, weight = drawn(seed, heads, tokens, width), drawn(seed + 1, heads * width, dim)
    stacked = torch.cat([q @ weight[h * width : (h + 1) * width] for h, q in enumerate(queries)])
    gram = affinity_gram((queries.transpose(1, 2) @ queries).float(), weight.float())
    assert gram.dtype == torch.float64
    torch.testing.assert_close(gram, stacked.T @ stacked, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(gram, gram.T)
    assert float(torch.linalg.eigvalsh(gram).min()) > -1e-6 * (1 + float(gram.trace()))


@given(total=st.integers(1, 400), batch=st.integers(1, 130))
def test_image_weights(total: int, batch: int) -> None:
    """The weights of a batch sum to 1, so all of them sum to the number of batches."""
    weights = image_weights(total, batch)
    assert weights.shape == (total,)
    assert weights.dtype == torch.float64
    for part in weights.split(batch):
        assert float(part.sum()) == pytest.approx(1)
        assert len(part.unique()) == 1
    assert float(weights.sum()) == pytest.approx(-(-total // batch))


@given(
    values=st.lists(st.floats(0, 1e6), min_size=3, max_size=40)
    | st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=3, max_size=200)
    | st.integers(3, 300).map(lambda n: [1.0] * n),
    rule=rules,
)
def test_nullity(values: list[float], rule: RankRule) -> None:
    """Always 1 ≤ R ≤ n − 1, ties and constant spectra included."""
    spectrum = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    assert 1 <= nullity(spectrum, rule) <= len(values) - 1


@pytest.mark.parametrize(
    ("spectrum", "paper", "reference"),
    [
        ([9.0, 1.0, 0.5], 1, 2),
        ([9.0, 8.0, 1.0, 0.9, 0.8], 2, 3),
        ([9.0, 1.0, 0.9, 0.8, 0.7], 3, 4),
        ([9.0, 8.0, 7.0, 1.0, 0.9], 1, 2),
        # the threshold is a value: all that share it are in the null space but the last ones above
        ([9.0, 8.0, 1.0, 1.0, 1.0], 2, 1),
    ],
)
def test_nullity_by_hand(spectrum: list[float], paper: int, reference: int) -> None:
    values = torch.tensor(spectrum)
    assert nullity(values, "paper") == paper
    assert nullity(values, "reference") == reference


@pytest.mark.parametrize("rule", RULES)
def test_nullity_refuses_short_spectra(rule: RankRule) -> None:
    with pytest.raises(ValueError, match="at least 3 singular values, got 2"):
        nullity(torch.tensor([2.0, 1.0]), rule)


@given(seed=seeds, dim=st.integers(3, 30), rows=st.integers(1, 40), rule=rules)
def test_null_space(seed: int, dim: int, rows: int, rule: RankRule) -> None:
    """Orthonormal columns in float64; no other subspace of that dimension is weighed less."""
    gram = gram_of(seed, dim, rows)
    basis = null_space(gram.float(), rule)
    rank = basis.shape[1]
    assert basis.dtype == torch.float64
    assert 1 <= rank <= dim - 1
    torch.testing.assert_close(basis.T @ basis, torch.eye(rank).double())
    least = float(torch.linalg.eigvalsh(gram)[:rank].sum())
    scale = float(gram.trace())
    assert float((basis.T @ gram @ basis).trace()) == pytest.approx(least, abs=1e-5 * scale)


@given(seed=seeds, size=ranks, normalise=st.booleans())
def test_damping(seed: int, size: tuple[int, int], normalise: bool) -> None:
    """η = 0 gives I, η = 1 gives B; between them the line that joins the two; always symmetric."""
    dim, rank = size
    basis = basis_of(seed, dim, rank)
    none, half, full = (damping(basis, eta, normalise) for eta in (0.0, 0.5, 1.0))
    identity = torch.eye(dim).double()
    torch.testing.assert_close(none, identity)
    torch.testing.assert_close(half, (full + identity) / 2)
    torch.testing.assert_close(half, half.T)
    wanted = projector(basis) / (rank**0.5 if normalise else 1)
    torch.testing.assert_close(full, wanted)
    assert float(full.norm()) == pytest.approx(1 if normalise else rank**0.5)


@given(seed=seeds, size=ranks)
def test_damping_leaves_no_component_outside(seed: int, size: tuple[int, int]) -> None:
    """A true projector maps every update into the null space; half damping halves what is outside."""
    dim, rank = size
    basis, update = basis_of(seed, dim, rank), drawn(seed, 3, dim)
    outside = torch.eye(dim).double() - projector(basis)
    assert float((update @ damping(basis, 1.0, False) @ outside).norm()) < 1e-9
    torch.testing.assert_close(
        update @ damping(basis, 0.5, False) @ outside, 0.5 * update @ outside
    )
