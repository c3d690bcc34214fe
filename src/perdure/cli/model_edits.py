"""Edits of a saved model: read it, change it, write it, while no other process does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.atomic import alone

if TYPE_CHECKING:
    from perdure.learner import ContinualClassifier


def edit(folder: Path, change: Callable[[ContinualClassifier], object]) -> ContinualClassifier:
    """Change a model; the one before is kept for ``perdure undo``.

    Raises:
        PerdureError: it cannot be read, changed or written; then it is as it was.
    """
    from perdure.learner import ContinualClassifier

    with alone(folder, "saving a model"):
        classifier = ContinualClassifier.load(folder)
        change(classifier)
        classifier.save(folder)
    return classifier
