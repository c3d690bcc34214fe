"""``perdure export``: a model as a file for another runtime, checked against the model."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.arguments import add_head, add_model, check_images, find_images, model_folder
from perdure.cli.output import messages, print_fields, print_json
from perdure.cli.parsing import add_command

if TYPE_CHECKING:
    from perdure.learner.export.exported import Exported

PRECISIONS = ("fp32", "fp16", "int8")


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "export", export)
    add_model(command)
    command.argument("out", "OUT", "the file: OUT.onnx, or OUT.xml for OpenVINO")
    add_head(command)
    command.option(
        "--precision",
        "PRECISION",
        f"one of {', '.join(PRECISIONS)}: of the weights; int8 needs --check",
        choices=PRECISIONS,
        default="fp32",
    )
    command.option(
        "--check",
        "PHOTOS",
        "check the file on these image files or folders too; their labels do not matter",
        nargs="+",
        default=[],
    )


def export(args: argparse.Namespace) -> int:
    """Write what was learned as one file for another runtime, checked against the model.

    Examples:
        perdure export runs/digits/nsp2 digits.onnx
        perdure export runs/digits/nsp2 digits.onnx --head linear --check photos
        perdure export pets pets.onnx --precision int8 --check photos
        perdure export pets pets.xml --precision fp16

        Prompts are folded in: the file needs ONNX Runtime, or OpenVINO, alone. It is written
        when it gives the model's own answers; in int8, when at least 99 % of the photos get the
        model's class, after several ways were tried. A file of that name is replaced.
    """
    folder, out = model_folder(args.model), Path(args.out)
    from perdure.learner import ContinualClassifier
    from perdure.learner.export.exported import check_precision, check_target, export_model

    check_target(out)
    check_images(args.check)
    images = [one.path for one in find_images(args.check)]
    check_precision(args.precision, len(images))
    classifier = ContinualClassifier.load(folder, device="cpu")
    messages().print("Tracing the model and checking the file: a minute for a ViT-B.")
    exported = export_model(classifier, out, args.head, images, args.precision)
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
    rounded = "; ".join(map(str, exported.attempts)) or "nothing: fp32"
    return [
        ("file", str(exported.path)),
        ("size", f"{exported.bytes / 2**20:.1f} MiB, opset {exported.opset}"),
        *(("input", f"{name}: {kind}") for name, kind in exported.inputs.items()),
        *(("output", f"{name}: {kind}") for name, kind in exported.outputs.items()),
        ("head", exported.head),
        ("before", f"{exported.about['preprocessing']} of an upright RGB image"),
        ("checked", f"{exported.runtime} against the model, on {images}"),
        ("largest difference", f"{compared.largest_difference:.1g} of a logit, in fp32"),
        ("rounded", rounded),
    ]
