"""Resolution of ``data=``: a folder, a table, a data set of Hugging Face, or a known name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perdure.errors import StreamError, did_you_mean
from perdure.streams.sources.base import SOURCES
from perdure.streams.sources.huggingface import PREFIX, is_saved
from perdure.streams.sources.table import TABLES


def source_of(data: str) -> dict[str, Any]:
    """Tell which source loads it, and from where.

    Args:
        data: the path of a folder, a table or a saved data set, ``hf:NAME``, or a source's name.

    Returns:
        ``stream`` and ``path``.

    Raises:
        StreamError: it is none of these.
    """
    if data.startswith(PREFIX):
        return {"stream": "huggingface", "path": data.removeprefix(PREFIX)}
    path = Path(data).expanduser()
    if path.is_dir():
        return {"stream": "huggingface" if is_saved(path) else "folder", "path": data}
    if path.is_file() and path.suffix.lower() in TABLES:
        return {"stream": "table", "path": data}
    if data in SOURCES:
        return {"stream": data, "path": None}
    near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    found = "is a file of another kind" if path.exists() else "does not exist"
    raise StreamError(
        f"data={data} {found}, and is no known stream.{did_you_mean(data, SOURCES)}"
        f"{did_you_mean(path.name, near)} Allowed: a folder with a folder per class, a table "
        f"({', '.join(TABLES)}) of path and label, hf:NAME, or one of {', '.join(SOURCES)}."
    )
