"""The metrics against a slow literal twin, against identities, and against numbers done by hand."""

from __future__ import annotations

import json
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perdure.metrics import (
    SCALARS,
    Counts,
    accuracy_matrix,
    aggregate,
    count_batch,
    forgetting_per_task,
    spread,
    summarise,
)

Rows = tuple[tuple[int, ...] | None, ...]

# Three tasks of 10, 20 and 10 images.
CORRECT: Rows = ((8,), (6, 16), (7, 12, 9))
WITHIN: Rows = ((8,), (8, 18), (8, 18, 10))
RIGHT: Rows = ((10,), (7, 17), (8, 13, 9))
BY_HAND = Counts(CORRECT, WITHIN, RIGHT, (10, 20, 10))


class Twin:
    """The definitions of the papers, written out with 1-based loops over a dictionary a[j, i]."""

    def __init__(self, counts: Counts) -> None:
        self.tasks = len(counts.total)
        self.counts = counts
        self.a: dict[tuple[int, int], float | None] = {}
        for j in range(1, self.tasks + 1):
            row = counts.correct[j - 1]
            for i in range(1, j + 1):
                images = counts.total[i - 1]
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
            images += self.counts.total[i - 1]
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
            "last_accuracy": self.weighted(self.counts.correct, tasks),
            "last_accuracy_task_mean": self.mean([self.a[tasks, i] for i in every]),
            "average_incremental_accuracy": self.mean(
                [self.weighted(self.counts.correct, j) for j in every]
            ),
            "forgetting": self.mean([self.drop(i, tasks - 1) for i in old]),
            "forgetting_reference": self.mean([self.drop(i, tasks) for i in old]),
            "backward_transfer": self.mean([self.difference(i) for i in old]),
            "plasticity": self.mean([self.a[i, i] for i in every]),
            "within_task_accuracy": self.weighted(self.counts.within_task_correct, tasks),
            "task_inference_accuracy": self.weighted(self.counts.right_task, tasks),
        }


@st.composite
def counts(draw: st.DrawFn, missing: bool = True, least: int = 0) -> Counts:
    tasks = draw(st.integers(1, 5))
    total = tuple(draw(st.integers(least, 12)) for _ in range(tasks))
    correct: list[tuple[int, ...] | None] = []
    within: list[tuple[int, ...] | None] = []
    right: list[tuple[int, ...] | None] = []
    for after in range(tasks):
        if missing and draw(st.integers(0, 5)) == 0:
            for rows in (correct, within, right):
                rows.append(None)
            continue
        one = tuple(draw(st.integers(0, total[on])) for on in range(after + 1))
        correct.append(one)
        within.append(tuple(draw(st.integers(one[on], total[on])) for on in range(after + 1)))
        right.append(tuple(draw(st.integers(one[on], total[on])) for on in range(after + 1)))
    return Counts(tuple(correct), tuple(within), tuple(right), total)


@given(counts())
def test_equals_the_literal_twin(given_counts: Counts) -> None:
    found, twin = summarise(given_counts), Twin(given_counts)
    for name, expected in twin.summary().items():
        assert found[name] == (None if expected is None else pytest.approx(expected, abs=1e-12))
    tasks = range(1, twin.tasks + 1)
    assert found["accuracy_matrix"] == [[twin.a.get((j, i)) for i in tasks] for j in tasks]
    assert found["accuracy_curve"] == [twin.weighted(given_counts.correct, j) for j in tasks]


@given(counts(missing=False, least=1))
def test_bounds_and_identities(given_counts: Counts) -> None:
    found = summarise(given_counts)
    for name in SCALARS:
        if found[name] is not None:
            low = -1.0 if name in ("forgetting", "backward_transfer") else 0.0
            assert low <= found[name] <= 1.0, name
    within, inferred = found["within_task_accuracy"], found["task_inference_accuracy"]
    assert found["last_accuracy"] <= min(within, inferred)
    assert found["last_accuracy"] == found["accuracy_curve"][-1]
    if len(given_counts.total) == 1:
        assert found["forgetting"] is found["forgetting_reference"] is None
        assert found["backward_transfer"] is None
        assert found["plasticity"] == found["last_accuracy"]
        return
    assert found["forgetting_reference"] >= found["forgetting"] - 1e-12
    assert found["forgetting"] >= -found["backward_transfer"] - 1e-12
    if len(given_counts.total) == 2:
        assert found["forgetting"] == pytest.approx(-found["backward_transfer"], abs=1e-12)
    if len(set(given_counts.total)) == 1:
        assert found["last_accuracy"] == pytest.approx(found["last_accuracy_task_mean"])


@given(counts())
def test_a_summary_survives_json(given_counts: Counts) -> None:
    found = summarise(given_counts)
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
    assert {name: found[name] for name in SCALARS} == pytest.approx(expected)


