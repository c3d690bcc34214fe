"""Selection figures beside cases that can be worked out by hand and a literal form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.selection import describe


def shown(*tasks: list[float]) -> list[float]:
    return list(describe([{"a": np.array(task, dtype=np.float64)} for task in tasks]).values())


def test_every_task_its_own_prompt() -> None:
    assert shown([3, 0, 0, 0], [0, 3, 0, 0]) == pytest.approx([0.5, 0.5, 1.0])


def test_all_tasks_alike() -> None:
    assert shown([1, 1, 1, 1], [2, 2, 2, 2]) == pytest.approx([1.0, 1.0, 0.0])


def test_one_prompt_for_everything() -> None:
    assert shown([5, 0], [7, 0]) == pytest.approx([0.5, 0.0, 0.0])


def test_a_single_task_or_prompt_tells_nothing_about_tasks() -> None:
    assert shown([1, 2])[2] == 0
    assert shown([1], [2]) == pytest.approx([1.0, 0.0, 0.0])


def test_places_are_averaged() -> None:
    tasks = [{"a": np.array([1.0, 0.0]), "b": np.array([1.0, 1.0])} for _ in range(2)]
    assert list(describe(tasks).values()) == pytest.approx([0.75, 0.5, 0.0])


@given(st.lists(st.lists(st.floats(0.01, 10), min_size=3, max_size=3), min_size=2, max_size=4))
def test_information_equals_its_definition(rows: list[list[float]]) -> None:
    joint = np.array(rows) / np.sum(rows)
    total = entropy = 0.0
    for row in joint:
        entropy -= row.sum() * np.log(row.sum())
        for i, value in enumerate(row):
            total += value * np.log(value / (row.sum() * joint[:, i].sum()))
    assert shown(*rows)[2] == pytest.approx(max(total, 0) / entropy, abs=1e-9)
