"""Images as shards: tars as WebDataset writes them, and Parquet files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image

from tests.tiny import pictures

CLASSES = ("a", "b", "c", "d")


def png(name: str, place: int) -> bytes:
    """A picture of a class as a file."""
    out = io.BytesIO()
    Image.fromarray(pictures(name, place + 1)[place]).save(out, "PNG")
    return out.getvalue()


def folder(path: Path, count: int = 6, classes: Sequence[str] = CLASSES) -> Path:
    """A folder per class."""
    for name in classes:
        (path / name).mkdir(parents=True)
        for place in range(count):
            (path / name / f"{place}.png").write_bytes(png(name, place))
    return path


def tar(path: Path, files: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    """A tar of files."""
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


def samples(
    classes: Sequence[str] = CLASSES, count: int = 6, first: int = 0
) -> list[tuple[str, bytes]]:
    """Images with their classes beside them, by turns."""
    files = []
    for place in range(first, first + count):
        for name in classes:
            files += [(f"{place:03d}{name}.png", png(name, place))]
            files += [(f"{place:03d}{name}.cls", name.encode())]
    return files


def parquet(
    path: Path, rows: Sequence[dict[str, Any]], group: int = 1000, empty: bool = False
) -> Path:
    """A Parquet file of rows, or of none of them."""
    table = pyarrow.Table.from_pylist(list(rows))
    table = table.slice(0, 0) if empty else table
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path
