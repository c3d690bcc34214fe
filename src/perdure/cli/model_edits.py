"""Edits of a saved model: read it, change it, write it, while no other process does."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.atomic import alone
from perdure.cli.arguments import model_folder
from perdure.cli.output import print_json
from perdure.wording import printable

if TYPE_CHECKING:
    from perdure.learner import ContinualClassifier


def edit_classes(
    args: argparse.Namespace, change: Callable[[ContinualClassifier], object], outcome: str
) -> int:
    """Change a class of a model, by its name, and print what came of it.

    Raises:
        PerdureError: as `edit`.
    """
    folder = model_folder(args.model)
    known = edit(folder, change).classes_.tolist()
    if args.json:
        print_json({"model": str(folder), "classes": known})
    else:
        print(f"{folder}: '{printable(args.name)}' {outcome}")
    return 0


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
