"""``perdure history``: what a model was taught, and what can be undone."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import datetime
from typing import Any

from perdure.cli.arguments import add_model, model_folder
from perdure.cli.output import print_columns, print_json
from perdure.cli.parsing import add_command


def add(verbs: Any) -> None:
    """Add the command."""
    add_model(add_command(verbs, "history", history))


def history(args: argparse.Namespace) -> int:
    """List the lessons of a model and the changes that undo can take back, the newest last.

    Examples:
        perdure history pets
        perdure history pets --json
    """
    folder = model_folder(args.model)
    from perdure.cli.show_model import describe_model, print_lessons
    from perdure.learner.changes import changes

    about, kept = describe_model(folder), changes(folder)
    if args.json:
        lessons = about["lessons"]
        print_json(
            {"lessons": lessons, "undoable": [asdict(one) | {"text": str(one)} for one in kept]}
        )
        return 0
    print_lessons(about)
    dates = [datetime.fromtimestamp(one.time).astimezone() for one in kept]
    rows = [[f"{date:%Y-%m-%d %H:%M}", str(one)] for date, one in zip(dates, kept, strict=True)]
    if rows:
        print()
        print_columns(["changed", "what undo takes back, the newest last"], rows)
    else:
        print("nothing to undo: no version is kept")
    return 0
