"""``perdure save``: a model copied to a folder of its own, and how large it is."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from perdure.cli.arguments import add_model, model_folder
from perdure.cli.output import print_json
from perdure.cli.parsing import add_command


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "save", save)
    add_model(command)
    command.argument("out", "DIR", "where to; a model found there is replaced")
    command.flag(
        "--inference-only", "leave out what only learning on reads; its predictions are the same"
    )


def save(args: argparse.Namespace) -> int:
    """Copy a model to a folder of its own, or without what only learning on needs.

    Examples:
        perdure save runs/digits/nsp2 model
        perdure save runs/digits/nsp2 small --inference-only
    """
    folder = model_folder(args.model)
    from perdure.learner.saved.model import read_model, write_model
    from perdure.learner.saved.versions import KEPT

    state = read_model(folder)
    sizes = write_model(
        Path(args.out), state, inference_only=args.inference_only, keep_versions=KEPT
    )
    if args.json:
        print_json({"folder": args.out, **dataclasses.asdict(sizes)})
    else:
        print(f"{args.out}: {sizes}")
    return 0
