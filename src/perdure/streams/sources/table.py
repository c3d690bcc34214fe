"""Images listed in a table: CSV, TSV, Parquet or Arrow with a line per image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perdure.cache import expanded
from perdure.class_names import class_name, declared_name, ordered_names
from perdure.errors import ConfigError, StreamError, did_you_mean
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig, refuse_test_fraction
from perdure.streams.decoding import ImageFile
from perdure.streams.images.file_sets import LabelledFiles, file_source
from perdure.streams.images.find_images import is_image_name
from perdure.streams.sources.base import Source, refuse_options
from perdure.streams.sources.folder import by_kind, hold_out
from perdure.streams.sources.resolve import TABLES
from perdure.streams.sources.table_file import TableFile, read_table
from perdure.wording import listed

IMAGES = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
LABELS = ("label", "class", "category", "target", "class_name")
SPLITS = ("split", "subset")
DOMAINS = ("domain", "domains", "domain_name")
_SPLIT = {"train": "train", "training": "train", "test": "test", "testing": "test"}


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        where: where it is, for errors: ``line 3 of 'photos.csv'``.
        path: the image's file, or its content.
        label: name of its class.
        split: ``train``, ``test``, or empty where the table does not say.
        domain: name of its domain; empty where it was not asked for.
        numbered: whether the table has the label as a number.
    """

    where: str
    path: ImageFile
    label: str
    split: str
    domain: str
    numbered: bool


@SOURCES.register("table")
def load_table(config: StreamConfig, seed: int) -> Source:
    """Load the images that a CSV, TSV, Parquet or Arrow file lists.

    Columns: the image's file (relative to the table's folder, or absolute) or its content, its class,
    and where there is one its split, ``train`` or ``test``; others are left alone. They are found by
    the usual names, or named by ``image_column`` and ``label_column``; by number, from 1, where the
    first line is no header. Without splits ``test_fraction`` of each
    class is held out as for a folder. Classes follow the alphabet, or their value where all are
    whole numbers. Streams over domains read one more column, ``domain`` or what ``domain_column``
    names, in the same order; then a share is held out of each class in each domain.

    Raises:
        ConfigError: no table, a key that means nothing here, or a table that needs pyarrow.
        StreamError: a table that cannot be read or does not say what is needed.
        UnreadableImageError: images that cannot be decoded, all of them listed.
    """
    columns = ("image_column", "label_column", "domain_column")
    refuse_options(config, "place", "test_fraction", "domains", *columns)
    if config.place is None:
        raise ConfigError(f"data=table names no table. Type data=FILE ({', '.join(TABLES)}).")
    rows = table_rows(expanded(config.place), config)
    names = ordered_names(row.label for row in rows)
    domains = ordered_names(row.domain for row in rows)
    train, test = (
        _labelled(part, names, domains if config.over_domains else ())
        for part in _split(rows, config)
    )
    return file_source("table", names, train, test, config, seed, domain_names=domains)


def find_column(
    columns: Sequence[str], usual: Iterable[str], named: str | None, key: str, where: str
) -> int:
    """Return the position of the column named in ``key``, or of one with a usual name.

    A name that no column has may be its position, from 1.

    Raises:
        StreamError: there is no such column, or several.
    """
    if named is not None:
        places = [place for place, column in enumerate(columns) if column == named]
        if not places and named.isdecimal() and 1 <= int(named) <= len(columns):
            places = [int(named) - 1]
        if not places:
            hint = did_you_mean(named, columns)
            raise StreamError(
                f"{where} has no column '{named}'.{hint} It has: {listed(columns, 20)}."
            )
        return _only(places, columns, key, where)
    lowered = [column.strip().lower() for column in columns]
    wanted = list(usual)
    for name in wanted:
        places = [place for place, column in enumerate(lowered) if column == name.lower()]
        if places:
            return _only(places, columns, key, where)
    raise StreamError(
        f"{where} has no column called {' or '.join(wanted)}. It has: {listed(columns, 20)}. Rename "
        f"one, or name it: {key}={columns[0]}"
    )


