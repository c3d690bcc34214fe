"""Images listed in a table: CSV, TSV or Parquet with a line per image."""

from __future__ import annotations

import csv
import importlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perdure.class_names import class_name, ordered_names
from perdure.errors import ConfigError, StreamError, did_you_mean
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig
from perdure.streams.images.file_sets import LabelledFiles, file_source
from perdure.streams.sources.base import Source, refuse_options
from perdure.streams.sources.folder import hold_out
from perdure.streams.sources.resolve import TABLES
from perdure.wording import listed

IMAGES = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
LABELS = ("label", "class", "category", "target", "class_name")
SPLITS = ("split", "subset")
DOMAINS = ("domain", "domains", "domain_name")
_SPLIT = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        number: number of the line in the file, from 1.
        path: the image's file.
        label: name of its class.
        split: ``train``, ``test``, or empty where the table does not say.
        domain: name of its domain; empty where it was not asked for.
        numbered: whether the table has the label as a number.
    """

    number: int
    path: Path
    label: str
    split: str
    domain: str
    numbered: bool


@SOURCES.register("table")
def load_table(config: StreamConfig, seed: int) -> Source:
    """Load the images that a CSV, TSV or Parquet file lists.

    Columns: the image's file (relative to the table's folder, or absolute), its class, and where
    there is one its split, ``train`` or ``test``; others are left alone. They are found by the usual
    names, or named by ``image_column`` and ``label_column``. Without splits ``test_fraction`` of each
    class is held out as for a folder. Classes follow the alphabet, or their value where all are
    whole numbers. Streams over domains read one more column, ``domain`` or what ``domain_column``
    names, in the same order; then a share is held out of each class in each domain.

    Raises:
        ConfigError: no table, a key that means nothing here, or Parquet without pyarrow.
        StreamError: a table that cannot be read or does not say what is needed.
        UnreadableImageError: images that cannot be decoded, all of them listed.
    """
    columns = ("image_column", "label_column", "domain_column")
    refuse_options(config, "place", "test_fraction", "domains", *columns)
    if config.place is None:
        raise ConfigError(f"data=table names no table. Type data=FILE ({', '.join(TABLES)}).")
    rows = table_rows(Path(config.place).expanduser(), config)
    names = ordered_names(row.label for row in rows)
    domains = ordered_names(row.domain for row in rows)
    train, test = (
        _labelled(part, names, domains if config.over_domains else ())
        for part in _split(rows, config)
    )
    return file_source("table", names, train, test, config, seed, domain_names=domains)


def find_column(
    columns: Sequence[str], usual: Iterable[str], named: str | None, key: str, where: str
) -> str:
    """Find a column by the name given in ``key``, or by the usual names in order of preference.

    Raises:
        StreamError: there is no such column.
    """
    if named is not None:
        if named in columns:
            return named
        hint = did_you_mean(named, columns)
        raise StreamError(f"{where} has no column '{named}'.{hint} It has: {', '.join(columns)}.")
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    wanted = list(usual)
    for name in wanted:
        if name in by_name:
            return by_name[name]
    raise StreamError(
        f"{where} has no column called {' or '.join(wanted)}. It has: {', '.join(columns)}. Rename "
        f"one, or name it: {key}={columns[0]}"
    )


def find_domain_column(columns: Sequence[str], config: StreamConfig, where: str) -> str:
    """Find the column of domains.

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
        ConfigError: Parquet without pyarrow.
        StreamError: a table that cannot be read or does not say what is needed.
    """
    lines = _parquet(table) if table.suffix.lower() == ".parquet" else _csv(table)
    if not lines:
        raise StreamError(f"'{table}' has no line but its header. Add a line per image.")
    columns = list(lines[0])
    image = find_column(columns, IMAGES, config.image_column, "image_column", f"'{table}'")
    label = find_column(columns, LABELS, config.label_column, "label_column", f"'{table}'")
    split = next((name for name in columns if name.strip().lower() in SPLITS), None)
    domain = find_domain_column(columns, config, f"'{table}'") if config.over_domains else None
    rows = []
    for number, line in enumerate(lines, start=2):
        where = f"line {number} of '{table}'"
        text = str(line[image] or "").strip()
        if not text:
            raise StreamError(f"There is no file in {where}, column '{image}'. Fill it in.")
        path = table.parent / Path(text).expanduser()
        named = class_name(line[label], f"{where}, column '{label}'")
        part = "" if split is None else _part(line[split], where)
        area = (
            ""
            if domain is None
            else class_name(line[domain], f"{where}, column '{domain}'", "domain")
        )
        numbered = not isinstance(line[label], str)
        rows.append(Row(number, path, named, part, area, numbered))
    _check_files(rows, table)
    return rows


def _csv(table: Path) -> list[dict[str, Any]]:
    """Read a file of lines whose values are parted by commas, semicolons or tabs."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = max(_DELIMITERS, key=header.count)
            lines = list(csv.DictReader(file, delimiter=delimiter, strict=True))
    except FileNotFoundError:
        raise StreamError(f"The table '{table}' does not exist.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StreamError(
            f"'{table}' cannot be read as a table: {error}. It must be UTF-8 text with a header "
            "such as path,label and a line per image."
        ) from error
    for number, line in enumerate(lines, start=2):
        if None in line or None in line.values():
            raise StreamError(
                f"Line {number} of '{table}' has not as many values as the header. Put values that "
                "hold a comma into quotation marks."
            )
    return lines


