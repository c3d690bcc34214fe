"""Data sets and streams from a few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perdure.streams import Source, Stream, StreamConfig, build_stream, load_source
from perdure.streams.config import join_data


def asked(name: str = "digits", place: Path | str | None = None, **keys: Any) -> StreamConfig:
    """The keys of a stream of this data set."""
    return StreamConfig(join_data(name, None if place is None else str(place)), **keys)


def load(name: str, place: Path | str | None = None, *, seed: int = 0, **keys: Any) -> Source:
    """Load a data set."""
    return load_source(asked(name, place, **keys), seed)


def cut_up(
    name: str = "digits",
    place: Path | str | None = None,
    *,
    seed: int = 0,
    source: Source | None = None,
    **keys: Any,
) -> Stream:
    """Cut a data set, or a source that is loaded already, into tasks."""
    return build_stream(asked(name, place, **keys), seed, source)
