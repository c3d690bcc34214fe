"""Shards of a source of images: what one process predicts and writes at a time."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import itertools
import os
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.atomic import sync_folder
from perdure.errors import OutputError, StreamError
from perdure.streams.config import StreamConfig
from perdure.streams.decoding import SUFFIXES, EncodedImage
from perdure.streams.images.find_images import Listed, is_hidden, is_image_name
from perdure.streams.shards import parquets, tars
from perdure.streams.shards.opening import (
    file_system,
    is_url,
    open_place,
    reaching,
    reason_of,
)
from perdure.streams.sources.table import IMAGES, find_column
from perdure.streams.sources.table_file import image_of_cell

LISTING = "listing.parquet"
"""Paths of images that lie in files of their own, in the folder of the answers."""
_AT_ONCE = 64
"""Images that are fetched together from a URL."""


@dataclass(frozen=True)
class Shard:
    """Images that are predicted and written together.

    Attributes:
        number: its position among all, which names the file of its answers.
        place: path or URL of a tar, of a Parquet file, or of a listing.
        first: its first row; 0 for a tar, which is a shard as a whole.
        end: the row after its last; None for a tar.
    """

    number: int
    place: str
    first: int = 0
    end: int | None = None


def is_container(place: str) -> bool:
    """Tell from its name whether a file holds many images: a tar or a Parquet file."""
    return tars.is_tar(place) or parquets.is_parquet(place)


def containers(place: str) -> list[str]:
    """Return the tar and Parquet files that a path or URL stands for: itself, or those in a folder.

    Raises:
        ConfigError: a URL that needs another package.
        StreamError: it cannot be read, or a folder holds images or folders beside them.
    """
    if is_container(place):
        return [place]
    if not is_url(place):
        if not Path(place).is_dir():
            return []
        names = sorted(entry.name for entry in Path(place).iterdir())
        folders = {name for name in names if (Path(place) / name).is_dir()}
    else:
        system, path = file_system(place)
        with reaching(place):
            entries = system.ls(path, detail=True)
        named = {one["name"].rstrip("/").rpartition("/")[2]: one["type"] for one in entries}
        names = sorted(named)
        folders = {name for name, kind in named.items() if kind == "directory"}
    names = [name for name in names if not is_hidden(name)]
    found = [name for name in names if is_container(name)]
    loose = [name for name in names if is_image_name(name) or name in folders]
    if found and loose:
        kind = "folders" if loose[0] in folders else "images"
        raise StreamError(
            f"'{place}' holds shards ('{found[0]}') and {kind} ('{loose[0]}'). Keep them in folders "
            "of their own, and name one."
        )
    return [f"{place.rstrip('/')}/{name}" for name in found]


def images_at(url: str) -> Iterator[str]:
    """Find the images at a URL: itself, or those in a folder and in all folders in it, in order.

    Raises:
        ConfigError: a URL that needs another package.
        StreamError: it cannot be read, or holds no image.
    """
    if is_image_name(url):
        yield url
        return
    system, path = file_system(url)
    empty = True
    with reaching(url):
        for file in _files_in(system, path):
            if is_image_name(file):
                empty = False
                yield system.unstrip_protocol(file)
    if empty:
        raise StreamError(
            f"'{url}' holds no image. Expected are files ending in {', '.join(sorted(SUFFIXES))}, in "
            "it or in folders in it, or tar and Parquet files in it."
        )


def _files_in(system: Any, folder: str) -> Iterator[str]:
    """Files of a folder in order, then those of its folders; fsspec's own walk passes over errors."""
    entries = {one["name"].rstrip("/"): one["type"] for one in system.ls(folder, detail=True)}
    inside = [
        (name, kind)
        for name, kind in sorted(entries.items())
        if name != folder.rstrip("/") and not is_hidden(name.rpartition("/")[2])
    ]
    yield from (name for name, kind in inside if kind != "directory")
    for name, kind in inside:
        if kind == "directory":
            yield from _files_in(system, name)


def write_listing(images: Iterable[tuple[str, str]], path: Path, rows: int) -> None:
    """Write places of images and why some cannot be read, in bounded memory.

    Args:
        images: paths or URLs, each with a reason or an empty text.
        path: the file, a row group per shard.
        rows: images of a shard.

    Raises:
        OutputError: it cannot be written.
    """
    arrow, parquet = (importlib.import_module(f"pyarrow{part}") for part in ("", ".parquet"))
    schema = arrow.schema([("place", arrow.binary()), ("fault", arrow.string())])
    images = iter(images)
    waiting = path.with_name(f".{path.name}.part")
    try:
        with waiting.open("wb") as file, parquet.ParquetWriter(file, schema) as writer:
            while group := list(itertools.islice(images, rows)):
                # File names are bytes, and need be no text.
                places = [os.fsencode(place) for place, _ in group]
                faults = [fault for _, fault in group]
                writer.write_table(
                    arrow.table([places, faults], schema=schema), row_group_size=rows
                )
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        waiting.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"'{path}' could not be written ({error.strerror or error}). Free some space, or choose "
            "another --out."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            waiting.unlink(missing_ok=True)


