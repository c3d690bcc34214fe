"""Counts and metrics against slow literal twins, against identities, and against numbers by hand."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perdure.metrics import (
    METRICS,
    Counts,
    accuracy_matrix,
    count_batch,
    forgetting_per_task,
    metric,
    spread,
    summarise,
)
from perdure.reports.page.html import make_report
from perdure.reports.results.files import read_results, write_results
from perdure.reports.tables.comparison import as_records, as_text_table, compare
from tests.reports.entries import counts_of
from tests.reports.run_folders import finished_run

Rows = list[list[int] | None]
Batch = tuple[list[list[float]], list[int], list[int]]

# Three tasks of 10, 20 and 10 images.
CORRECT: Rows = [[8], [6, 16], [7, 12, 9]]
WITHIN: Rows = [[8], [8, 18], [8, 18, 10]]
RIGHT: Rows = [[10], [7, 17], [8, 13, 9]]
TOTAL = [10, 20, 10]
BY_HAND = counts_of(CORRECT, TOTAL, WITHIN, RIGHT)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    classes = draw(st.integers(1, 6))
    arrivals = draw(st.lists(st.booleans(), min_size=classes - 1, max_size=classes - 1))
    task_of_class = [0, *np.cumsum(arrivals).tolist()]
    images = draw(st.integers(0, 8))
    levels = st.sampled_from([-math.inf, -2.0, 0.0, 1.0, 3.0])  # few, so that many are equal
    logits = [[draw(levels) for _ in range(classes)] for _ in range(images)]
    labels = [draw(st.integers(0, classes - 1)) for _ in range(images)]
    return logits, labels, task_of_class


def literal_counts(batch: Batch) -> dict[str, Any]:
    logits, labels, task_of_class = batch
    tasks, classes = max(task_of_class) + 1, len(task_of_class)
    names = ("correct", "within_task_correct", "right_task", "total")
    found: dict[str, Any] = {name: [[0] * tasks] for name in names}
    pairs = [(label, predicted) for label in range(classes) for predicted in range(classes)]
    confusion = dict.fromkeys(pairs, 0)
    for row, label in zip(logits, labels, strict=True):
        own = task_of_class[label]
        among = [c for c in range(classes) if task_of_class[c] == own]
        predicted = max(range(classes), key=lambda c: row[c])
        restricted = max(among, key=lambda c: row[c])
        found["total"][0][own] += 1
        found["correct"][0][own] += predicted == label
        # With no finite logit among its own classes an image has no restricted prediction to
        # speak of; the module then says class 0.
        if row[restricted] == -math.inf:
            restricted = 0
        found["within_task_correct"][0][own] += restricted == label
        found["right_task"][0][own] += task_of_class[predicted] == own
        confusion[label, predicted] += 1
    confused = [[*pair, images] for pair, images in confusion.items() if images]
    counts = {"after": [tasks - 1], **found, "confused": confused, "classes": classes}
    return counts | {"repeats": False}


def count(batch: Batch, class_of: torch.Tensor | None = None) -> Counts:
    logits, labels, task_of_class = batch
    rows = torch.tensor(logits).reshape(len(labels), len(task_of_class))
    tasks = torch.tensor(task_of_class)
    return count_batch(rows, torch.tensor(labels, dtype=torch.long), tasks, class_of)


@given(batches())
def test_count_batch_equals_its_literal_twin(batch: Batch) -> None:
    found = count(batch)
    assert {k: np.asarray(v).tolist() for k, v in vars(found).items()} == literal_counts(batch)
    assert (found.correct <= found.within_task_correct).all()
    assert (found.correct <= found.right_task).all()
    # Classes that do not repeat are their labels.
    assert count(batch, torch.arange(len(batch[2]))) == found


@given(batches(), st.integers(0, 8))
def test_counts_of_parts_add_to_the_whole(batch: Batch, cut: int) -> None:
    logits, labels, tasks = batch
    parts = count((logits[:cut], labels[:cut], tasks)) + count((logits[cut:], labels[cut:], tasks))
    assert parts == count(batch)


def test_evaluations_after_several_tasks_add_in_any_order() -> None:
    rows = [
        counts_of([None] * after + [row], TOTAL[: after + 1]) for after, row in enumerate(CORRECT)
    ]
    found = rows[2] + rows[0] + rows[1]
    assert found == rows[0] + rows[1] + rows[2] == counts_of(CORRECT, TOTAL)
    assert found != BY_HAND
    assert found.correct.tolist() == [[8, 0, 0], [6, 16, 0], [7, 12, 9]]
    assert (rows[0] + rows[2]).after.tolist() == [0, 2]
    assert (found.confusion == rows[2].confusion).all()


@pytest.mark.long
@given(batches())
def test_one_evaluation_becomes_a_summary(batch: Batch) -> None:
    found = count(batch)
    summary = summarise(found)
    images = len(batch[1])
    right = int(np.trace(found.confusion))
    assert summary["last_accuracy"] == (right / images if images else None)
    for label, accuracy in enumerate(summary["per_class_accuracy"]):
        own = found.confusion[label]
        assert accuracy == (own[label] / own.sum() if own.sum() else None)


def test_a_perfect_head_scores_one_everywhere() -> None:
    task_of_class = torch.tensor([0, 0, 1, 2, 2])
    counted = []
    for seen in (2, 3, 5):
        labels = torch.arange(seen).repeat(3)
        counted.append(count_batch(torch.eye(5)[labels][:, :seen], labels, task_of_class[:seen]))
    found = summarise(counted[0] + counted[1] + counted[2])
    zero = {"forgetting", "forgetting_reference", "backward_transfer"}
    assert {name: found[name] for name in METRICS} == {n: float(n not in zero) for n in METRICS}
    assert found["accuracy_curve"] == [1.0] * 3
    assert found["per_class_accuracy"] == [1.0] * 5
    assert found["confusion"] == (3 * np.eye(5, dtype=int)).tolist()


def test_a_head_that_knows_only_the_last_task() -> None:
    labels, task_of_class = torch.arange(4), torch.tensor([0, 0, 1, 1])
    logits = 10 * torch.eye(4) + torch.tensor([0.0, 0.0, 50.0, 50.0])
    found = count_batch(logits, labels, task_of_class)
    assert found.correct.tolist() == [[0, 2]]
    assert found.within_task_correct.tolist() == [[2, 2]]
    assert found.right_task.tolist() == [[0, 2]]


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
    assert found.correct.tolist() == [[2, 1]]
    assert found.within_task_correct.tolist() == [[1, 0]]
    assert found.right_task.tolist() == [[0, 1]]
    assert found.confusion.tolist() == [[2, 0], [1, 1]]
    summary = summarise(found)
    assert summary["last_accuracy"] == 0.75
    assert summary["within_task_accuracy"] == 0.25
    assert summary["per_class_accuracy"] == [1.0, 0.5]
    with pytest.raises(ValueError, match="within_task_correct after task 2 on task 1 is 1"):
        replace(found, repeats=False)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_outside_the_classes_seen_are_refused(labels: list[int]) -> None:
    with pytest.raises(
        ValueError, match=f"from {min(labels)} to {max(labels)}, but .* classes 0 to 2"
    ):
        count_batch(torch.zeros(2, 3), torch.tensor(labels), torch.tensor([0, 0, 1]))


class Twin:
    """The definitions of the papers, written out with 1-based loops over a dictionary a[j, i]."""

    def __init__(self, correct: Rows, total: list[int], within: Rows, right: Rows) -> None:
        self.tasks, self.total = len(total), total
        self.correct, self.within, self.right = correct, within, right
        self.a: dict[tuple[int, int], float | None] = {}
        for j in range(1, self.tasks + 1):
            row = correct[j - 1]
            for i in range(1, j + 1):
                images = total[i - 1]
                self.a[j, i] = row[i - 1] / images if row is not None and images else None

    def mean(self, values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    def weighted(self, rows: Rows, j: int) -> float | None:
        row, right, images = rows[j - 1], 0, 0
        if row is None:
            return None
        for i in range(1, j + 1):
            right += row[i - 1]
            images += self.total[i - 1]
        return right / images if images else None

    def drop(self, i: int, until: int) -> float | None:
        past = [self.a[j, i] for j in range(i, until + 1)]
        known = [value for value in past if value is not None]
        now = self.a[self.tasks, i]
        return max(known) - now if now is not None and len(known) == len(past) else None

    def difference(self, i: int) -> float | None:
        now, then = self.a[self.tasks, i], self.a[i, i]
        return now - then if now is not None and then is not None else None

    def summary(self) -> dict[str, float | None]:
        tasks, old = self.tasks, range(1, self.tasks)
        every = range(1, tasks + 1)
        return {
            "last_accuracy": self.weighted(self.correct, tasks),
            "last_accuracy_task_mean": self.mean([self.a[tasks, i] for i in every]),
            "average_incremental_accuracy": self.mean(
                [self.weighted(self.correct, j) for j in every]
            ),
            "forgetting": self.mean([self.drop(i, tasks - 1) for i in old]),
            "forgetting_reference": self.mean([self.drop(i, tasks) for i in old]),
            "backward_transfer": self.mean([self.difference(i) for i in old]),
            "plasticity": self.mean([self.a[i, i] for i in every]),
            "within_task_accuracy": self.weighted(self.within, tasks),
            "task_inference_accuracy": self.weighted(self.right, tasks),
        }


Run = tuple[Rows, list[int], Rows, Rows]


@st.composite
def runs(draw: st.DrawFn, missing: bool = True, least: int = 0) -> Run:
    """Right images per task learned, of the test images per task; all, within the task, by task."""
    tasks = draw(st.integers(1, 5))
    total = [draw(st.integers(least, 12)) for _ in range(tasks)]
    correct: Rows = []
    within: Rows = []
    right: Rows = []
    for after in range(tasks):
        if missing and after < tasks - 1 and draw(st.integers(0, 5)) == 0:
            for rows in (correct, within, right):
                rows.append(None)
            continue
        one = [draw(st.integers(0, total[on])) for on in range(after + 1)]
        correct.append(one)
        within.append([draw(st.integers(one[on], total[on])) for on in range(after + 1)])
        right.append([draw(st.integers(one[on], total[on])) for on in range(after + 1)])
    return correct, total, within, right


@given(runs())
def test_equals_the_literal_twin(run: Run) -> None:
    found, twin = summarise(counts_of(*run)), Twin(*run)
    assert twin.summary().keys() == METRICS.keys()
    for name, expected in twin.summary().items():
        assert found[name] == (None if expected is None else pytest.approx(expected, abs=1e-12))
    tasks = range(1, twin.tasks + 1)
    assert found["accuracy_matrix"] == [[twin.a.get((j, i)) for i in tasks] for j in tasks]
    assert found["accuracy_curve"] == [twin.weighted(twin.correct, j) for j in tasks]


@given(runs(missing=False, least=1))
def test_bounds_and_identities(run: Run) -> None:
    found, total = summarise(counts_of(*run)), run[1]
    for name, row in METRICS.items():
        if found[name] is not None:
            assert row.low <= found[name] <= row.high, name
    within, inferred = found["within_task_accuracy"], found["task_inference_accuracy"]
    assert found["last_accuracy"] <= min(within, inferred)
    assert found["last_accuracy"] == found["accuracy_curve"][-1]
    if len(total) == 1:
        assert found["forgetting"] is found["forgetting_reference"] is None
        assert found["backward_transfer"] is None
        assert found["plasticity"] == found["last_accuracy"]
        return
    assert found["forgetting_reference"] >= found["forgetting"] - 1e-12
    assert found["forgetting"] >= -found["backward_transfer"] - 1e-12
    if len(total) == 2:
        assert found["forgetting"] == pytest.approx(-found["backward_transfer"], abs=1e-12)
    if len(set(total)) == 1:
        assert found["last_accuracy"] == pytest.approx(found["last_accuracy_task_mean"])


@given(runs())
def test_a_summary_survives_json(run: Run) -> None:
    found = summarise(counts_of(*run))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_numbers_done_by_hand() -> None:
    found = summarise(BY_HAND)
    assert found["accuracy_matrix"] == [[0.8, None, None], [0.6, 0.8, None], [0.7, 0.6, 0.9]]
    assert found["accuracy_curve"] == [0.8, 22 / 30, 0.7]
    expected = {
        "last_accuracy": 0.7,
        "last_accuracy_task_mean": 2.2 / 3,
        "average_incremental_accuracy": (0.8 + 22 / 30 + 0.7) / 3,
        "forgetting": (0.1 + 0.2) / 2,
        "forgetting_reference": (0.1 + 0.2) / 2,
        "backward_transfer": (-0.1 - 0.2) / 2,
        "plasticity": 2.5 / 3,
        "within_task_accuracy": 36 / 40,
        "task_inference_accuracy": 30 / 40,
    }
    assert {name: found[name] for name in METRICS} == pytest.approx(expected)


def test_forgetting_is_negative_where_the_last_task_helped() -> None:
    found = summarise(counts_of([[5], [8, 9]], [10, 10]))
    assert found["forgetting"] == pytest.approx(-0.3)
    assert found["forgetting_reference"] == 0.0
    assert found["backward_transfer"] == pytest.approx(0.3)


def test_forgetting_is_the_mean_of_that_per_task() -> None:
    matrix = accuracy_matrix(BY_HAND)
    assert forgetting_per_task(matrix).tolist() == pytest.approx([0.1, 0.2])
    assert forgetting_per_task(matrix).mean() == pytest.approx(summarise(BY_HAND)["forgetting"])
    assert forgetting_per_task(matrix[:1, :1]).tolist() == []


def test_a_run_evaluated_only_at_the_end() -> None:
    rows: Rows = [None, None, CORRECT[-1]]
    found = summarise(counts_of(rows, TOTAL, [None, None, WITHIN[-1]]))
    assert found["accuracy_matrix"] == [[None] * 3, [None] * 3, [0.7, 0.6, 0.9]]
    assert found["accuracy_curve"] == [None, None, 0.7]
    assert found["last_accuracy"] == 0.7
    assert found["within_task_accuracy"] == 0.9
    assert {name for name in METRICS if found[name] is None} == {
        "average_incremental_accuracy",
        "forgetting",
        "forgetting_reference",
        "backward_transfer",
        "plasticity",
    }


def test_a_task_without_test_images_makes_means_over_tasks_unknown() -> None:
    found = summarise(counts_of([[8], [6, 0]], [10, 0]))
    assert found["accuracy_matrix"] == [[0.8, None], [0.6, None]]
    assert found["last_accuracy"] == 0.6
    assert found["average_incremental_accuracy"] == pytest.approx(0.7)
    assert found["last_accuracy_task_mean"] is None
    assert found["plasticity"] is None
    assert found["forgetting"] == pytest.approx(0.2)


def test_no_test_images_at_all() -> None:
    found = summarise(counts_of([[0]], [0]))
    assert all(found[name] is None for name in METRICS)
    assert found["per_class_accuracy"] == [None, None]


@pytest.mark.parametrize(
    ("correct", "within", "message"),
    [
        ([[2]], [[2]], r"correct after task 1 on task 1 is 2; allowed: 0 to 1"),
        ([[-1]], [[0]], r"is -1; allowed: 0 to 1"),
        ([[1]], [[0]], r"within_task_correct after .* is 0; allowed: 1 to 1"),
    ],
)
def test_counts_that_do_not_fit_are_refused(correct: Rows, within: Rows, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        counts_of(correct, [1], within)


def test_a_confusion_matrix_of_other_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"holds 3 images, 2 of them right.*holds 40 and 28"):
        replace(BY_HAND, confused=np.array([[0, 0, 1], [0, 1, 1], [1, 1, 1]]))


def test_a_finished_run_needs_its_last_row() -> None:
    for after in ([], [0, 1]):
        with pytest.raises(ValueError, match="after the last task are missing"):
            replace(
                BY_HAND,
                after=np.array(after, np.int64),
                **{
                    name: getattr(BY_HAND, name)[: len(after)]
                    for name in ("correct", "within_task_correct", "right_task", "total")
                },
            )


def test_test_images_that_change_between_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"after task 1 .* are \[1, 0\], after the last \[2, 1\]"):
        counts_of([[1]], [1]) + counts_of([None, [1, 1]], [2, 1])


@pytest.fixture
def worst_task() -> Iterator[str]:
    """Give the name of a metric that somebody adds."""

    @metric("worst task %", narrow="worst\ntask %")
    def worst_task_accuracy(counts: Counts) -> float:
        return float(accuracy_matrix(counts)[-1].min())

    yield "worst_task_accuracy"
    METRICS.pop("worst_task_accuracy")


@pytest.mark.long
def test_a_metric_that_is_added_is_everywhere(worst_task: str, tmp_path: Any) -> None:
    assert summarise(BY_HAND)[worst_task] == 0.6
    run = finished_run(tmp_path / "run")
    (entry,) = read_results(run.folder)
    rows = compare([entry])
    assert as_records(rows)[0][worst_task]["mean"] == entry[worst_task]
    assert "| worst task % |" in as_text_table(rows).markdown()
    report = make_report([run])
    assert b">worst task %</th>" in report.page
    assert worst_task in report.files["metrics.csv"].decode()
    write_results(tmp_path / "results.json", [{**entry, worst_task: 1.5}])
    with pytest.raises(Exception, match=f"'{worst_task}' is 1.5; allowed: 0 to 1, or null"):
        read_results(tmp_path)
    with pytest.raises(ValueError, match="metric 'worst_task_accuracy' is registered twice"):
        metric("again")(METRICS[worst_task].function)


def test_spread_is_that_of_the_known_values() -> None:
    assert spread([0.90, None, 0.92, 0.97]) == (
        pytest.approx(0.93),
        pytest.approx(statistics.stdev((0.90, 0.92, 0.97))),
        3,
    )
    assert spread([0.5, None]) == (0.5, None, 1)
    assert spread([None]) == (None, None, 0)
