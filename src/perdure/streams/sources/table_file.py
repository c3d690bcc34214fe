"""Table files: columns and rows of CSV, TSV, Parquet and Arrow, with the lines of an editor."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.cache import expanded
from perdure.errors import StreamError
from perdure.streams.decoding import EncodedImage, ImageFile
from perdure.streams.shards.parquets import import_parquet

BINARY = (".parquet", ".arrow", ".feather")
"""Suffixes of tables that pyarrow reads."""
_DELIMITERS = ",;\t"


@dataclass(frozen=True, eq=False)
class TableFile:
    """Content of a table.

    Attributes:
        path: its file.
        columns: what the first line says, or the names of columns.
        rows: where each row is, for errors: ``line 3 of 'photos.csv'``.
        column: the values of the column at a position, one per row.
        class_names: names behind the numbers of columns of classes, as `datasets` writes them.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    column: Callable[[int], Sequence[Any]]
    class_names: dict[str, list[str]]

    def without_header(self) -> TableFile:
        """The same table with its first line as a row; columns are known by position alone."""
        first = self.columns
        return TableFile(
            self.path,
            tuple(str(place) for place in range(1, len(first) + 1)),
            (f"line 1 of '{self.path}'", *self.rows),
            lambda place: [first[place], *self.column(place)],
            {},
        )

    def image_files(self, place: int) -> list[ImageFile]:
        """The images of a column: files, counted from the table's folder, or what cells hold.

        Raises:
            StreamError: a cell that is empty, or something else than a file or its content.
        """
        folder, name = self.path.parent, self.columns[place]
        return [
            image_of_cell(cell, folder, f"{self.path}[{row}]", f"{where}, column '{name}'")
            for row, (where, cell) in enumerate(zip(self.rows, self.column(place), strict=True))
        ]


def read_table(path: Path) -> TableFile:
    """Read a table.

    Raises:
        ConfigError: there is no pyarrow for a file that needs it.
        StreamError: a file that cannot be read as a table, or without a row.
    """
    table = _binary(path) if path.suffix.lower() in BINARY else _csv(path)
    if not table.columns:
        raise StreamError(
            f"'{path}' is empty. Add a header such as path,label and a line per image."
        )
    return table


def image_of_cell(cell: Any, folder: Path, place: str, where: str) -> ImageFile:
    """Return the image that a cell of a table names or holds.

    Args:
        cell: a file, bytes of one, or both, as ``{"bytes": …, "path": …}``.
        folder: where relative paths count from.
        place: what an image in the cell is called.
        where: where the cell is, for errors.

    Raises:
        StreamError: it is empty, or of another kind.
    """
    if isinstance(cell, dict) and {"bytes", "path"} & cell.keys():
        cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    if isinstance(cell, bytes | bytearray | memoryview):
        return EncodedImage(place, bytes(cell))
    if isinstance(cell, Path):
        return folder / cell
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise StreamError(f"There is no file in {where}. Fill it in.")
    if not isinstance(cell, str):
        raise StreamError(
            f"In {where}, there is {type(cell).__name__} where an image belongs. Allowed: a file's "
            "path, its bytes, or {bytes, path}."
        )
    return _file(cell, folder)


def _file(text: str, folder: Path) -> Path:
    """The file that a text names; one written on Windows is found on other systems."""
    path = folder / expanded(text.strip())
    if path.is_file():
        return path
    others = (folder / text, folder / text.strip().replace("\\", "/"))
    return next((other for other in others if other.is_file()), path)


def _csv(path: Path) -> TableFile:
    """Read a file of lines whose values are parted by commas, semicolons, tabs or what it says."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            says = first[:4].lower() == "sep=" and len(first.rstrip("\r\n")) == len("sep=;")
            if not says:  # which Excel writes, and takes for no line of the table
                file.seek(0)
            delimiter = first[4] if says else max(_DELIMITERS, key=first.count)
            reader, before = csv.reader(file, delimiter=delimiter, strict=True), int(says)
            lines = []
            ended = before
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    lines.append((ended + 1, cells))
                ended = before + reader.line_num
    except FileNotFoundError:
        raise StreamError(f"The table '{path}' does not exist.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StreamError(
            f"'{path}' cannot be read as a table: {error}. It must be UTF-8 text (Excel: CSV UTF-8) "
            "with a header such as path,label and a line per image."
        ) from error
    header = lines[0][1] if lines else []
    for number, cells in lines:
        if len(cells) != len(header):
            raise StreamError(
                f"Line {number} of '{path}' has not as many values as the first line. Put values "
                "that hold a comma into quotation marks."
            )
    rows = tuple(f"line {number} of '{path}'" for number, _ in lines[1:])
    return TableFile(
        path, tuple(header), rows, lambda place: [cells[place] for _, cells in lines[1:]], {}
    )


def _binary(path: Path) -> TableFile:
    """Read a Parquet or an Arrow file."""
    kind = "Parquet" if path.suffix.lower() == ".parquet" else "Arrow"
    parquet = import_parquet(f"{kind} tables")

    def refused(error: Exception) -> StreamError:
        text = str(error).partition("\n")[0]
        return StreamError(f"'{path}' cannot be read as {kind}: {text}.")

    if not path.exists():
        raise StreamError(f"The table '{path}' does not exist.")
    try:
        table = parquet.read_table(path) if kind == "Parquet" else _arrow(path)
        table.validate(full=True)  # else a damaged file could end the process
        columns, names = tuple(table.column_names), names_of_datasets(table.schema)
    except Exception as error:  # of any kind: damage surfaces anywhere in pyarrow
        raise refused(error) from error

    def column(place: int) -> Sequence[Any]:
        try:
            values: list[Any] = table.column(place).to_pylist()
        except Exception as error:
            raise refused(error) from error
        return values

    rows = tuple(f"row {row} of '{path}'" for row in range(table.num_rows))
    return TableFile(path, columns, rows, column, names)


def _arrow(path: Path) -> Any:
    """Read an Arrow file of either kind: with a directory, or the stream that `datasets` writes."""
    arrow = importlib.import_module("pyarrow")
    with arrow.OSFile(str(path)) as file:
        try:
            return arrow.ipc.open_file(file).read_all()
        except arrow.ArrowInvalid:
            file.seek(0)
            return arrow.ipc.open_stream(file).read_all()


def names_of_datasets(schema: Any) -> dict[str, list[str]]:
    """Return names of classes by column, as `datasets` notes them in a schema."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])
        features = noted["info"]["features"]
        return {
            name: list(map(str, feature["names"]))
            for name, feature in features.items()
            if feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