def _parquet(table: Path) -> list[dict[str, Any]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(
            "Parquet tables need pyarrow. Type: pip install 'perdure[tables]'"
        ) from error
    try:
        lines: list[dict[str, Any]] = parquet.read_table(table).to_pylist()
    except (OSError, ValueError) as error:
        raise StreamError(f"'{table}' cannot be read as Parquet: {error}.") from error
    return lines


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
        lines = [str(row.number) for row in rows if row.path == twice[0]]
        more = f" and {len(twice) - 1} other files" if len(twice) > 1 else ""
        raise StreamError(
            f"'{table}' lists '{twice[0]}' more than once (lines {listed(lines)}){more}. Keep one "
            "line per image."
        )
    missing = [row for row in rows if not row.path.is_file()]
    if missing:
        raise StreamError(
            f"{len(missing):,} of {len(rows):,} files of '{table}' do not exist, first "
            f"'{missing[0].path}' (line {missing[0].number}). Paths count from the table's folder."
        )


def _split(rows: Sequence[Row], config: StreamConfig) -> tuple[list[Row], list[Row]]:
    """Return the rows of training and of test images."""
    if rows[0].split:
        if config.test_fraction != StreamConfig.test_fraction:
            raise ConfigError(
                f"test_fraction={config.test_fraction} has no use: the table says which images are "
                "for testing. Leave test_fraction out, or remove the column."
            )
        return [row for row in rows if row.split == "train"], [
            row for row in rows if row.split == "test"
        ]
    files: dict[tuple[str, str], list[Path]] = {}
    for row in rows:
        files.setdefault((row.domain, row.label), []).append(row.path)
    out: set[Path] = set()
    for domain in dict.fromkeys(row.domain for row in rows):
        of_class = {label: paths for (area, label), paths in files.items() if area == domain}
        _, test = hold_out(of_class, config.test_fraction, f" in domain '{domain}'" * bool(domain))
        out.update(path for paths in test.values() for path in paths)
    by_path = sorted(rows, key=lambda row: row.path)
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


def table_files(config: StreamConfig, split: str) -> tuple[list[Path], list[str | int]]:
    """Return the images that a table lists, in its order, with their labels as the table has them.

    Where the table knows no splits, every line counts.

    Raises:
        ConfigError: Parquet without pyarrow.
        StreamError: a table that cannot be read or does not say what is needed.
    """
    assert config.place is not None
    rows = [
        row
        for row in table_rows(Path(config.place).expanduser(), config)
        if row.split in ("", split)
    ]
    labels = [int(row.label) if row.numbered else row.label for row in rows]
    return [row.path for row in rows], labels
