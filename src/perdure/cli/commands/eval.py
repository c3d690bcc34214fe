"""``perdure eval``: what a model gets right on labelled images."""

from __future__ import annotations

import argparse
from typing import Any

from perdure.cli.arguments import add_head, add_model, add_reject, model_folder
from perdure.cli.output import print_json
from perdure.cli.parsing import add_command


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "eval", evaluate)
    add_model(command)
    command.argument("data", "DATA", "a folder with a folder per class, a table, or hf:NAME")
    add_head(command)
    add_reject(command)


def evaluate(args: argparse.Namespace) -> int:
    """Count what a model gets right on labelled images: overall, per class and per task.

    Examples:
        perdure eval pets photos/test
        perdure eval pets test.csv --json
        perdure eval pets photos/test --reject 0.05   count what is rejected, of none/ too
        perdure eval runs/digits/nsp2 photos --head linear
    """
    folder = model_folder(args.model)
    from perdure.learner import ContinualClassifier

    report = ContinualClassifier.load(folder).report(args.data, head=args.head, reject=args.reject)
    print_json(report.to_dict()) if args.json else print(report)
    return 0
