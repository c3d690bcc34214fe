"""``perdure data``: published data sets, and what is wrong with images."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from perdure.cli.output import print_columns, print_fields, print_json
from perdure.cli.parsing import add_command, add_group, positive
from perdure.errors import unknown_name
from perdure.wording import printable

if TYPE_CHECKING:
    from perdure.streams.fetch.published import PublishedData
    from perdure.streams.inspection import Inspection

FAULTS_SHOWN = 100
"""Faults that are printed one by one; ``--json`` has them all."""


def add(verbs: Any) -> None:
    """Add the command and its verbs."""
    group = add_group(
        verbs,
        "data",
        "list, fetch and check published data sets, and check images of your own",
        "perdure data ls",
        "perdure data fetch imagenet_r",
        "perdure data check photos",
    ).add_subparsers(dest="verb", metavar="verb", title="verbs")
    add_command(group, "ls", ls)
    command = add_command(group, "fetch", fetch, again="")
    command.argument("name", "NAME", "see `perdure data ls`")
    command = add_command(group, "check", check)
    command.argument("name", "NAME|PATH", "a published data set, or a folder or table of yours")
    command.option(
        "--min-images", "K", "readable images that a class must have", type=positive, default=2
    )


def ls(args: argparse.Namespace) -> int:
    """List published data sets: how large they are, where they come from, whether at hand.

    Examples:
        perdure data ls
        perdure data ls --json
    """
    from perdure.streams.fetch.published import PUBLISHED

    if args.json:
        print_json([_described(published) for published in PUBLISHED.values()])
        return 0
    heads = ["name", "classes", "images", "split", "MB", "at hand", "from", "licence"]
    rows = [
        [
            published.name,
            str(published.classes),
            f"{published.images:,}",
            published.split,
            f"{published.megabytes:,}" if published.files else "–",
            "yes" if published.at_hand else "no",
            published.publisher,
            published.licence,
        ]
        for published in PUBLISHED.values()
    ]
    print_columns(heads, rows)
    return 0


def _described(published: PublishedData) -> dict[str, Any]:
    folder = published.located()
    keys = ("name", "title", "classes", "images", "split", "publisher", "licence", "megabytes")
    return {
        **{key: getattr(published, key) for key in keys},
        "at_hand": published.at_hand,
        "folder": None if folder is None else str(folder),
        "files": [asdict(file) for file in published.files],
    }


def fetch(args: argparse.Namespace) -> int:
    """Download, check and unpack a published data set, or unpack what was put there by hand.

    Examples:
        perdure data fetch cifar100

        An interrupted download goes on where it stopped. Without network: the error names
        the files, where to put them, and what to type then.
    """
    from perdure.cli.progress import ProgressBar
    from perdure.streams.fetch import fetching
    from perdure.streams.fetch.published import PUBLISHED

    if args.name not in PUBLISHED:
        raise unknown_name("data set", args.name, PUBLISHED)
    published = PUBLISHED[args.name]
    already = published.at_hand
    if published.files:
        with ProgressBar(of_bytes=True) as bar:
            fetching.fetch(published, bar)
    if args.json:
        print_json({**_described(published), "already_at_hand": already})
        return 0
    folder = published.located()
    print(f"{published.title} is at hand: {folder or published.publisher}")
    return 0


def check(args: argparse.Namespace) -> int:
    """Look for unreadable images, duplicates across train and test, and classes that are too small.

    Examples:
        perdure data check photos                    a folder per class
        perdure data check photos.csv                a table of path and label
        perdure data check cub200 --min-images 20
        perdure data check photos --json

        The exit code is 1 where there are faults.
    """
    from perdure.cli.progress import ProgressBar
    from perdure.streams.inspection import inspect

    with ProgressBar() as bar:
        inspection = inspect(args.name, args.min_images, bar)
    if args.json:
        print_json({**asdict(inspection), "ok": not inspection.faults})
    else:
        _print_inspection(inspection)
    return int(bool(inspection.faults))


def _print_inspection(inspection: Inspection) -> None:
    for fault in inspection.faults[:FAULTS_SHOWN]:
        print(f"{fault.kind:<10}  {printable(fault.text)}")
    if len(inspection.faults) > FAULTS_SHOWN:
        print(f"and {len(inspection.faults) - FAULTS_SHOWN:,} more; --json lists all")
    print("\n" * bool(inspection.faults), end="")
    unusual = ", ".join(f"{count:,} {kind}" for kind, count in inspection.unusual.items() if count)
    print_fields(
        [
            ("classes", f"{inspection.classes:,}"),
            ("images", f"{inspection.train:,} train, {inspection.test:,} test"),
            ("unusual", f"{unusual} (read all the same)" if unusual else "none"),
            ("ignored", f"{inspection.ignored:,}"),
            *([("left out", inspection.told)] if inspection.told else []),
            ("faults", f"{len(inspection.faults):,}"),
        ]
    )
