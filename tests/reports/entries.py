"""Counts with given numbers, and entries of results.json made from counts, as a run makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from perdure.metrics import Counts, summarise

IMAGES = 40
CLASSES_PER_TASK = 2

Rows = Sequence[Sequence[int] | None]


def counts_of(
    correct: Rows,
    total: Sequence[int],
    within: Rows | None = None,
    right: Rows | None = None,
    confusion: np.ndarray | None = None,
) -> Counts:
    """Return counts with these rows, one per task learned; None where nothing was evaluated.

    Without a matrix, the images of the last row are of one class, right or taken for another.
    """
    after = np.array([task for task, row in enumerate(correct) if row is not None])

    def table(rows: Rows) -> np.ndarray:
        known = [row for row in rows if row is not None]
        return np.array([[*row, *[0] * (len(total) - len(row))] for row in known])

    if confusion is None:
        hits = sum(correct[-1] or ())
        confusion = np.array([[hits, sum(total) - hits], [0, 0]])
    return Counts(
        after,
        table(correct),
        table(within or correct),
        table(right or correct),
        table([total[: task + 1] for task in after]),
        np.column_stack([np.argwhere(confusion), confusion[confusion != 0]]),
        len(confusion),
    )


def entry(
    method: str = "nsp2", head: str = "linear", *, tasks: int = 3, seed: int = 0, **changes: Any
) -> dict[str, Any]:
    """Return an entry with random counts; ``joint`` is evaluated only after the last task."""
    random = np.random.Generator(np.random.PCG64([seed, *f"{method}/{head}".encode()]))
    rows: list[list[int] | None] = [
        random.integers(IMAGES // 2, IMAGES, after).tolist() for after in range(1, tasks + 1)
    ]
    last = rows[-1] or ()
    if method == "joint":
        rows[:-1] = [None] * (tasks - 1)
    classes = CLASSES_PER_TASK * tasks
    confusion = np.zeros((classes, classes), np.int64)
    for task, right in enumerate(last):
        label = CLASSES_PER_TASK * task
        confusion[label, label] = right
        confusion[label, label + 1] = IMAGES - right
    counts = counts_of(rows, [IMAGES] * tasks, confusion=confusion)
    return {
        "method": method,
        "head": head,
        "preset": "cifar100/nsp2",
        "stream": "cifar100 B0-Inc2",
        "backbone": "vit_base_patch16_224.augreg_in21k",
        "seed": seed,
        "test_counts": [IMAGES] * tasks,
        **summarise(counts),
        "seconds": 12.0,
        "cost": {"trainable_parameters": 1234},
        **changes,
    }