def test_forgetting_is_negative_where_the_last_task_helped() -> None:
    rows: Rows = ((5,), (8, 9))
    found = summarise(Counts(rows, rows, rows, (10, 10)))
    assert found["forgetting"] == pytest.approx(-0.3)
    assert found["forgetting_reference"] == 0.0
    assert found["backward_transfer"] == pytest.approx(0.3)


def test_forgetting_is_the_mean_of_that_per_task() -> None:
    matrix = accuracy_matrix(BY_HAND)
    assert forgetting_per_task(matrix).tolist() == pytest.approx([0.1, 0.2])
    assert forgetting_per_task(matrix).mean() == pytest.approx(summarise(BY_HAND)["forgetting"])
    assert forgetting_per_task(matrix[:1, :1]).tolist() == []


def test_a_run_evaluated_only_at_the_end() -> None:
    rows: Rows = (None, None, (7, 12, 9))
    found = summarise(Counts(rows, (None, None, (8, 18, 10)), rows, (10, 20, 10)))
    assert found["accuracy_matrix"] == [[None] * 3, [None] * 3, [0.7, 0.6, 0.9]]
    assert found["accuracy_curve"] == [None, None, 0.7]
    assert found["last_accuracy"] == 0.7
    assert found["within_task_accuracy"] == 0.9
    unknown = {name for name in SCALARS if found[name] is None}
    assert unknown == {
        "average_incremental_accuracy",
        "forgetting",
        "forgetting_reference",
        "backward_transfer",
        "plasticity",
    }


def test_a_task_without_test_images_makes_means_over_tasks_unknown() -> None:
    rows: Rows = ((8,), (6, 0))
    found = summarise(Counts(rows, rows, rows, (10, 0)))
    assert found["accuracy_matrix"] == [[0.8, None], [0.6, None]]
    assert found["last_accuracy"] == 0.6
    assert found["average_incremental_accuracy"] == pytest.approx(0.7)
    assert found["last_accuracy_task_mean"] is None
    assert found["plasticity"] is None
    assert found["forgetting"] == pytest.approx(0.2)


def test_no_test_images_at_all() -> None:
    found = summarise(Counts(((0,),), ((0,),), ((0,),), (0,), np.zeros((2, 2), np.int64)))
    assert all(found[name] is None for name in SCALARS)
    assert found["per_class_accuracy"] == [None, None]


@pytest.mark.parametrize(
    ("correct", "within", "total", "message"),
    [
        ((), (), (), "hold no task"),
        (((1,),), ((1,),), (1, 1), "correct has 1 rows for 2 tasks"),
        (((1, 1),), ((1,),), (1,), "row 1 of correct has 2 values, not 1"),
        (((2,),), ((2,),), (1,), r"correct after task 1 on task 1 is 2; allowed: 2 to 1"),
        (((-1,),), ((0,),), (1,), r"is -1; allowed: 0 to 1"),
        (((1,),), ((0,),), (1,), r"within_task_correct after .* is 0; allowed: 1 to 1"),
        (((1,),), (None,), (1,), "row 1 is in only one of within_task_correct and correct"),
    ],
)
def test_counts_that_do_not_fit_are_refused(
    correct: Rows, within: Rows, total: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Counts(correct, within, correct, total)


def test_a_confusion_matrix_of_other_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"holds 3 images, 2 of them right.*holds 2 and 1"):
        Counts(((1,),), ((1,),), ((1,),), (2,), np.array([[1, 1], [0, 1]]))


def test_a_finished_run_needs_its_last_row() -> None:
    batch = count_batch(torch.eye(2), torch.tensor([0, 1]), torch.tensor([0, 0]))
    for rows in ([], [batch, None]):
        with pytest.raises(ValueError, match="after the last task are missing"):
            Counts.from_rows(rows)


def test_test_images_that_change_between_tasks_are_refused() -> None:
    first = count_batch(torch.eye(1), torch.tensor([0]), torch.tensor([0]))
    second = count_batch(torch.eye(2)[[0, 0, 1]], torch.tensor([0, 0, 1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"after task 1 .* are \[1\], after the last \[2\]"):
        Counts.from_rows([first, second])


def test_aggregate_over_seeds() -> None:
    summaries = [{"last_accuracy": a, "seed": 7} for a in (0.90, 0.92, 0.97)]
    found = aggregate(summaries)
    assert tuple(found) == SCALARS
    assert found["last_accuracy"] == {
        "mean": pytest.approx(0.93),
        "std": pytest.approx(statistics.stdev((0.90, 0.92, 0.97))),
        "n": 3,
    }
    assert found["forgetting"] == {"mean": None, "std": None, "n": 0}


def test_spread_of_one_value_has_no_deviation() -> None:
    assert spread([0.5, None]) == {"mean": 0.5, "std": None, "n": 1}
