"""``perdure undo``: the last change of a model taken back."""

from __future__ import annotations

import argparse
from typing import Any

from perdure.cli.arguments import add_model, model_folder
from perdure.cli.output import print_json
from perdure.cli.parsing import add_command
from perdure.wording import counted, listed, printable


def add(verbs: Any) -> None:
    """Add the command."""
    add_model(add_command(verbs, "undo", undo))


def undo(args: argparse.Namespace) -> int:
    """Take back the last change of a model: a lesson, a new name, a merger.

    Examples:
        perdure undo pets
        perdure history pets                      what was changed, and how far back undo goes

        The last 5 versions are kept, of 250 MB together. A class that was forgotten stays forgotten.
    """
    folder = model_folder(args.model)
    from perdure.learner.changes import changes
    from perdure.learner.saved import versions

    undone = str(changes(folder)[-1]) if versions.undoable(folder) else ""
    known = list(versions.undo(folder).known)
    if args.json:
        print_json({"model": str(folder), "undone": undone, "classes": known})
    else:
        classes = counted(len(known), "class", "classes")
        print(f"undone    {printable(undone)}")
        print(f"model     {folder}: {classes} ({listed(known, 20)})")
    return 0
