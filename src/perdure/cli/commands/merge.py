"""``perdure merge``: two classes become one."""

from __future__ import annotations

import argparse
from typing import Any

from perdure.cli.arguments import add_model, model_folder
from perdure.cli.model_edits import edit
from perdure.cli.output import print_json
from perdure.cli.parsing import add_command
from perdure.wording import printable


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "merge", merge)
    add_model(command)
    command.argument("name", "CLASS", "the class that becomes part of the other")
    command.argument("into", "INTO", "the class that stays")


def merge(args: argparse.Namespace) -> int:
    """Make a class of a model part of another.

    Examples:
        perdure merge pets poodle dog

        Each goes on being scored as it was learned, and the higher score counts. `perdure undo pets`
        takes it back.
    """
    folder = model_folder(args.model)
    known = edit(folder, lambda model: model.merge_classes(args.name, args.into)).classes_.tolist()
    if args.json:
        print_json({"model": str(folder), "classes": known})
    else:
        print(f"{folder}: '{printable(args.name)}' is part of '{printable(args.into)}'")
    return 0
