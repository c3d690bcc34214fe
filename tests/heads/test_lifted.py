"""Heads with random features in front, their thin Gram matrices and their digests."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from perdure.errors import CheckpointError
from perdure.heads import HEADS, GaussianHead, Head, choose_head
from perdure.heads.config import HeadConfig
from perdure.heads.gram import GramMatrix
from perdure.numerics.gaussians import class_moments, discriminant, oracle_shrinkage
from perdure.randomness import generator
from perdure.testing.drawn import FeatureSurvey
from perdure.types import BackboneSpec, Task

SPEC = BackboneSpec("features", 5, 1, 1, 1, True, 1, 1e-6)


def drawn(classes: int, images: int) -> tuple[Tensor, Tensor]:
    random = generator(0, "lifted")
    labels = torch.arange(classes).repeat_interleave(images)
    centres = 2 * torch.randn(classes, 5, generator=random)
    return centres[labels] + torch.randn(len(labels), 5, generator=random), labels


def new(name: str, seed: int = 0) -> Any:
    choice = choose_head(name)
    return HEADS[choice.kind](
        SPEC, choice.options(HeadConfig()), lambda key: generator(seed, "init", key)
    )


def teach(head: Head, features: Tensor, labels: Tensor, *lessons: tuple[int, ...]) -> Any:
    for classes in lessons:
        task = Task(0, classes, tuple(f"class {label}" for label in classes), classes[-1] + 1)
        head.start_task(task)
        own = torch.isin(labels, torch.tensor(classes))
        head.end_task(task, FeatureSurvey((features[own], labels[own])))
    return head


@pytest.mark.parametrize("width", [8, 60])
@pytest.mark.parametrize("shrinkage", ["analytic", "0.3"])
def test_gaussian_is_that_of_lifted_features(width: int, shrinkage: str) -> None:
    """With a whole scatter and with a thin one; one division by n − 1 in place of n."""
    features, labels = drawn(3, 7)
    head = new(f"gaussian(lift=relu,lift_width={width},shrinkage={shrinkage})")
    teach(head, features[::2], labels[::2], (0, 1), (2,))
    head.take_in(features[1::2], labels[1::2])
    x = head.space(features)
    moments = class_moments(x, labels, (0, 1, 2))
    covariance = moments.scatter / (len(x) - 1)
    rho = 0.3 if shrinkage == "0.3" else max(oracle_shrinkage(covariance, len(x) - 3), 0.001)
    assert float(head.rho) == pytest.approx(rho)
    weight, bias = discriminant(moments.means, covariance, rho)
    assert head.gram.thin == (width == 60)
    wanted = (x @ weight.T + bias).float()
    torch.testing.assert_close(head.logits(features), wanted, rtol=1e-4, atol=1e-3)


def test_gaussian_by_cholesky_is_that_by_eigenvectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too wide to be decomposed more than once, it keeps the shrinkage that it chose."""
    features, labels = drawn(3, 7)
    name = "gaussian(lift=relu,lift_width=8,shrinkage=loo)"
    monkeypatch.setattr("perdure.heads.gaussian.WIDEST_SPECTRUM", 7)
    wide = teach(new(name), features, labels, (0, 1, 2))
    chosen = float(wide.rho)
    wide.take_in(features[:1], labels[:1])
    assert int(wide.left_out.judged) == 21
    assert float(wide.rho) == chosen
    monkeypatch.undo()
    usual = teach(
        new(f"gaussian(lift=relu,lift_width=8,shrinkage={chosen})"), features, labels, (0, 1, 2)
    )
    usual.take_in(features[:1], labels[:1])
    torch.testing.assert_close(wide.weight, usual.weight, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["ridge", "gaussian"])
def test_random_features_are_the_seeds_and_are_compared_on_load(kind: str) -> None:
    features, labels = drawn(3, 4)
    name = f"{kind}(lift=cosine,lift_width=40)"
    head = teach(new(name), features, labels, (0, 1, 2))
    state = head.state_dict()
    assert sum(value.numel() for value in state.values()) < 40 * 41 * 2
    loaded = new(name)
    loaded.start_task(Task(0, (0, 1, 2), ("a", "b", "c"), 3))
    loaded.load_state_dict(state)
    assert torch.equal(loaded.logits(features), head.logits(features))
    other = new(name, seed=1)
    other.start_task(Task(0, (0, 1, 2), ("a", "b", "c"), 3))
    with pytest.raises(CheckpointError, match="random features of lift=cosine come out otherwise"):
        other.load_state_dict(state)


def test_heads_of_one_lift_share_its_numbers() -> None:
    features, labels = drawn(2, 3)
    first, second = (
        teach(new(f"{kind}(lift=relu,lift_width=9)"), features, labels, (0, 1))
        for kind in ("ridge", "gaussian")
    )
    assert torch.equal(first.lift.digest, second.lift.digest)
    assert torch.equal(first.space(features), second.space(features))


def test_the_kernels_width_is_the_first_lessons() -> None:
    features, labels = drawn(3, 4)
    head = teach(new("ridge(lift=cosine,lift_width=9)"), features, labels, (0, 1), (2,))
    distances = torch.pdist(features[:8].double()).square()
    assert float(head.lift.gamma) == pytest.approx(1 / float(distances.median()))
    given = teach(new("ridge(lift=cosine,lift_width=9,lift_gamma=0.5)"), features, labels, (0, 1))
    assert float(given.lift.gamma) == 0.5
    assert not given.lift.remark
    alone = teach(new("ridge(lift=cosine,lift_width=9)"), features[:1], labels[:1], (0,))
    assert "lift_gamma=1 was taken" in alone.remarks[0]


def test_a_gram_matrix_is_thin_until_rows_outnumber_columns() -> None:
    rows = torch.randn(11, 6, generator=generator(0, "rows"), dtype=torch.float64)
    gram = GramMatrix(6)
    for part, thin in ((rows[:3], True), (rows[3:5], True), (rows[5:8], False), (rows[8:], False)):
        gram.add(part)
        assert gram.thin == thin
        assert (len(gram.values) > 0) == thin
    torch.testing.assert_close(gram.matrix, rows.T @ rows)
    torch.testing.assert_close(gram.spectrum().gram(), rows.T @ rows)
    assert gram.trace == pytest.approx(float(rows.square().sum()))


def test_a_plain_head_has_no_lift() -> None:
    features, _ = drawn(1, 3)
    for name in ("gaussian", "ridge"):
        assert new(name).lift is None
        assert torch.equal(new(name).space(features), features.double())
    assert torch.equal(new("ncm").space(features), features)
    assert isinstance(new("gaussian"), GaussianHead)
