"""The ridge head against its normal equations, solved word by word."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from perdure.heads import HEADS
from perdure.heads.config import RidgeConfig
from perdure.heads.ridge import RidgeHead
from perdure.numerics.feature_drift import FeatureDrift
from perdure.numerics.ridge import MOST_FREEDOM, RATIOS, one_hot, with_bias
from perdure.randomness import generator
from perdure.testing.drawn import FeatureSurvey
from perdure.types import BackboneSpec, Task
from tests.reference.ridge_literal import freedom, scores_without, weights

DIM = 6


def drawn(seed: int, classes: int, images: int, dim: int = DIM) -> tuple[Tensor, Tensor]:
    """Classes that overlap, with the offset that features share."""
    random = generator(seed, "ridge")
    labels = torch.arange(classes).repeat_interleave(images)
    centres = 5 + 1.5 * torch.randn(classes, dim, generator=random, dtype=torch.float64)
    return centres[labels] + torch.randn(
        len(labels), dim, generator=random, dtype=torch.float64
    ), labels


def new(dim: int = DIM, **options: Any) -> RidgeHead:
    spec = BackboneSpec("features", dim, 1, 1, 1, True, 1, 1e-6)
    made = HEADS["ridge"](spec, RidgeConfig(**options), lambda name: generator(0, name))
    assert isinstance(made, RidgeHead)
    return made


def teach(head: RidgeHead, features: Tensor, labels: Tensor, *lessons: tuple[int, ...]) -> None:
    for classes in lessons:
        task = Task(0, classes, tuple(f"class {label}" for label in classes), classes[-1] + 1)
        head.start_task(task)
        own = torch.isin(labels, torch.tensor(classes))
        head.end_task(task, FeatureSurvey((features[own], labels[own])))


@pytest.mark.parametrize("dim", [DIM, 40])
def test_lesson_by_lesson_it_solves_the_normal_equations(dim: int) -> None:
    """With more images than columns, and with fewer, where the Gram matrix is thin."""
    features, labels = drawn(0, 3, 5, dim)
    head = new(dim, ridge_ratio=0.01)
    teach(head, features, labels, (0, 1), (2,))
    assert head.gram.thin == (dim == 40)
    rows = with_bias(features)
    penalty = 0.01 * float(rows.square().sum()) / rows.shape[1]
    wanted = rows @ weights(rows, one_hot(labels, 3), penalty)
    torch.testing.assert_close(head.logits(features), wanted, rtol=1e-8, atol=1e-8)


def test_the_ratio_with_most_right_answers_to_images_left_out_is_chosen() -> None:
    features, labels = drawn(1, 4, 4)
    head = new()
    teach(head, features, labels, (0, 1, 2, 3))
    rows, targets = with_bias(features), one_hot(labels, 4)
    scale = float(rows.square().sum()) / rows.shape[1]
    answers = [scores_without(rows, targets, r * scale).argmax(1) for r in RATIOS]
    right = [int((found == labels).sum()) for found in answers]
    assert head.left_out is not None
    assert head.left_out.right.tolist() == right
    assert right[RATIOS.index(float(head.ratio))] == max(right) > min(right)


def test_ratios_that_interpolate_are_not_chosen() -> None:
    features, labels = drawn(2, 3, 3, 40)
    head = new(40)
    teach(head, features, labels, (0, 1, 2))
    rows = with_bias(features)
    scale = float(rows.square().sum()) / rows.shape[1]
    most = MOST_FREEDOM * len(rows)
    assert freedom(rows, float(head.ratio) * scale) <= most < freedom(rows, RATIOS[0] * scale)


def test_without_two_images_of_a_class_the_least_allowed_ratio_is_taken() -> None:
    features, labels = drawn(3, 5, 1)
    head = new()
    assert head.remarks == ()
    teach(head, features, labels, (0, 1, 2, 3, 4))
    assert "no class has two images" in head.remarks[0]
    rows = with_bias(features)
    scale = float(rows.square().sum()) / rows.shape[1]
    allowed = [r for r in RATIOS if freedom(rows, r * scale) <= MOST_FREEDOM * len(rows)]
    assert float(head.ratio) == min(allowed)
    assert torch.equal(head.logits(features).argmax(1), labels)


def test_images_that_are_all_alike_are_no_trouble() -> None:
    head = new()
    features, labels = torch.zeros(4, DIM, dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    teach(head, features, labels, (0, 1))
    scores = head.logits(features)
    assert bool(scores.isfinite().all())
    torch.testing.assert_close(scores[:, 0], scores[:, 1])


def test_choosing_task_by_task_moves_few_labels() -> None:
    """The first classes did not know the later ones: 5 % of labels move at most, over ten draws."""
    moved = others = 0
    for seed in range(10):
        features, labels = drawn(seed, 4, 40)
        taught = torch.arange(len(labels)) % 5 == 0
        at_once, slowly = new(), new()
        teach(at_once, features[taught], labels[taught], (0, 1, 2, 3))
        teach(slowly, features[taught], labels[taught], (0, 1), (2, 3))
        rest = features[~taught]
        moved += int((slowly.logits(rest).argmax(1) != at_once.logits(rest).argmax(1)).sum())
        others += len(rest)
    assert moved / others <= 0.05


def test_a_class_that_is_forgotten_answers_nothing() -> None:
    features, labels = drawn(5, 3, 6)
    head = new()
    teach(head, features[::2], labels[::2], (0, 1, 2))
    (trace,) = head.forget(1)
    assert {"gram.matrix", "left_out.right", "weight"} <= set(trace.tensors)
    late = labels[1::2] != 1
    head.take_in(features[1::2][late], labels[1::2][late])
    assert not head.weight[1].any()
    assert head.counts.tolist() == [6, 0, 6]


def test_a_thin_gram_follows_as_a_whole_one_does() -> None:
    """The spread that a map does not tell reaches beyond the rows that were taken in."""
    features, labels = drawn(0, 4, 5, 40)
    heads = [new(40, ridge_ratio=0.01, drift="linear") for _ in range(2)]
    random, logits = generator(1, "moved"), []
    before = features[:10] + torch.randn(10, 40, generator=random, dtype=torch.float64)
    after = before + 0.5 * torch.randn(10, 40, generator=random, dtype=torch.float64)
    for whole, head in enumerate(heads):
        teach(head, features, labels, (0, 1))
        assert head.gram.thin
        if whole:
            head.gram.replace(head.gram.spectrum().gram())
        groups = torch.tensor([2, 3]).repeat_interleave(5)
        head.follow(FeatureDrift(before, after, known=2, groups=groups))
        teach(head, features, labels, (2, 3))
        logits.append(head.logits(features))
    torch.testing.assert_close(*logits, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dim", [DIM, 400])
def test_forgotten_images_count_on_both_sides_of_the_choice(dim: int) -> None:
    """Ratios that interpolate are those of more freedom than there are images, forgotten or not."""
    features, labels = drawn(0, 6, 40, dim)
    head = new(dim)
    teach(head, features, labels, (0, 1, 2, 3, 4, 5))
    for label in range(4):
        head.forget(label)
    more, own = drawn(1, 6, 4, dim)
    head.take_in(more[own > 3], own[own > 3])
    assert head._system().images == 248
    assert float(head.ratio) < 1, "of 8 images alone nearly all ratios would interpolate"
