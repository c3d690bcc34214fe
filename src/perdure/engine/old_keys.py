"""Keys of earlier versions, read as today's: in presets, TOML files, run folders and saved models."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from perdure.errors import ConfigError
from perdure.streams.config import StreamConfig, join_data, split_data

OLD_KEYS: Mapping[str, str] = {"key_weight": "key_pull", "selection": "vote"}
"""Today's key by the one of before; where a method still has a key of the old name, that is meant."""
_IMAGES = ("stream", "path")
"""What ``data`` was before, in two keys: a source, and where its images are."""


def current(
    values: Mapping[str, Any], known: Container[str], data: str = StreamConfig.data
) -> dict[str, Any]:
    """Return values under today's keys.

    Args:
        values: flat keys, some of them perhaps of an earlier version.
        known: today's keys.
        data: what a ``path`` alone is a place of.

    Raises:
        ConfigError: an old key stands beside the one that it has become.

    Examples:
        >>> current({"stream": "folder", "path": "photos", "epochs": 2}, ["data", "epochs"])
        {'data': 'folder:photos', 'epochs': 2}
    """
    renamed = {old: OLD_KEYS[old] for old in values if old not in known and old in OLD_KEYS}
    renamed = {old: new for old, new in renamed.items() if new in known}
    renamed |= {old: "data" for old in _IMAGES if old in values and old not in known}
    for old, new in renamed.items():
        if values.get(new) is not None:
            raise ConfigError(f"{old} is called {new} now, and both are given. Leave {old} out.")
    now = {renamed.get(key, key): value for key, value in values.items()}
    if "data" in renamed.values():
        now["data"] = _joined(values, data)
    return now


def _joined(values: Mapping[str, Any], data: str) -> str:
    source, place = values.get("stream"), values.get("path")
    return join_data(str(source or split_data(data)[0]), None if place is None else str(place))
