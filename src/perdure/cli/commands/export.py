"""``perdure export``: what a run has learned, as one file that needs nothing of ours."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from perdure.cli.commands.predict import check_paths, listed, model_folder
from perdure.cli.output import messages, print_fields, print_json
from perdure.learner import ContinualClassifier
from perdure.learner.export.onnx import Exported, check_target, export_onnx


def export(args: argparse.Namespace) -> int:
    """Do ``perdure export``."""
    folder, out = model_folder(Path(args.model)), Path(args.out)
    check_target(out)
    check_paths(args.images)
    images = [one.path for one in listed(args.images)]
    classifier = ContinualClassifier.load(folder, device="cpu")
    messages().print("Tracing the model and checking the file: a minute for a ViT-B.")
    made = export_onnx(classifier, out, args.head, images)
    print_json(_as_object(made)) if args.json else print_fields(_fields(made))
    return 0


def _fields(made: Exported) -> list[tuple[str, str]]:
    compared = made.agreement
    images = f"{compared.random} random images"
    if compared.real:
        images += f" and {compared.real} of yours"
    return [
        ("file", str(made.path)),
        ("size", f"{made.bytes / 2**20:.1f} MiB, opset {made.opset}"),
        *(("input", f"{name}: {kind}") for name, kind in made.inputs.items()),
        *(("output", f"{name}: {kind}") for name, kind in made.outputs.items()),
        ("head", made.head),
        ("before", f"{made.about['preprocessing']} of an upright RGB image"),
        ("checked", f"ONNX Runtime against the model, on {images}"),
        ("largest difference", f"{compared.largest_difference:.1g} of a logit"),
    ]


def _as_object(made: Exported) -> dict[str, object]:
    return {**dataclasses.asdict(made), "path": str(made.path)}
