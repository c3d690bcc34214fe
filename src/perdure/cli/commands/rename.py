"""``perdure rename``: another name for a class."""

from __future__ import annotations

import argparse
from typing import Any

from perdure.cli.arguments import add_model
from perdure.cli.model_edits import edit_classes
from perdure.cli.parsing import add_command
from perdure.wording import printable


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "rename", rename)
    add_model(command)
    command.argument("name", "OLD", "the class")
    command.argument("new", "NEW", "its new name")


def rename(args: argparse.Namespace) -> int:
    """Give a class of a model another name.

    Examples:
        perdure rename pets hound dog

        Nothing is learned anew. `perdure undo pets` takes it back.
    """
    outcome = f"is called '{printable(args.new)}'"
    return edit_classes(args, lambda model: model.rename_class(args.name, args.new), outcome)
