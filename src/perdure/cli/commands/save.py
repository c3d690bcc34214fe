"""``perdure save``: a model in a folder of its own, and how large it is."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from perdure.cli.commands.predict import model_folder
from perdure.cli.output import print_json
from perdure.learner import ContinualClassifier


def save(args: argparse.Namespace) -> int:
    """Do ``perdure save``."""
    classifier = ContinualClassifier.load(model_folder(Path(args.model)))
    sizes = classifier.save(args.out, inference_only=args.inference_only)
    if args.json:
        print_json({"folder": args.out, **dataclasses.asdict(sizes)})
    else:
        print(f"{args.out}: {sizes}")
    return 0