def _only(places: Sequence[int], columns: Sequence[str], key: str, where: str) -> int:
    if len(places) > 1:
        numbers = " and ".join(str(place + 1) for place in places)
        raise StreamError(
            f"{where} has {len(places)} columns called '{columns[places[0]]}', at {numbers}. Name one "
            f"by its position: {key}={places[0] + 1}"
        )
    return places[0]


def find_domain_column(columns: Sequence[str], config: StreamConfig, where: str) -> int:
    """Return the position of the column of domains.

    Raises:
        StreamError: there is none.
    """
    try:
        return find_column(columns, DOMAINS, config.domain_column, "domain_column", where)
    except StreamError as error:
        raise StreamError(
            f"{str(error).rstrip('.')}. It must say of every image what domain it is in; without one "
            "leave increment out: then every task brings new classes."
        ) from None


def table_rows(table: Path, config: StreamConfig) -> list[Row]:
    """Read and check every line.

    Raises:
        ConfigError: a table that needs pyarrow.
        StreamError: a table that cannot be read or does not say what is needed.
    """
    content, image, label = _image_and_label(read_table(table), config)
    if not content.rows:
        raise StreamError(f"'{table}' has no line but its header. Add a line per image.")
    columns, nothing = content.columns, [""] * len(content.rows)
    splits = [name for name in columns if name.strip().lower() in SPLITS]
    parts: Sequence[str] = nothing
    if splits:
        place = find_column(columns, SPLITS, None, "split", f"'{table}'")
        parts = [_part(*one) for one in zip(content.column(place), content.rows, strict=True)]
    areas: Sequence[str] = nothing
    if config.over_domains:
        place = find_domain_column(columns, config, f"'{table}'")
        areas = _names(content, place, "domain")
    labels = _names(content, label, "label")
    numbered = [not isinstance(value, str) for value in content.column(label)]
    if columns[label] in content.class_names:
        numbered = [False] * len(labels)
    files = content.image_files(image)
    rows = [
        Row(*one) for one in zip(content.rows, files, labels, parts, areas, numbered, strict=True)
    ]
    _check_files(rows, table)
    return rows


def table_images(table: Path, config: StreamConfig) -> list[ImageFile]:
    """Return the images that a table lists, in its order; labels are not read.

    Raises:
        ConfigError: a table that needs pyarrow.
        StreamError: a table that cannot be read or does not say where the images are.
    """
    content = read_table(table)
    place = find_column(content.columns, IMAGES, config.image_column, "image_column", f"'{table}'")
    if is_image_name(content.columns[place].strip()):
        content = content.without_header()
    return content.image_files(place)


def _image_and_label(table: TableFile, config: StreamConfig) -> tuple[TableFile, int, int]:
    """Find the columns of images and labels, and whether the first line is a header.

    Raises:
        StreamError: there is no such column, or the first line is no header but columns are named.
    """
    first, where = table.columns, f"'{table.path}'"
    named = (config.image_column, config.label_column)
    likely = [place for place, cell in enumerate(first) if is_image_name(cell.strip())]
    advice = ""
    if likely:
        other = 2 if likely[0] == 0 else 1
        advice = (
            f"The first line of {where} is no header: it has '{first[likely[0]]}'. Name columns by "
            f"position: image_column={likely[0] + 1} label_column={other}"
        )
    try:
        image = find_column(first, IMAGES, named[0], "image_column", where)
        label = find_column(first, LABELS, named[1], "label_column", where)
    except StreamError as error:
        raise (StreamError(advice) if advice and None in named else error) from None
    by_position = all(name is not None and name not in first for name in named)
    usual = first[image].strip().lower() in IMAGES or first[label].strip().lower() in LABELS
    if by_position and not usual:
        return table.without_header(), image, label
    if image in likely:
        raise StreamError(advice)
    return table, image, label


