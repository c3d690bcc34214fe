"""The invariants of `perdure.numerics.merge`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.numerics.merge import merge
from perdure.randomness import generator

few = settings(max_examples=20)


@few
@given(seed=st.integers(0, 10**6), tasks=st.integers(1, 12))
def test_merge_by_one_over_t_is_the_running_mean(seed: int, tasks: int) -> None:
    """What each task asked for, its start in the merged parameter included, is averaged."""
    asked = torch.randn(tasks, 3, generator=generator(seed, "asked")).double()
    value = torch.zeros(3).double()
    for task, new in enumerate(asked, 1):
        value = merge(value, new, task, 1.0)
        torch.testing.assert_close(value, asked[:task].mean(dim=0))


@few
@given(task=st.integers(2, 50), exponent=st.floats(0.01, 1))
def test_merge(task: int, exponent: float) -> None:
    """old + (new − old) · t⁻ᵃ: less is kept the later the task and the larger the exponent."""
    old, new = torch.tensor([1.0]), torch.tensor([3.0])
    value = float(merge(old, new, task, exponent))
    assert value == pytest.approx(1 + 2 / task**exponent)
    assert 1 < value < 3


@pytest.mark.parametrize(("task", "exponent"), [(1, 1.0), (1, 0.5), (7, 0.0)])
def test_what_is_not_merged_stays_bit_for_bit(task: int, exponent: float) -> None:
    old, new = torch.tensor([0.3]), torch.tensor([0.1])
    assert torch.equal(merge(old, new, task, exponent), new)


@pytest.mark.parametrize(("task", "exponent"), [(0, 0.5), (1, -0.1), (2, 1.5)])
def test_no_task_or_exponent_is_refused(task: int, exponent: float) -> None:
    with pytest.raises(ValueError, match=f"task {task}, exponent {exponent}: allowed are"):
        merge(torch.zeros(1), torch.zeros(1), task, exponent)
