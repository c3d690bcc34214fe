"""``perdure bench``: speed on this machine."""

from __future__ import annotations

import argparse

from perdure.cli.output import print_fields, print_json


def step(args: argparse.Namespace) -> int:
    """Do ``perdure bench step``."""
    from perdure.bench.step import step_report

    report = step_report(
        method=args.method,
        batch_size=args.batch_size,
        precision=args.precision,
        backbone=args.backbone,
        img_size=args.img_size,
        pairs=args.pairs,
    )
    if args.json:
        print_json(report)
    else:
        print_fields([(name.replace("_", " "), _shown(value)) for name, value in report.items()])
    return 0


def _shown(value: object) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
