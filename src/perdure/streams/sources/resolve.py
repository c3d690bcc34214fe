"""Resolution of ``data=``: a folder, a table, a data set of Hugging Face, or a known name."""

from __future__ import annotations

import itertools
from pathlib import Path

from perdure.cache import expanded
from perdure.errors import StreamError, UnknownNameError, did_you_mean
from perdure.streams.catalog import SOURCES
from perdure.streams.config import HUB, join_data
from perdure.streams.fetch.unpacking import is_archive
from perdure.streams.shards.parquets import is_parquet
from perdure.streams.shards.tars import is_tar, members

TABLES = (".csv", ".tsv", ".parquet", ".arrow", ".feather")
"""Suffixes of a table's file."""
_SAVED = ("dataset_dict.json", "state.json")


def resolve(data: str) -> str:
    """Return ``data`` in full: the name of the source that loads it, and where it lies.

    A name that is known wins over a file or folder of that name, which ``./NAME`` reaches.

    Raises:
        UnknownNameError: it is none of these.
    """
    source, colon, _ = data.partition(":")
    if data in SOURCES or (colon and (source == HUB or source in SOURCES)):
        return data
    try:
        return _located(data, expanded(data))
    except OSError as error:  # too long a name, a folder that may not be read
        reason = getattr(error, "strerror", None) or error
        raise UnknownNameError(
            f"data={data} is no known data set and cannot be looked for ({reason}). Allowed: a folder "
            f"with a folder per class, a table, or one of {', '.join(SOURCES)}."
        ) from error


def _located(data: str, path: Path) -> str:
    if path.is_dir():
        kind = "shards" if holds_shards(path) else "folder"
        return join_data("huggingface" if is_saved(path) else kind, data)
    if path.is_file() and path.suffix.lower() in TABLES:
        return join_data("table", data)
    if path.is_file() and is_archive(path.name):
        return join_data("shards" if is_webdataset(path) else "folder", data)
    others = path.parent.iterdir() if path.parent.is_dir() and not path.exists() else ()
    near = [entry.name for entry in others]
    found = "is a file of another kind" if path.exists() else "does not exist"
    raise UnknownNameError(
        f"data={data} {found}, and is no known data set.{did_you_mean(data, SOURCES)}"
        f"{did_you_mean(path.name, near)} Allowed: a folder with a folder per class, or a "
        f"zip or tar of one, a table ({', '.join(TABLES)}) of path and label, shards:FOLDER, hf:NAME, "
        "or one of "
        f"{', '.join(SOURCES)}."
    )


def is_saved(folder: Path) -> bool:
    """Return whether a folder was written by ``save_to_disk`` of ``datasets``."""
    return any((folder / name).is_file() for name in _SAVED)


def holds_shards(folder: Path) -> bool:
    """Return whether a folder has tars or Parquet files, and no folder beside them."""
    seen = [path for path in folder.iterdir() if not path.name.startswith(".")]
    shards = any(is_tar(path.name) or is_parquet(path.name) for path in seen)
    return shards and not any(path.is_dir() for path in seen)


def is_webdataset(tar: Path) -> bool:
    """Return whether a tar begins with an image and its class, as WebDataset writes them."""
    if not is_tar(tar.name):
        return False
    try:
        first = [one.name for one in itertools.islice(members(str(tar)), 2)]
    except StreamError:  # which is told by whoever reads it
        return False
    return any(name.endswith((".cls", ".json")) for name in first)
