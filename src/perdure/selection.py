"""Prompt selection statistics: share of the pool in use, entropy, information about the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

Totals = Mapping[str, Float64[np.ndarray, "m"]]
"""Per place of selection, how much some images chose each prompt, summed over the images."""


FIGURES = ("selection_share_in_use", "selection_entropy", "selection_task_information")
"""What `describe` returns, each in [0, 1]."""


def describe(tasks: Sequence[Totals]) -> dict[str, float]:
    """Return the selection statistics over the test images of several tasks; means over places.

    Args:
        tasks: one per task; every place of a task has the same prompts.

    Returns:
        ``selection_share_in_use``: prompts that were chosen at all, in [0, 1];
        ``selection_entropy``: of the choice over all images, 1 for all prompts alike, 0 for one;
        ``selection_task_information``: mutual information of choice and true task over the
        entropy of the task, in [0, 1]; 0 with a single task.
    """
    places = [np.stack([task[name] for task in tasks]) for name in tasks[0]]
    per_place = [_describe_place(place) for place in places]
    return {
        name: float(np.mean(values))
        for name, values in zip(FIGURES, zip(*per_place, strict=True), strict=True)
    }


def _describe_place(totals: Float64[np.ndarray, "t m"]) -> tuple[float, float, float]:
    joint = totals / totals.sum()
    choice, task = joint.sum(axis=0), joint.sum(axis=1)
    in_use = float((choice > 0).mean())
    entropy = _entropy(choice) / np.log(len(choice)) if len(choice) > 1 else 0.0
    shared = _entropy(choice) + _entropy(task) - _entropy(joint.ravel())
    of_task = _entropy(task)
    return in_use, entropy, max(shared, 0.0) / of_task if of_task > 0 else 0.0


def _entropy(shares: Float64[np.ndarray, "n"]) -> float:
    """In nats."""
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())
