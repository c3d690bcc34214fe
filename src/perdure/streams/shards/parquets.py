"""Parquet shards: rows in order, a few in memory at a time."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from perdure.errors import ConfigError, PerdureError, StreamError
from perdure.streams.shards.opening import open_place

_BUFFER = 2**20
"""Bytes of a file that are read at a time."""
_ROWS = 64
"""Rows in memory at a time, beside what pyarrow decodes for them."""


def is_parquet(name: str) -> bool:
    """Tell from its name whether a file is a Parquet shard."""
    return name.lower().endswith(".parquet")


def import_parquet(files: str) -> Any:
    """Import ``pyarrow.parquet``, which some files need.

    Raises:
        ConfigError: there is no pyarrow.
    """
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(f"{files} need pyarrow. Type: pip install 'perdure[tables]'") from error


@contextmanager
def opened(place: str) -> Iterator[Any]:
    """Open a Parquet file, as pyarrow's ``ParquetFile``; what goes wrong within names the file.

    Args:
        place: its path or URL.

    Raises:
        ConfigError: there is no pyarrow, or a URL needs another package.
        StreamError: it cannot be read, or is damaged or cut short.
    """
    parquet = import_parquet("Parquet files")
    with open_place(place) as file:
        try:
            with parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as table:
                yield table
        except PerdureError:
            raise
        except Exception as error:  # of any kind: damage surfaces anywhere in pyarrow
            reason = str(error).partition("\n")[0].rstrip(".")
            raise StreamError(
                f"'{place}' is damaged, not whole, or no Parquet file ({reason}). Fetch it again, or "
                "write it anew."
            ) from error


def cells(table: Any, columns: Sequence[str], first: int, end: int) -> Iterator[tuple[Any, ...]]:
    """Read some columns of the rows from ``first`` to before ``end``, in order.

    Row groups outside are not read.

    Args:
        table: a ``ParquetFile``.
        columns: names.
        first: the first row.
        end: the row after the last.
    """
    groups, before = [], 0
    skipped = None
    for group in range(table.metadata.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if before < end and before + rows > first:
            groups.append(group)
            skipped = before if skipped is None else skipped
        before += rows
    at = skipped or 0
    if not groups:
        return
    for batch in table.iter_batches(_ROWS, row_groups=groups, columns=list(columns)):
        if at + batch.num_rows > first and at < end:
            part = batch.slice(max(0, first - at), min(end, at + batch.num_rows) - max(first, at))
            values = [
                part.column(part.schema.get_field_index(name)).to_pylist() for name in columns
            ]
            yield from zip(*values, strict=True)
        at += batch.num_rows
        if at >= end:
            return
