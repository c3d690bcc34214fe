"""``perdure suggest``: which images of a pool are worth a label next."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from perdure.atomic import atomic_write, check_file
from perdure.cli.arguments import add_head, add_model, check_images, find_images, model_folder
from perdure.cli.output import messages, print_columns, print_json
from perdure.cli.parsing import add_command, positive
from perdure.errors import StreamError
from perdure.wording import counted, per_cent, printable

WAYS = ("all", "uncertainty", "unknown", "diversity")


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "suggest", suggest, rest="pool")
    add_model(command)
    command.argument("pool", "POOL", "image files, folders or tables of them", nargs="+")
    command.option("--count", "N", "images to suggest", type=positive, default=20)
    command.option("--by", "WAY", f"one of {', '.join(WAYS)}", choices=WAYS, default="all")
    add_head(command)
    command.option("--csv", "FILE.csv", "write the suggestions here")
    command.option("--sheet", "FILE.png", "draw them here")


def suggest(args: argparse.Namespace) -> int:
    """Suggest which images to label next: uncertain, strange, and unlike each other.

    Examples:
        perdure suggest pets unsorted
        perdure suggest pets unsorted --count 50 --sheet next.png --csv next.csv
        perdure suggest pets unsorted --by unknown

        Images that cannot be read are left out.
    """
    check_images(args.pool)
    folder = model_folder(args.model)
    for file in filter(None, (args.csv, args.sheet)):
        check_file(Path(file))
    import numpy as np

    from perdure.cli.progress import ProgressBar
    from perdure.learner.pictures import checked_pictures
    from perdure.learner.saved.model import read_model
    from perdure.learner.suggest import suggest as suggested
    from perdure.reports.tables.text_table import as_csv
    from perdure.streams.images.contact_sheet import write_contact_sheet

    state = read_model(folder)
    found = [one.path for one in find_images(args.pool, state.model.config.stream) if not one.fault]
    names = [str(path) for path in found]
    pool, unreadable = checked_pictures(found, np.zeros(len(found), np.int64), names, True)
    if not len(pool):
        raise StreamError(
            f"Of {counted(len(unreadable), 'image')} none can be read; the first: "
            f"{unreadable[0]}. Name a folder with images that are whole."
        )
    with ProgressBar() as bar:
        chosen = suggested(
            state,
            pool,
            args.count,
            state.head_name(args.head),
            args.by,
            lambda done: bar("looking at images", done, len(pool)),
        )
    rows = [{"path": pool.names[one.place], **asdict(one)} for one in chosen]
    if args.csv:
        keys = ("path", "named", "probability", "other")
        lines = [[row[key] for key in keys] for row in rows]
        atomic_write(Path(args.csv), as_csv([keys, *lines]))
    if args.sheet:
        write_contact_sheet(
            Path(args.sheet), [(pool.image(one.place), (one.named, one.other)) for one in chosen]
        )
    if args.json:
        print_json(rows)
    else:
        cells = [
            [per_cent(one.probability), printable(one.named), printable(one.other), row["path"]]
            for one, row in zip(chosen, rows, strict=True)
        ]
        print_columns(["probability", "named", "or", "image"], cells)
    if unreadable:
        messages().print(f"left out, not readable: {counted(len(unreadable), 'image')}")
    return 0
