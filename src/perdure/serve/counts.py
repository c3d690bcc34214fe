"""Counts of an evaluation: how many images are right, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.learner.predict_files import Answer


def count(
    labels: Sequence[str], answers: Sequence[Answer], strange: str | None = None
) -> dict[str, Any]:
    """Count answers; images that cannot be read are no answers, and told apart.

    Args:
        labels: of the images.
        answers: to them.
        strange: label of images of no class, which are right where they were rejected.

    Returns:
        ``images``, ``correct``, ``unreadable``; ``classes`` with the same by name; ``confusions``:
        class, what it was taken for (None for rejected), and places of the images, most of them
        first; ``answers``, in order. Counts of several requests add up.
    """
    classes: dict[str, dict[str, int]] = {}
    confusions: dict[tuple[str, str | None], list[int]] = {}
    unreadable = 0
    for place, (label, answer) in enumerate(zip(labels, answers, strict=True)):
        entry = classes.setdefault(label, {"images": 0, "correct": 0})
        if answer.fault:
            unreadable += 1
            continue
        entry["images"] += 1
        named = None if answer.rejected else answer.ranking[0].name
        right = named == (None if label == strange else label)
        entry["correct"] += right
        if not right:
            confusions.setdefault((label, named), []).append(place)
    worst = sorted(confusions.items(), key=lambda pair: -len(pair[1]))
    return {
        "images": sum(entry["images"] for entry in classes.values()),
        "correct": sum(entry["correct"] for entry in classes.values()),
        "unreadable": unreadable,
        "classes": classes,
        "confusions": [{"class": a, "answer": b, "places": places} for (a, b), places in worst],
        "answers": [
            {"label": label, **answer.to_dict()}
            for label, answer in zip(labels, answers, strict=True)
        ],
    }
