"""``perdure forget``: a class removed from a model and its kept versions."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from perdure.cli.arguments import add_model, model_folder
from perdure.cli.model_edits import edit
from perdure.cli.output import print_json
from perdure.cli.parsing import add_command

if TYPE_CHECKING:
    from perdure.learner import Forgotten


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "forget", forget)
    add_model(command)
    command.argument("name", "CLASS", "the class")


def forget(args: argparse.Namespace) -> int:
    """Remove a class from a model and its kept versions, and say what still carries its influence.

    Examples:
        perdure forget pets dog

        This cannot be undone.
    """
    folder = model_folder(args.model)
    told: list[Forgotten] = []
    edit(folder, lambda model: told.append(model.forget_class(args.name)))
    print_json(asdict(told[0])) if args.json else print(told[0])
    return 0
