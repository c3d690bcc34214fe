"""``perdure export``: a model as one ONNX file, checked against the model."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.arguments import add_head, add_model, check_images, find_images, model_folder
from perdure.cli.output import messages, print_fields, print_json
from perdure.cli.parsing import add_command

if TYPE_CHECKING:
    from perdure.learner.export.onnx import Exported


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "export", export)
    add_model(command)
    command.argument("out", "OUT.onnx", "the file")
    add_head(command)
    command.option(
        "--images",
        "IMAGE",
        "check the file with these image files or folders too",
        nargs="+",
        default=[],
    )


def export(args: argparse.Namespace) -> int:
    """Write what a run has learned as one ONNX file, checked against the model.

    Examples:
        perdure export runs/digits/nsp2 digits.onnx
        perdure export runs/digits/nsp2 digits.onnx --head linear --images photos

        Prompts are folded in: the file needs ONNX Runtime alone. It is written when it
        gives the model's own answers; a file of that name is replaced.
    """
    folder, out = model_folder(args.model), Path(args.out)
    from perdure.learner import ContinualClassifier
    from perdure.learner.export.onnx import check_target, export_onnx

    check_target(out)
    check_images(args.images)
    images = [one.path for one in find_images(args.images)]
    classifier = ContinualClassifier.load(folder, device="cpu")
    messages().print("Tracing the model and checking the file: a minute for a ViT-B.")
    exported = export_onnx(classifier, out, args.head, images)
    if args.json:
        print_json({**dataclasses.asdict(exported), "path": str(exported.path)})
    else:
        print_fields(_fields(exported))
    return 0


def _fields(exported: Exported) -> list[tuple[str, str]]:
    compared = exported.agreement
    images = f"{compared.random} random images"
    if compared.real:
        images += f" and {compared.real} of yours"
    return [
        ("file", str(exported.path)),
        ("size", f"{exported.bytes / 2**20:.1f} MiB, opset {exported.opset}"),
        *(("input", f"{name}: {kind}") for name, kind in exported.inputs.items()),
        *(("output", f"{name}: {kind}") for name, kind in exported.outputs.items()),
        ("head", exported.head),
        ("before", f"{exported.about['preprocessing']} of an upright RGB image"),
        ("checked", f"ONNX Runtime against the model, on {images}"),
        ("largest difference", f"{compared.largest_difference:.1g} of a logit"),
    ]
