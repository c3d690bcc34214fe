"""``perdure bench``: speed and cost on this machine."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.arguments import model_folder
from perdure.cli.output import messages, print_columns, print_fields, print_json
from perdure.cli.parsing import Parser, add_command, add_group, counts, names, positive, positives
from perdure.errors import ConfigError
from perdure.wording import per_cent

if TYPE_CHECKING:
    from perdure.engine.config import Config
    from perdure.learner import ContinualClassifier
    from perdure.streams.decoding import ImageFile

TIMED = "vit_base_patch16_224.augreg_in21k"
"""The architecture that benchmarks time."""

COLUMNS = {
    "method": ("method", 1),
    "trainable": ("trainable_parameters", 1),
    "state KiB": ("state_bytes", 1 / 1024),
    "KiB per task": ("state_bytes_per_task", 1 / 1024),
    "train GFLOP/image": ("train_flops_per_image", 1e-9),
    "infer GFLOP/image": ("inference_flops_per_image", 1e-9),
    "train ms/image": ("train_ms_per_image", 1),
    "infer ms/image": ("inference_ms_per_image", 1),
    "step / finetune": ("step_ratio_to_finetune", 1),
    "task 100 / 2": ("step_ratio_task100", 1),
    "peak MiB": ("peak_memory_mib", 1),
}
"""Heads of the cost table, with the figure and its factor."""


def add(verbs: Any) -> None:
    """Add the command and its measures."""
    measures = add_group(
        verbs,
        "bench",
        "measure speed and cost",
        "perdure bench step --method nsp2 --batch-size 8",
        "perdure bench data --data photos",
        "perdure bench cost",
    ).add_subparsers(dest="measure", metavar="measure", title="measures")
    _add_step(measures)
    _add_data(measures)
    _add_cost(measures)
    _add_predict(measures)


def _add_step(measures: Any) -> None:
    command = add_command(measures, "step", step)
    _one_step(command)
    command.option("--attention", "KERNEL", "auto, fused or products", default="auto")
    command.option("--survey-precision", "TYPE", "fp32, bf16 or auto", default="fp32")
    command.flag("--profile", "tell where a step's time goes, by kind of work")
    _timing(command)


def step(args: argparse.Namespace) -> int:
    """Measure a training step against the least it can cost on this machine.

    Examples:
        perdure bench step --method nsp2 --batch-size 8 --json
        perdure bench step --precision fp32 --attention products
        perdure bench step --profile
        perdure bench step --precision bf16 --survey-precision bf16
        perdure bench step --backbone test_vit --img-size 64 --pairs 2   in a second
    """
    from perdure.bench.step import step_report

    report = step_report(_config(args), args.pairs, args.profile)
    profile = {} if args.json else report.pop("profile", {})
    _print_report(report, args.json)
    if profile:
        total = sum(profile.values())
        rows = [
            [kind, f"{spent:.3f}", per_cent(spent / total, 0)] for kind, spent in profile.items()
        ]
        print()
        print_columns(["kind of work", "s per step", "share"], rows)
    return 0


def _add_data(measures: Any) -> None:
    command = add_command(measures, "data", data)
    command.option(
        "--data",
        "PATH|NAME",
        "a folder with a folder per class, a table, hf:NAME or a stream; default: drawn files",
    )
    command.option("--transform", "NAME", default="nsp2")
    command.option(
        "--workers", "N,…", "numbers of processes that read", type=counts, default=(0, 1, 2)
    )
    command.option("--images", "N", "read per pass", type=positive, default=128)
    _one_step(command)
    _size(command)


def data(args: argparse.Namespace) -> int:
    """Measure how fast images are read and augmented, beside what a training step takes.

    Examples:
        perdure bench data                                drawn JPEG files, read every time
        perdure bench data --data photos --transform plain
        perdure bench data --workers 0,4,8 --batch-size 128 --images 8192   on a GPU
        perdure bench data --data digits --backbone test_vit --img-size 32  in seconds
    """
    from perdure.bench.data import data_report

    config = _config(args, transform=args.transform, data=args.data)
    if args.data is None:
        messages().print("No --data: JPEG files are drawn into a temporary folder.")
    report = data_report(config, args.data, args.workers, args.images)
    if args.json:
        print_json(report)
        return 0
    apart = ("readings", "starves", "workers", "verdict")
    _print_report({key: value for key, value in report.items() if key not in apart}, False)
    print()
    columns = list(report["readings"][0])
    rows = [[_shown(one[name]) for name in columns] for one in report["readings"]]
    print_columns([name.replace("_", " ") for name in columns], rows)
    print(f"\n{report['verdict']}")
    return 0


def _add_cost(measures: Any) -> None:
    command = add_command(measures, "cost", cost)
    command.option("--methods", "NAME,…", "default: all that train prompts", type=names, default=())
    command.option("--backbones", "NAME,…", "random weights", type=names, default=(TIMED,))
    command.option("--batch-sizes", "N,…", type=positives, default=(8,))
    command.option("--out", "DIR", "table and picture", default="runs/cost")
    _timing(command)


def cost(args: argparse.Namespace) -> int:
    """Measure what every method that trains prompts costs: operations, time, memory, state.

    Examples:
        perdure bench cost
        perdure bench cost --methods iprompt,l2p --batch-sizes 1,8
        perdure bench cost --backbones test_vit --img-size 64 --pairs 2   in a minute
    """
    from perdure.atomic import atomic_write, make_folder
    from perdure.bench.cost import check_methods, cost_report, methods_on, trained_methods
    from perdure.reports.figures.cost import draw_cost

    chosen = {backbone: args.methods or methods_on(backbone) for backbone in args.backbones}
    for backbone, methods in chosen.items():
        check_methods(methods, backbone)
        left_out = [] if args.methods else sorted(set(trained_methods()) - set(methods))
        if left_out:
            messages().print(f"{backbone} has no image projection: without {', '.join(left_out)}")
    folder = make_folder(Path(args.out))
    rows: list[dict[str, Any]] = []
    for backbone, methods in chosen.items():
        for batch_size in args.batch_sizes:
            for method in methods:
                messages().print(f"{method} on {backbone}, batches of {batch_size}")
                one = _config(args, method=method, backbone=backbone, batch_size=batch_size)
                rows.append(cost_report(one, args.pairs))
    atomic_write(folder / "cost.json", (json.dumps(rows, indent=1) + "\n").encode())
    draw_cost(rows, folder / "cost.png")
    if args.json:
        print_json(rows)
        return 0
    several = [k for k in ("backbone", "batch_size") if len({row[k] for row in rows}) > 1]
    columns = {**COLUMNS, **{key.replace("_", " "): (key, 1) for key in several}}
    cells = [[_cell(row[key], factor) for key, factor in columns.values()] for row in rows]
    print_columns(list(columns), cells)
    print(f"\npicture  {folder / 'cost.png'}\nfigures  {folder / 'cost.json'}")
    return 0


def _add_predict(measures: Any) -> None:
    command = add_command(measures, "predict", predict)
    command.argument(
        "model", "MODEL", "a run's folder; default: one with random weights", nargs="?"
    )
    command.option("--method", "NAME", "without MODEL; default: nsp2")
    command.option("--backbone", "NAME", f"without MODEL; default: {TIMED}")
    command.option("--img-size", "PX", "without MODEL", type=positive)
    command.option("--precision", "TYPE", "without MODEL: auto, fp32 or bf16")
    command.option("--images", "N", "JPEG files", type=positive, default=64)
    command.option("--batch-size", "N", "default: the model's eval_batch_size", type=positive)
    command.option("--rounds", "N", "interleaved runs", type=positive, default=5)


def predict(args: argparse.Namespace) -> int:
    """Measure `perdure predict` on drawn JPEG files against the backbone's bare forward.

    Examples:
        perdure bench predict runs/digits/nsp2
        perdure bench predict --method iprompt --images 128 --batch-size 16
        perdure bench predict --backbone test_vit --img-size 64 --rounds 2   in a second
    """
    from perdure.bench.prediction import predict_report, save_untrained
    from perdure.cli.commands.predict import write_predictions
    from perdure.streams.images.find_images import Listed

    drawn = {"backbone": args.backbone, "img_size": args.img_size, "precision": args.precision}
    named = [name for name, value in {"method": args.method, **drawn}.items() if value is not None]
    if args.model and named:
        raise ConfigError(
            f"--{named[0].replace('_', '-')} is for a model with random weights; '{args.model}' has "
            "its own. Leave one of them out."
        )

    def write(classifier: ContinualClassifier, files: Sequence[ImageFile], size: int) -> None:
        with Path(os.devnull).open("w") as out:
            write_predictions(classifier.state_, map(Listed, files), out, "csv", batch_size=size)

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if args.model:
            folder = model_folder(args.model)
        else:
            save_untrained(folder, _config(args))
        report = predict_report(
            folder, write, images=args.images, batch_size=args.batch_size, rounds=args.rounds
        )
    _print_report(report, args.json)
    return 0


def _one_step(parser: Parser) -> None:
    """Options of what measures the step of one method."""
    parser.option("--method", "NAME", default="nsp2")
    parser.option("--batch-size", "N", type=positive, default=8)
    parser.option("--backbone", "NAME", "with random weights", default=TIMED)


def _timing(parser: Parser) -> None:
    """Options of everything that is timed in pairs."""
    _size(parser)
    parser.option("--pairs", "N", "interleaved runs", type=positive, default=5)


def _size(parser: Parser) -> None:
    """Options of everything that computes."""
    parser.option("--precision", "TYPE", "auto, fp32, tf32 or bf16", default="auto")
    parser.option("--img-size", "PX", type=positive, default=224)


def _config(args: argparse.Namespace, **keys: Any) -> Config:
    """The configuration that the options ask for, with random weights."""
    from perdure.engine.config import make_config

    options = ("method", "backbone", "batch_size", "img_size")
    types = ("precision", "survey_precision", "attention")
    asked = {**{key: getattr(args, key, None) for key in (*options, *types)}, **keys}
    given = {key: value for key, value in asked.items() if value is not None}
    return make_config({"method": "nsp2", "backbone": TIMED, "weights": "random", **given})


def _print_report(report: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        print_fields([(name.replace("_", " "), _shown(value)) for name, value in report.items()])


def _cell(value: Any, factor: int | float) -> str:
    if isinstance(value, str):
        return value
    digits = 0 if isinstance(value, int) and factor == 1 else 2
    return f"{value * factor:,.{digits}f}"


def _shown(value: object) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
