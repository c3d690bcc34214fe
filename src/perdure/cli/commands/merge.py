"""``perdure merge``: two classes become one."""

from __future__ import annotations

import argparse
from typing import Any

from perdure.cli.arguments import add_model
from perdure.cli.model_edits import edit_classes
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
    outcome = f"is part of '{printable(args.into)}'"
    return edit_classes(args, lambda model: model.merge_classes(args.name, args.into), outcome)
