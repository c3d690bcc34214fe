"""Three kinds of images one after another, and fifty tasks of icons.

`domains`: digits, Fashion-MNIST and icons, five tasks of two classes each. `length`: fifty tasks of two
classes of icons. Both become a table and a class order in the cache folder, and are run from there as
anyone's own images are. Every run is a cell with a folder of its own; finished cells are kept and
skipped, interrupted ones go on. At the end the tables of docs/results.md and its picture are made anew.

Needs npm and resvg (pip install resvg-py) until the icons are drawn; then nothing more.

Usage: python benchmarks/accuracy/domains.py                     everything (more than an hour)
       python benchmarks/accuracy/domains.py --only length/lda   cells whose name begins so
       python benchmarks/accuracy/domains.py --tables            only make tables and picture anew
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import domain_tables
from icons import Collection, Wanted, collect, fetch, read_sets
from PIL import Image
from results import RECIPE, Cell, finished_among, options_of, summary_of, write_tables

from perdure.cache import home
from perdure.engine.diagnose import selecting_methods
from perdure.experiment import run
from perdure.streams import StreamConfig, load_source

METHODS = ("lda", "nsp2", "finetune", "iprompt", "coda_prompt")
WANTED = Wanted()
STREAMS: dict[str, dict[str, Any]] = {
    "domains": {"images_per_class": 16, "test_images_per_class": 8, "tasks": [2] * 15},
    "length": {"images_per_class": 10, "test_images_per_class": 4, "tasks": [2] * 50},
}
EPOCHS = 3
DOMAIN = 10
"""Classes of a domain."""

Row = tuple[str, str, str, str]
"""File of an image, its class, its split and its domain."""


def cells(cache: Path) -> list[Cell]:
    """All runs."""
    found = []
    for stream, sizes in STREAMS.items():
        files = {"data": str(cache / f"{stream}.csv"), "class_order": str(order_of(cache, stream))}
        for method in METHODS:
            values = {**options_of(method), "epochs": EPOCHS, **sizes, **files}
            found.append(Cell(f"{stream}/{method}", values))
    return found


def order_of(cache: Path, stream: str) -> Path:
    """The file of a stream's class order."""
    return cache / f"{stream}-order.txt"


def build(cache: Path) -> None:
    """Draw the icons, and write images, tables, class orders and the list of sets."""
    sets, brands = read_sets(fetch(cache))
    collection = collect(sets, brands, WANTED)
    icons = list(_icons(cache, collection))
    words = [f"icon {word}" for word in collection.classes]
    rows = [row for row in icons if row[1] in words[:DOMAIN]]
    order = []
    for source in ("digits", "fashion_mnist"):
        found = list(_images_of(cache, source))
        order += _shuffled(sorted({row[1] for row in found}))
        rows += found
    _write_sets(cache / domain_tables.SETS, collection)
    _write_stream(cache, "domains", rows, [*order, *_shuffled(words[:DOMAIN])])
    _write_stream(cache, "length", icons, _shuffled(words))


def _shuffled(names: Sequence[str]) -> list[str]:
    return random.Random(RECIPE["seed"]).sample(names, len(names))


def _icons(cache: Path, collection: Collection) -> Iterator[Row]:
    for word, found in collection.classes.items():
        for side, entries in found.items():
            for entry in entries:
                path = Path("icons") / side / word / f"{entry.prefix}--{entry.name}.png"
                _save(Image.fromarray(entry.pixels), cache / path)
                yield str(path), f"icon {word}", side, "icons"


def _images_of(cache: Path, name: str) -> Iterator[Row]:
    """The first images of every class of a known source, as many as of an icon."""
    source = load_source(StreamConfig(data=name))
    for side, images in (("train", source.train), ("test", source.test)):
        for label, title in enumerate(source.class_names):
            for index in (images.labels == label).nonzero()[0][: WANTED.most[side]]:
                path = Path(name) / side / str(label) / f"{index}.png"
                _save(images.image(int(index)), cache / path)
                yield str(path), f"digit {title}" if name == "digits" else title, side, name


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _write_stream(cache: Path, stream: str, rows: Sequence[Row], order: Sequence[str]) -> None:
    order_of(cache, stream).write_text("\n".join(order) + "\n", "utf-8")
    with (cache / f"{stream}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "domain"), *rows])


def _write_sets(path: Path, collection: Collection) -> None:
    """Write the name, author and licence of every set that images are from."""
    header = ("set", "name", "author", "licence", "family", "side", "images")
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(header)
        for icons in collection.sets:
            side = collection.side_of[icons.prefix]
            given = [entry for found in collection.classes.values() for entry in found[side]]
            count = sum(entry.prefix == icons.prefix for entry in given)
            about = (icons.prefix, icons.title, icons.author, icons.licence)
            lines.writerow((*about, collection.family_of[icons.prefix], side, count))


def main() -> None:
    """Build what is missing, run what is missing, then make tables and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of cells' names")
    parser.add_argument("--out", type=Path, default=Path("runs/domains"))
    parser.add_argument("--cache", type=Path, default=home() / "data" / "icons")
    parser.add_argument("--tables", action="store_true", help="run nothing")
    args = parser.parse_args()
    cache = args.cache.expanduser().absolute()
    if not (cache / "length.csv").exists():
        build(cache)
    for cell in [] if args.tables else cells(cache):
        if cell.name.startswith(tuple(args.only)):
            selects = cell.values["method"] in selecting_methods()
            finished = run(cell.config, cell.folder(args.out), resume=True, diagnose=selects)
            if not finished.already:
                print(cell.name, summary_of(finished.entries), flush=True)
    done = finished_among(cells(cache), args.out)
    logs = {cell.name: cell.folder(args.out) / "events.jsonl" for cell in cells(cache)}
    write_tables(domain_tables.tables(done, logs, cache))
    domain_tables.draw(done, METHODS)


if __name__ == "__main__":
    main()