def _names(table: TableFile, place: int, what: str) -> list[str]:
    """The names of classes or domains in a column, one per row."""
    column, values = table.columns[place], table.column(place)
    declared = table.class_names.get(column)
    names = []
    for row, value in zip(table.rows, values, strict=True):
        where = f"{row}, column '{column}'"
        named = declared_name(value, declared, f"The {what} of {where},") if declared else value
        names.append(class_name(named, where, what))
    return names


def _part(value: Any, where: str) -> str:
    split = _SPLIT.get(str(value).strip().lower())
    if split is None:
        raise StreamError(
            f"The split in {where} is {value!r}. Allowed: train and test. Validation images are "
            "split off the training images by validation_fraction=…"
        )
    return split


def _check_files(rows: Sequence[Row], table: Path) -> None:
    twice = [path for path, times in Counter(row.path for row in rows).items() if times > 1]
    if twice:
        lines = [row.where.partition(" of ")[0] for row in rows if row.path == twice[0]]
        more = f" and {len(twice) - 1} other files" if len(twice) > 1 else ""
        raise StreamError(
            f"'{table}' lists '{twice[0]}' more than once ({listed(lines)}){more}. Keep one line per "
            "image."
        )
    missing = [row for row in rows if isinstance(row.path, Path) and not row.path.is_file()]
    if missing:
        line = missing[0].where.partition(" of ")[0]
        raise StreamError(
            f"{len(missing):,} of {len(rows):,} files of '{table}' do not exist, first "
            f"'{missing[0].path}' ({line}). Paths count from the table's folder."
        )


def _split(rows: Sequence[Row], config: StreamConfig) -> tuple[list[Row], list[Row]]:
    """Return the rows of training and of test images."""
    if rows[0].split:
        advice = "Leave test_fraction out, or remove the column."
        refuse_test_fraction(config, f"the table says which images are for testing. {advice}")
        sides = {side: [row for row in rows if row.split == side] for side in ("train", "test")}
        return sides["train"], sides["test"]
    files: dict[tuple[str, str], list[ImageFile]] = {}
    for row in rows:
        files.setdefault((row.domain, row.label), []).append(row.path)
    out: set[ImageFile] = set()
    for domain in dict.fromkeys(row.domain for row in rows):
        of_class = {label: paths for (area, label), paths in files.items() if area == domain}
        _, test = hold_out(of_class, config.test_fraction, f" in domain '{domain}'" * bool(domain))
        out.update(path for paths in test.values() for path in paths)
    by_path = sorted(rows, key=lambda row: by_kind(row.path))
    return [row for row in rows if row.path not in out], [r for r in by_path if r.path in out]


def _labelled(rows: Sequence[Row], names: Sequence[str], domains: Sequence[str]) -> LabelledFiles:
    """Number the rows' classes, and their domains where there are any; class after class."""
    label_of = {name: label for label, name in enumerate(names)}
    rows = sorted(rows, key=lambda row: label_of[row.label])
    labels = np.array([label_of[row.label] for row in rows], np.int64)
    paths = [row.path for row in rows]
    if not domains:
        return LabelledFiles(paths, labels)
    domain_of = {name: place for place, name in enumerate(domains)}
    return LabelledFiles(paths, labels, np.array([domain_of[row.domain] for row in rows], np.int64))


def table_files(config: StreamConfig, split: str) -> tuple[list[ImageFile], list[str | int], bool]:
    """Return the images that a table lists, in its order, with their labels as the table has them.

    Where the table knows no splits, every line counts.

    Returns:
        Images, their labels, and whether the table knows splits.

    Raises:
        ConfigError: a table that needs pyarrow.
        StreamError: a table that cannot be read or does not say what is needed.
    """
    assert config.place is not None
    rows = table_rows(expanded(config.place), config)
    chosen = [row for row in rows if row.split in ("", split)]
    labels = [int(row.label) if row.numbered else row.label for row in chosen]
    return [row.path for row in chosen], labels, bool(rows[0].split)
