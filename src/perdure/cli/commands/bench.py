"""``perdure bench``: speed and cost on this machine."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.looking import TIMED
from perdure.cli.output import messages, print_columns, print_fields, print_json
from perdure.errors import ConfigError

if TYPE_CHECKING:
    from perdure.engine.config import Config

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


def step(args: argparse.Namespace) -> int:
    """Do ``perdure bench step``."""
    from perdure.bench.step import step_report

    _print_report(step_report(_config(args), args.pairs), args.json)
    return 0


def predict(args: argparse.Namespace) -> int:
    """Do ``perdure bench predict``."""
    from perdure.bench.prediction import predict_report, save_untrained
    from perdure.cli.commands.predict import model_folder, write_answers
    from perdure.learner import ContinualClassifier
    from perdure.streams.images.find_images import Listed

    drawn = {"backbone": args.backbone, "img_size": args.img_size, "precision": args.precision}
    named = [name for name, value in {"method": args.method, **drawn}.items() if value is not None]
    if args.model and named:
        raise ConfigError(
            f"--{named[0].replace('_', '-')} is for a model with random weights; '{args.model}' has "
            "its own. Leave one of them out."
        )

    def write(classifier: ContinualClassifier, files: Sequence[Path], size: int) -> None:
        with Path(os.devnull).open("w") as out:
            write_answers(classifier, map(Listed, files), out, "csv", batch_size=size)

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if args.model:
            folder = model_folder(Path(args.model))
        else:
            save_untrained(folder, _config(args))
        report = predict_report(
            folder, write, images=args.images, batch_size=args.batch_size, rounds=args.rounds
        )
    _print_report(report, args.json)
    return 0


def data(args: argparse.Namespace) -> int:
    """Do ``perdure bench data``."""
    from perdure.bench.data import data_report

    config = _config(args, transform=args.transform, data=args.data)
    if args.data is None:
        messages().print("No --data: JPEG files are drawn into a temporary folder.")
    report = data_report(config, args.data, args.workers, args.images)
    if args.json:
        print_json(report)
        return 0
    shown = [name for name in report if name not in ("readings", "starves", "workers", "verdict")]
    print_fields([(name.replace("_", " "), _shown(report[name])) for name in shown])
    print()
    columns = list(report["readings"][0])
    rows = [[_shown(one[name]) for name in columns] for one in report["readings"]]
    print_columns([name.replace("_", " ") for name in columns], rows)
    print(f"\n{report['verdict']}")
    return 0


def cost(args: argparse.Namespace) -> int:
    """Do ``perdure bench cost``."""
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


def _config(args: argparse.Namespace, **keys: Any) -> Config:
    """The configuration that the options ask for, with random weights."""
    from perdure.engine.config import make_config

    options = ("method", "backbone", "batch_size", "img_size", "precision")
    asked = {**{key: getattr(args, key, None) for key in options}, **keys}
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
    return (
        f"{value * factor:,.0f}"
        if isinstance(value, int) and factor == 1
        else f"{value * factor:,.2f}"
    )


def _shown(value: object) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
