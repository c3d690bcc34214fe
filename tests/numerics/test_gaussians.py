"""The invariants of `perdure.numerics.gaussians`, and its agreement with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import oas
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from perdure.numerics.gaussians import (
    class_moments,
    discriminant,
    gaussian_factor,
    gaussian_samples,
    merge_moments,
    oracle_shrinkage,
)
from perdure.randomness import generator

seeds = st.integers(0, 10**6)
counts = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def drawn(seed: int, sizes: list[int], dim: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Rows of classes 0, 1, … in mixed order."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    random = generator(seed, "classes", dim)
    centres = spread * torch.randn(len(sizes), dim, generator=random)
    scales = torch.linspace(0.3, 3, dim)
    rows = centres[labels] + scales * torch.randn(len(labels), dim, generator=random)
    order = torch.randperm(len(labels), generator=random)
    return rows[order], labels[order]


@given(seed=seeds, sizes=counts, dim=st.integers(1, 6))
def test_class_moments(seed: int, sizes: list[int], dim: int) -> None:
    """Means and counts per class; the scatter is Σ (x − μ_c)(x − μ_c)ᵀ, symmetric, psd."""
    features, labels = drawn(seed, sizes, dim)
    moments = class_moments(features, labels, tuple(range(len(sizes))))
    assert moments.counts.tolist() == sizes
    scatter = np.zeros((dim, dim))
    for label in range(len(sizes)):
        rows = features.double().numpy()[labels.numpy() == label]
        np.testing.assert_allclose(moments.means[label], rows.mean(axis=0), atol=1e-12)
        for row in rows:
            scatter += np.outer(row - rows.mean(axis=0), row - rows.mean(axis=0))
    np.testing.assert_allclose(moments.scatter, scatter, atol=1e-9)
    torch.testing.assert_close(moments.scatter, moments.scatter.T)
    assert float(torch.linalg.eigvalsh(moments.scatter).min()) > -1e-9


@given(seed=seeds, dim=st.integers(1, 4))
def test_class_moments_follow_the_order_asked_for(seed: int, dim: int) -> None:
    features, labels = drawn(seed, [3, 2, 4], dim)
    forth, back = (class_moments(features, labels, order) for order in ((0, 1, 2), (2, 0, 1)))
    torch.testing.assert_close(back.means, forth.means[[2, 0, 1]])
    assert back.counts.tolist() == [4, 3, 2]
    torch.testing.assert_close(back.scatter, forth.scatter)


@given(seed=seeds, sizes=counts, dim=st.integers(1, 4))
def test_class_moments_add_up_over_tasks(seed: int, sizes: list[int], dim: int) -> None:
    """The scatter of all classes is the sum of those of each: nothing old is needed."""
    features, labels = drawn(seed, sizes, dim)
    whole = class_moments(features, labels, tuple(range(len(sizes))))
    parts = [
        class_moments(features[labels == c], labels[labels == c], (c,)) for c in range(len(sizes))
    ]
    torch.testing.assert_close(whole.scatter, torch.stack([p.scatter for p in parts]).sum(0))


@given(seed=seeds, first=counts, more=st.integers(1, 5), dim=st.integers(1, 4))
def test_merge_moments(seed: int, first: list[int], more: int, dim: int) -> None:
    """Merged, the moments of some images and of others are those of all."""
    sizes = [size + more for size in first]
    x, labels = drawn(seed, sizes, dim)
    classes = tuple(range(len(sizes)))
    seen = torch.zeros(len(x), dtype=torch.bool)
    for label, size in enumerate(first):
        seen[(labels == label).nonzero()[:size, 0]] = True
    parts = [class_moments(x[rows], labels[rows], classes) for rows in (seen, ~seen)]
    merged, wanted = merge_moments(*parts), class_moments(x, labels, classes)
    torch.testing.assert_close(merged.means, wanted.means)
    torch.testing.assert_close(merged.scatter, wanted.scatter)
    assert torch.equal(merged.counts, wanted.counts)


def test_class_moments_refuse_an_empty_class() -> None:
    features, labels = drawn(0, [2, 2], 3)
    with pytest.raises(ValueError, match="class 7 has no image"):
        class_moments(features, labels, (0, 7))


@given(seed=seeds, rows=st.integers(2, 60), dim=st.integers(2, 12))
def test_oracle_shrinkage(seed: int, rows: int, dim: int) -> None:
    """Equation 23 of the paper, in [0, 1], from covariance and number of samples alone."""
    covariance = maximum_likelihood(drawn(seed, [rows], dim)[0])
    ours = oracle_shrinkage(covariance, rows)
    assert 0 <= ours <= 1
    assert ours == pytest.approx(chen(covariance, rows), abs=1e-12)


@pytest.mark.parametrize(("rows", "dim"), [(50, 200), (300, 200), (2000, 100)])
def test_oracle_shrinkage_agrees_with_scikit_learn(rows: int, dim: int) -> None:
    """scikit-learn leaves out two terms of order 1/d, which matter less the larger d is."""
    features = drawn(0, [rows], dim)[0]
    ours = oracle_shrinkage(maximum_likelihood(features), rows)
    assert ours == pytest.approx(oas(features.double().numpy())[1], rel=2 / dim)


def maximum_likelihood(features: Tensor) -> Tensor:
    centred = features.double() - features.double().mean(dim=0)
    return centred.T @ centred / len(features)


def chen(covariance: Tensor, samples: int) -> float:
    """Equation 23 of Chen et al. 2010, term by term."""
    dim = len(covariance)
    square = float((covariance @ covariance).trace())
    trace = float(covariance.trace())
    above = (1 - 2 / dim) * square + trace**2
    below = (samples + 1 - 2 / dim) * (square - trace**2 / dim)
    return 1.0 if below <= 0 else min(above / below, 1.0)


def test_oracle_shrinkage_of_a_multiple_of_the_identity_is_one() -> None:
    assert oracle_shrinkage(3 * torch.eye(5), 100) == 1.0
    assert oracle_shrinkage(torch.zeros(4, 4), 10) == 1.0


@given(seed=seeds, dim=st.integers(2, 8))
def test_oracle_shrinkage_falls_with_samples(seed: int, dim: int) -> None:
    features = drawn(seed, [40], dim)[0].double()
    covariance = features.T @ features / 40
    shares = [oracle_shrinkage(covariance, samples) for samples in (2, 20, 200, 2000, 10**7)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 1e-2


@given(
    seed=seeds,
    sizes=st.lists(st.integers(2, 9), min_size=2, max_size=5),
    dim=st.integers(2, 6),
    shrinkage=st.sampled_from([0.01, 0.1, 0.5, 0.9]),
)
def test_discriminant(seed: int, sizes: list[int], dim: int, shrinkage: float) -> None:
    """Scores are −½ (x − μ_c)ᵀΣ⁻¹(x − μ_c) up to a term that all classes share."""
    features, labels = drawn(seed, sizes, dim)
    moments = class_moments(features, labels, tuple(range(len(sizes))))
    covariance = moments.scatter / len(labels)
    weight, bias = discriminant(moments.means, covariance, shrinkage)
    level = covariance.trace() / dim
    full = (1 - shrinkage) * covariance + shrinkage * level * torch.eye(dim).double()
    apart = features.double()[:, None] - moments.means
    wanted = -0.5 * torch.einsum("ncd,de,nce->nc", apart, torch.linalg.inv(full), apart)
    scores = features.double() @ weight.T + bias
    difference = scores - wanted
    spread = (difference - difference.mean(dim=1, keepdim=True)).norm()
    assert float(spread) < 1e-6 * (1 + float(wanted.norm()))


@given(seed=seeds, dim=st.integers(2, 6), shrinkage=st.sampled_from([0.05, 0.3, 0.8]))
def test_discriminant_agrees_with_scikit_learn(seed: int, dim: int, shrinkage: float) -> None:
    """Classes of equal size: scikit-learn, which weighs classes equally, pools the same covariance."""
    features, labels = drawn(seed, [8, 8, 8], dim)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=[1 / 3] * 3)
    theirs.fit(features.double().numpy(), labels.numpy())
    moments = class_moments(features, labels, (0, 1, 2))
    weight, bias = discriminant(moments.means, moments.scatter / len(labels), shrinkage)
    np.testing.assert_allclose(weight, theirs.coef_, atol=1e-8 * np.abs(theirs.coef_).max())
    shared = theirs.intercept_ - np.log(1 / 3)
    np.testing.assert_allclose(bias, shared, atol=1e-8 * (1 + np.abs(shared).max()))


def test_discriminant_of_points_without_spread_uses_plain_distance() -> None:
    means = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]])
    weight, bias = discriminant(means, torch.zeros(2, 2), 0.1)
    scores = torch.tensor([[1.9, 0.3], [0.2, 2.5], [0.3, 0.2]]).double() @ weight.T + bias
    assert scores.argmax(dim=1).tolist() == [1, 2, 0]
    torch.testing.assert_close(weight, means.double())


@given(seed=seeds, sizes=counts, dim=st.integers(1, 5))
def test_gaussian_factor(seed: int, sizes: list[int], dim: int) -> None:
    """factor · factorᵀ = covariance + ridge · I, lower triangular, one image included."""
    features, labels = drawn(seed, sizes, dim)
    for label, size in enumerate(sizes):
        rows = features[labels == label].double()
        mean, factor = gaussian_factor(rows.float(), 1e-3)
        assert mean.dtype == factor.dtype == torch.float64
        torch.testing.assert_close(factor, factor.tril())
        torch.testing.assert_close(mean, rows.mean(0))
        covariance = np.zeros((dim, dim)) if size == 1 else np.cov(rows.T.numpy()).reshape(dim, dim)
        wanted = torch.from_numpy(covariance) + 1e-3 * torch.eye(dim, dtype=torch.float64)
        torch.testing.assert_close(factor @ factor.T, wanted)


def test_gaussian_samples() -> None:
    """mean + factor · noise: the literal formula, and the moments of torch's own distribution."""
    features, labels = drawn(3, [6, 9], 4)
    pairs = [gaussian_factor(features[labels == label], 1e-4) for label in range(2)]
    means, factors = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    count = 20_000
    samples = gaussian_samples(means, factors, count, generator(0, "samples"))
    assert samples.shape == (2, count, 4)
    random = generator(0, "samples")
    noise = torch.empty(2, count, 4, dtype=torch.float64).normal_(generator=random)
    for label in range(2):
        rows = features[labels == label].double()
        covariance = rows.T.cov() + 1e-4 * torch.eye(4)
        literal = torch.stack([means[label] + factors[label] @ z for z in noise[label, :50]])
        torch.testing.assert_close(samples[label, :50], literal)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            theirs = torch.distributions.MultivariateNormal(rows.mean(0), covariance)
            others = theirs.sample(torch.Size([count]))
        level = float(covariance.diagonal().max()) ** 0.5
        for moment, tolerance in ((lambda x: x.mean(0), 0.03), (lambda x: x.T.cov(), 0.05 * level)):
            ours, wanted = moment(samples[label]), moment(others)
            assert float((ours - wanted).abs().max()) < 2 * level * tolerance


def test_gaussian_samples_are_those_of_the_generator() -> None:
    means, factors = torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3)
    first, again, other = (
        gaussian_samples(means, factors, 5, generator(seed, "samples")) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.float32