def shards_of(places: Iterable[str], rows: int) -> Iterator[Shard]:
    """Cut containers into shards; only how many rows they have is read.

    A tar is a shard. A Parquet file is cut by rows, whatever its row groups are; where these are
    larger than a shard, shards grow to a multiple of ``rows`` that holds one.

    Args:
        places: tars, Parquet files and listings.
        rows: rows of a shard of a Parquet file.

    Raises:
        StreamError: a Parquet file cannot be read.
    """
    number = itertools.count()
    for place in places:
        if tars.is_tar(place):
            yield Shard(next(number), place)
            continue
        with parquets.opened(place) as table:
            meta = table.metadata
            groups = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
            step = -(-max([rows, *groups]) // rows) * rows
            for first in range(0, meta.num_rows, step):
                yield Shard(next(number), place, first, min(first + step, meta.num_rows))


def identity(place: str) -> str:
    """Return what tells a shard's file from another of its name: size and change, or a digest.

    Raises:
        StreamError: it cannot be read.
    """
    if Path(place).name == LISTING and not is_url(place):
        with open_place(place) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    with reaching(place):
        if not is_url(place):
            status = Path(place).stat()
            return f"{status.st_size} {status.st_mtime_ns}"
        system, path = file_system(place)
        about = system.info(path)
    changed = next((about[key] for key in ("ETag", "etag", "mtime", "created") if key in about), "")
    return f"{about.get('size')} {changed}"


def images_in(shard: Shard, config: StreamConfig) -> Iterator[Listed]:
    """Read the images of a shard in order; some are in memory at a time.

    Args:
        shard: which.
        config: names the column of images, where it has not a usual name.

    Raises:
        ConfigError: a package that is missing.
        StreamError: the shard is damaged or cut short; images before are given.
    """
    if tars.is_tar(shard.place):
        for member in tars.members(shard.place):
            if is_image_name(member.name) and not is_hidden(Path(member.name).name):
                yield Listed(EncodedImage(f"{shard.place}[{member.name}]", member.content))
        return
    assert shard.end is not None, "Parquet is cut by rows"
    with parquets.opened(shard.place) as table:
        names = table.schema_arrow.names
        if Path(shard.place).name == LISTING and names == ["place", "fault"]:
            rows = parquets.cells(table, names, shard.first, shard.end)
            yield from _fetched((os.fsdecode(place), fault) for place, fault in rows)
            return
        where = f"'{shard.place}'"
        column = names[find_column(names, IMAGES, config.image_column, "image_column", where)]
        values = parquets.cells(table, [column], shard.first, shard.end)
        for row, (cell,) in enumerate(values, shard.first):
            yield _image(cell, shard.place, f"{shard.place}[{row}]", f"row {row} of {where}")


def _image(cell: Any, table: str, place: str, where: str) -> Listed:
    """The image of a cell, or why there is none."""
    try:
        image = image_of_cell(cell, Path(table).parent, place, where)
    except StreamError as error:
        return Listed(EncodedImage(place, b""), str(error))
    if isinstance(image, Path) and is_url(table):
        cell = cell["path"] if isinstance(cell, dict) else cell
        return next(_fetched([(cell if is_url(cell) else _beside(table, cell), "")]))
    if isinstance(cell, str) and is_url(cell):
        return next(_fetched([(cell, "")]))
    return Listed(image)


def _beside(table: str, name: str) -> str:
    """The URL of a file that a table names by its place beside it; buckets know no ``..``."""
    kind, _, place = table.rpartition("/")[0].partition("://")
    if {".", ".."} & set(name.split("/")):
        return f"{kind}://{posixpath.normpath(f'{place}/{name}')}"
    return f"{kind}://{place}/{name}"


def _fetched(images: Iterable[tuple[str, str]]) -> Iterator[Listed]:
    """Give files as they are, and the content of URLs, which are fetched some at a time."""
    images = iter(images)
    while group := list(itertools.islice(images, _AT_ONCE)):
        contents = _contents([place for place, fault in group if is_url(place) and not fault])
        for place, fault in group:
            content = contents.get(place)
            if fault or (content is None and not is_url(place)):
                yield Listed(EncodedImage(place, b"") if is_url(place) else Path(place), fault)
            elif isinstance(content, bytes):
                yield Listed(EncodedImage(place, content))
            else:
                assert isinstance(content, Exception), "what was not fetched has an error"
                yield Listed(EncodedImage(place, b""), reason_of(content))


def _contents(urls: list[str]) -> dict[str, bytes | Exception]:
    """Fetch URLs, those of a kind together; what fails is given as its error."""
    contents: dict[str, bytes | Exception] = {}
    for _, group in itertools.groupby(urls, key=lambda url: url.partition("://")[0]):
        ours = list(group)
        system = file_system(ours[0])[0]
        paths = [system._strip_protocol(url) for url in ours]
        # Not by cat(), which takes a name with [1] or ? for a pattern.
        fetched = system.cat_ranges(paths, None, None, on_error="return")
        contents |= dict(zip(ours, fetched, strict=True))
    return contents
