"""``perdure data``: published data sets, and what is wrong with images."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.atomic import atomic_write, check_file
from perdure.cli.arguments import add_head, add_overrides, model_folder
from perdure.cli.output import print_columns, print_fields, print_json
from perdure.cli.parsing import UsageError, add_command, add_group, positive
from perdure.errors import PerdureError, unknown_name
from perdure.wording import counted, listed, per_cent, printable

if TYPE_CHECKING:
    from perdure.learner.suspects import Suspects
    from perdure.streams.fetch.published import PublishedData
    from perdure.streams.inspection import Inspection

SHEET = 300
"""Suspects on a contact sheet at most."""
COLUMNS = ("image_column", "label_column")
"""Keys that say where a table has what."""
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
    command = add_command(group, "check", check, rest="overrides")
    command.argument("name", "NAME|PATH", "a published data set, or a folder or table of yours")
    add_overrides(command, f"of a table: {' and '.join(COLUMNS)}")
    command.option(
        "--min-images", "K", "readable images that a class must have", type=positive, default=2
    )
    command.option("--model", "MODEL", "judge labels too, by this model's features")
    add_head(command, "that judges; default: the last one of the model's heads")
    command.option("--top", "K", "suspects to print", type=positive, default=20)
    command.option("--csv", "FILE.csv", "write all images here, the most suspect first")
    command.option("--sheet", "FILE.png", "draw the suspects here")


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
        perdure data check photos.csv image_column=foto label_column=klasse
        perdure data check cub200 --min-images 20
        perdure data check photos --json
        perdure data check photos --model pets --csv suspects.csv --sheet suspects.png
                                                     which labels may be wrong

        The exit code is 1 where there are faults.
    """
    from perdure.cli.progress import ProgressBar
    from perdure.streams.inspection import inspect

    columns = _columns(args.overrides)
    given = [f"--{name}" for name in ("head", "csv", "sheet") if getattr(args, name)]
    if given and not args.model:
        raise UsageError(f"{given[0]} has no use without a model. Add: --model MODEL")
    folder = model_folder(args.model) if args.model else None
    for file in filter(None, (args.csv, args.sheet)):
        check_file(Path(file))
    with ProgressBar() as bar:
        inspection = inspect(args.name, args.min_images, bar, **columns)
    if not args.json:
        _print_inspection(inspection)
    try:
        suspects = None if folder is None else _suspects(args, folder, columns)
    except PerdureError:
        if args.json:  # what was found is told all the same
            print_json({**asdict(inspection), "ok": not inspection.faults})
        raise
    if args.json:
        judged = {} if suspects is None else {"suspects": suspects.to_dict()}
        print_json({**asdict(inspection), "ok": not inspection.faults, **judged})
    elif suspects is not None:
        _print_suspects(suspects, args.top)
    return int(bool(inspection.faults))


def _columns(overrides: Sequence[str]) -> dict[str, str]:
    """The columns of a table that are named."""
    from perdure.engine.config import read_overrides
    from perdure.keys import as_text

    values = read_overrides(overrides)
    for key in values:
        if key not in COLUMNS:
            raise unknown_name("key", key, COLUMNS, " of a table")
    return {key: str(as_text(value)) for key, value in values.items() if value is not None}


def _suspects(args: argparse.Namespace, folder: Path, columns: Mapping[str, Any]) -> Suspects:
    """Judge labels; write the table and the sheet that are asked for."""
    from perdure.cli.progress import ProgressBar
    from perdure.learner.labelled import gather
    from perdure.learner.saved.model import read_model
    from perdure.learner.suspects import find_suspects
    from perdure.reports.tables.text_table import as_csv
    from perdure.streams.images.contact_sheet import write_contact_sheet

    state = read_model(folder)
    config = state.model.config
    readable = replace(config.stream, skip_unreadable=True, **columns)
    images = gather(args.name, None, "train", readable, config.training.seed)
    with ProgressBar() as bar:
        suspects = find_suspects(
            state,
            images,
            state.head_name(args.head),
            lambda done: bar("judging images", done, len(images.images)),
        )
    if args.csv:
        rows = [(one.image, one.label, one.named, one.margin) for one in suspects.images]
        atomic_write(Path(args.csv), as_csv([("path", "class", "named", "margin"), *rows]))
    if args.sheet:
        shown = suspects.images[: max(args.top, len(suspects.named_otherwise))][:SHEET]
        pictures = [
            (images.images.image(one.place), (f"is: {one.label}", f"or: {one.named}"))
            for one in shown
        ]
        write_contact_sheet(Path(args.sheet), pictures)
    return suspects


def _print_suspects(suspects: Suspects, top: int) -> None:
    print(
        f"\n{counted(len(suspects.named_otherwise), 'image')} would be named otherwise by all others"
    )
    if suspects.optimistic:
        print("(too few, perhaps: the features were trained on images, which may be among these)")
    rows = [
        [printable(one.label), printable(one.named), f"{one.margin:+.2f}", printable(one.image)]
        for one in suspects.images[:top]
    ]
    if rows:
        print_columns(["class", "named", "margin", "image"], rows)
    if suspects.twins:
        print(f"\n{counted(len(suspects.twins), 'pair')} of near duplicates")
        pairs = [
            [f"{pair.similarity:.3f}", *map(printable, (*pair.labels, *pair.images))]
            for pair in suspects.twins[:top]
        ]
        print_columns(["cosine", "class", "class", "image", "image"], pairs)
    growing = sorted(
        (
            (last - half, name)
            for name, (_, half, last) in suspects.curve.items()
            if half is not None and last is not None
        ),
        reverse=True,
    )
    points = []
    for place in range(3):
        known = [point for c in suspects.curve.values() if (point := c[place]) is not None]
        points += [sum(known) / len(known)] if known else []
    if len(points) == 3:  # noqa: PLR2004  one per share
        shown = ", ".join(per_cent(point) for point in points)
        print(f"\nnamed right without them, at 25, 50 and 100 % of the images: {shown}")
        more = [f"{name} ({100 * gain:+.0f} points)" for gain, name in growing[:5] if gain > 0]
        if more:
            print(f"most gained by the second half, so more images may help: {listed(more)}")
    for name, text in suspects.classes.items():
        print(f"class '{printable(name)}' {text}")


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
