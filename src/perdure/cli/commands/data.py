"""``perdure data``: published data sets, and what is wrong with images."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from perdure.cli.counting import Counting
from perdure.cli.output import print_columns, print_fields, print_json
from perdure.errors import unknown_name
from perdure.streams.fetch import fetching
from perdure.streams.fetch.published import BENCHMARKS, Benchmark
from perdure.streams.inspection import Inspection, inspect

FAULTS_SHOWN = 100
"""Faults that are printed one by one; ``--json`` has them all."""


def ls(args: argparse.Namespace) -> int:
    """Do ``perdure data ls``."""
    if args.json:
        print_json([_described(benchmark) for benchmark in BENCHMARKS.values()])
        return 0
    heads = ["name", "classes", "images", "split", "MB", "at hand", "from", "licence"]
    rows = [
        [
            benchmark.name,
            str(benchmark.classes),
            f"{benchmark.images:,}",
            benchmark.split,
            f"{benchmark.megabytes:,}" if benchmark.files else "–",
            "yes" if benchmark.at_hand else "no",
            benchmark.publisher,
            benchmark.licence,
        ]
        for benchmark in BENCHMARKS.values()
    ]
    print_columns(heads, rows)
    return 0


def _described(benchmark: Benchmark) -> dict[str, Any]:
    folder = benchmark.located()
    keys = ("name", "title", "classes", "images", "split", "publisher", "licence", "megabytes")
    return {
        **{key: getattr(benchmark, key) for key in keys},
        "at_hand": benchmark.at_hand,
        "folder": None if folder is None else str(folder),
        "files": [asdict(file) for file in benchmark.files],
    }


def fetch(args: argparse.Namespace) -> int:
    """Do ``perdure data fetch``."""
    if args.name not in BENCHMARKS:
        raise unknown_name("benchmark", args.name, BENCHMARKS)
    benchmark = BENCHMARKS[args.name]
    already = benchmark.at_hand
    if not already:
        with Counting(of_bytes=True) as counting:
            fetching.fetch(benchmark, counting)
    if args.json:
        print_json({**_described(benchmark), "already_at_hand": already})
        return 0
    folder = benchmark.located()
    print(f"{benchmark.title} is at hand: {folder or benchmark.publisher}")
    return 0


def check(args: argparse.Namespace) -> int:
    """Do ``perdure data check``."""
    with Counting() as counting:
        found = inspect(args.name, args.min_images, counting)
    if args.json:
        print_json({**asdict(found), "ok": not found.faults})
    else:
        _print_inspection(found)
    return int(bool(found.faults))


def _print_inspection(found: Inspection) -> None:
    for fault in found.faults[:FAULTS_SHOWN]:
        print(f"{fault.kind:<10}  {fault.text}")
    if len(found.faults) > FAULTS_SHOWN:
        print(f"and {len(found.faults) - FAULTS_SHOWN:,} more; --json lists all")
    print("\n" * bool(found.faults), end="")
    unusual = ", ".join(f"{count:,} {kind}" for kind, count in found.unusual.items() if count)
    print_fields(
        [
            ("classes", f"{found.classes:,}"),
            ("images", f"{found.train:,} train, {found.test:,} test"),
            ("unusual", f"{unusual} (read all the same)" if unusual else "none"),
            ("ignored", f"{found.ignored:,}"),
            ("faults", f"{len(found.faults):,}"),
        ]
    )
