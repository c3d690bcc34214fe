"""Entries of results.json made from counts, as a run makes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from perdure.metrics import Counts, summarise

IMAGES = 40
CLASSES_PER_TASK = 2


def entry(
    method: str = "nsp2", head: str = "linear", *, tasks: int = 3, seed: int = 0, **changes: Any
) -> dict[str, Any]:
    """Return an entry with random counts; ``joint`` is evaluated only after the last task."""
    random = np.random.Generator(np.random.PCG64([seed, *f"{method}/{head}".encode()]))
    rows: list[tuple[int, ...] | None] = [
        tuple(random.integers(IMAGES // 2, IMAGES, after).tolist()) for after in range(1, tasks + 1)
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
    counts = Counts(tuple(rows), tuple(rows), tuple(rows), (IMAGES,) * tasks, confusion)
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
