"""What one evaluation counts, against a slow literal twin and by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perdure.metrics import SCALARS, BatchCounts, Counts, count_batch, summarise


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[float]], list[int], list[int]]:
    classes = draw(st.integers(1, 6))
    arrivals = draw(st.lists(st.booleans(), min_size=classes - 1, max_size=classes - 1))
    task_of_class = [0, *np.cumsum(arrivals).tolist()]
    images = draw(st.integers(0, 8))
    levels = st.sampled_from([-math.inf, -2.0, 0.0, 1.0, 3.0])  # few, so that many are equal
    logits = [[draw(levels) for _ in range(classes)] for _ in range(images)]
    labels = [draw(st.integers(0, classes - 1)) for _ in range(images)]
    return logits, labels, task_of_class


def literal_counts(
    logits: list[list[float]], labels: list[int], task_of_class: list[int]
) -> dict[str, Any]:
    tasks, classes = max(task_of_class) + 1, len(task_of_class)
    found: dict[str, Any] = {
        name: [0] * tasks for name in ("correct", "within_task_correct", "right_task", "total")
    }
    found["confusion"] = [[0] * classes for _ in range(classes)]
    for row, label in zip(logits, labels, strict=True):
        own = task_of_class[label]
        among = [c for c in range(classes) if task_of_class[c] == own]
        predicted = max(range(classes), key=lambda c: row[c])
        restricted = max(among, key=lambda c: row[c])
        found["total"][own] += 1
        found["correct"][own] += predicted == label
        # With no finite logit among its own classes an image has no restricted prediction to
        # speak of; the module then says class 0.
        if row[restricted] == -math.inf:
            restricted = 0
        found["within_task_correct"][own] += restricted == label
        found["right_task"][own] += task_of_class[predicted] == own
        found["confusion"][label][predicted] += 1
    return found


def as_lists(batch: BatchCounts) -> dict[str, Any]:
    return {name: getattr(batch, name).tolist() for name in BatchCounts.__dataclass_fields__}


def count(batch: tuple[list[list[float]], list[int], list[int]]) -> BatchCounts:
    logits, labels, task_of_class = batch
    rows = torch.tensor(logits).reshape(len(labels), len(task_of_class))
    return count_batch(rows, torch.tensor(labels, dtype=torch.long), torch.tensor(task_of_class))


@given(batches())
def test_count_batch_equals_its_literal_twin(
    batch: tuple[list[list[float]], list[int], list[int]],
) -> None:
    found = count(batch)
    assert as_lists(found) == literal_counts(*batch)
    assert (found.correct <= found.within_task_correct).all()
    assert (found.correct <= found.right_task).all()


@given(batches(), st.integers(0, 8))
def test_counts_of_parts_add_to_the_whole(
    batch: tuple[list[list[float]], list[int], list[int]], cut: int
) -> None:
    logits, labels, tasks = batch
    parts = count((logits[:cut], labels[:cut], tasks)) + count((logits[cut:], labels[cut:], tasks))
    assert as_lists(parts) == as_lists(count(batch))


@given(batches())
def test_one_evaluation_becomes_counts(
    batch: tuple[list[list[float]], list[int], list[int]],
) -> None:
    found = count(batch)
    tasks = len(found.total)
    summary = summarise(Counts.from_rows([*[None] * (tasks - 1), found]))
    images = len(batch[1])
    right = int(np.trace(found.confusion))
    assert summary["last_accuracy"] == (right / images if images else None)
    for label, accuracy in enumerate(summary["per_class_accuracy"]):
        own = found.confusion[label]
        assert accuracy == (own[label] / own.sum() if own.sum() else None)


def test_a_perfect_head_scores_one_everywhere() -> None:
    task_of_class = torch.tensor([0, 0, 1, 2, 2])
    rows = []
    for seen in (2, 3, 5):
        labels = torch.arange(seen).repeat(3)
        rows.append(count_batch(torch.eye(5)[labels][:, :seen], labels, task_of_class[:seen]))
    found = summarise(Counts.from_rows(rows))
    zero = {"forgetting", "forgetting_reference", "backward_transfer"}
    assert {name: found[name] for name in SCALARS} == {n: float(n not in zero) for n in SCALARS}
    assert found["accuracy_curve"] == [1.0] * 3
    assert found["per_class_accuracy"] == [1.0] * 5
    assert found["confusion"] == (3 * np.eye(5, dtype=int)).tolist()


def test_a_head_that_knows_only_the_last_task() -> None:
    labels, task_of_class = torch.arange(4), torch.tensor([0, 0, 1, 1])
    logits = 10 * torch.eye(4) + torch.tensor([0.0, 0.0, 50.0, 50.0])
    found = count_batch(logits, labels, task_of_class)
    assert found.correct.tolist() == [0, 2]
    assert found.within_task_correct.tolist() == [2, 2]
    assert found.right_task.tolist() == [0, 2]


def test_a_class_that_comes_again_is_right_by_its_name() -> None:
    # Two classes in two domains: labels 0 and 1 in the first, 2 and 3 in the second.
    labels = torch.tensor([0, 1, 2, 3])
    logits = torch.tensor(
        [
            [1.0, 0.0, 2.0, 0.0],  # class 0, seen in the other domain
            [2.0, 1.0, 0.0, 3.0],  # class 1 by the other domain, class 0 within its own
            [3.0, 0.0, 0.0, 1.0],  # class 0 by the other domain, class 1 within its own
            [0.0, 0.0, 1.0, 0.0],  # wrong
        ]
    )
    found = count_batch(logits, labels, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]))
    assert found.correct.tolist() == [2, 1]
    assert found.within_task_correct.tolist() == [1, 0]
    assert found.right_task.tolist() == [0, 1]
    assert found.confusion.tolist() == [[2, 0], [1, 1]]
    summary = summarise(Counts.from_rows([None, found], repeats=True))
    assert summary["last_accuracy"] == 0.75
    assert summary["within_task_accuracy"] == 0.25
    assert summary["per_class_accuracy"] == [1.0, 0.5]
    with pytest.raises(ValueError, match="within_task_correct after task 2 on task 1 is 1"):
        Counts.from_rows([None, found])


@given(batches())
def test_classes_that_do_not_repeat_are_their_labels(
    batch: tuple[list[list[float]], list[int], list[int]],
) -> None:
    logits, labels, task_of_class = batch
    rows = torch.tensor(logits).reshape(len(labels), len(task_of_class))
    tasks = torch.tensor(task_of_class)
    found = count_batch(
        rows, torch.tensor(labels, dtype=torch.long), tasks, torch.arange(len(tasks))
    )
    assert as_lists(found) == as_lists(count(batch))


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_outside_the_classes_seen_are_refused(labels: list[int]) -> None:
    with pytest.raises(
        ValueError, match=f"from {min(labels)} to {max(labels)}, but .* classes 0 to 2"
    ):
        count_batch(torch.zeros(2, 3), torch.tensor(labels), torch.tensor([0, 0, 1]))
