"""Tally of evaluations: the counts of all rows, and what a checkpoint keeps of them."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest
import torch

from perdure.engine.tally import Tally
from perdure.metrics import Counts, count_batch
from perdure.testing.trial import make_trial

TASKS = torch.tensor([0, 0, 1, 2, 2])


def evaluations(after: list[int], images: int = 300) -> list[Counts]:
    """Return counts of random predictions after some of three tasks, on test images that stay."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(5).repeat(images)
    found = []
    for task in after:
        known = task >= TASKS
        logits = torch.rand(len(labels), 5, generator=random)[:, known]
        mine = labels[known[labels]]
        found.append(count_batch(logits[: len(mine)], mine, TASKS[known]))
    return found


@pytest.mark.parametrize("after", [[0, 1, 2], [0, 2], [2]])
def test_rows_add_up_to_the_counts_and_come_back_from_a_checkpoint(after: list[int]) -> None:
    tally = Tally()
    for row in evaluations(after):
        tally.add("gaussian(shrinkage=0.1)", row)
    whole = functools.reduce(operator.add, evaluations(after))
    assert tally.counts() == {"gaussian(shrinkage=0.1)": whole}
    tensors = {**tally.state(), "another": torch.zeros(1)}
    assert Tally.taken_from(tensors).counts() == tally.counts()
    assert list(tensors) == ["another"]


def test_a_tally_that_is_not_whole_is_refused() -> None:
    tally = Tally()
    for row in evaluations([0, 1, 2]):
        tally.add("ncm", row)
    for name in tally.state():
        rest = {key: value for key, value in tally.state().items() if key != name}
        with pytest.raises(KeyError):
            Tally.taken_from(rest)
    broken = {**tally.state(), "counts.ncm.lengths": torch.tensor([1, 3])}
    with pytest.raises(ValueError):  # noqa: PT011  whichever part is the first not to fit
        Tally.taken_from(broken)


def test_a_checkpoint_grows_with_the_classes_where_few_evaluations_are_made() -> None:
    def size(tasks: int) -> int:
        tally = Tally()
        for after in range(tasks // 10 - 1, tasks, tasks // 10):
            labels = torch.arange(after + 1)
            tally.add("ncm", count_batch(torch.eye(after + 1), labels, labels))
        return sum(value.nbytes for value in tally.state().values())

    assert size(400) <= 12 * size(40)


def test_evaluations_between_are_left_out_and_the_last_never_is() -> None:
    each = make_trial("lda", sizes=(1, 1, 1, 1, 1)).run().counts["gaussian"]
    some = make_trial("lda", sizes=(1, 1, 1, 1, 1), evaluate_every=2).run().counts["gaussian"]
    assert some.after.tolist() == [1, 3, 4]
    assert np.array_equal(some.correct, each.correct[some.after])
    assert np.array_equal(some.confused, each.confused)
