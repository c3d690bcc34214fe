"""Search for image files in folders of any size, in alphabetical order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from perdure.streams.decoding import SUFFIXES


class Listed(NamedTuple):
    """Path found in a folder or named by the user.

    Attributes:
        path: where it is.
        fault: why nothing can be read there; empty where it may be tried.
    """

    path: Path
    fault: str = ""


def walk(folder: Path) -> Iterator[Listed]:
    """Find the image files in a folder and below it, in alphabetical order.

    Hidden files and folders are left out, and files that are not called like an image. Links are
    followed, but never into a folder that one is in already. A folder that cannot be listed is
    given with the reason. What is kept at a time is the names in one folder and in those around it.
    """
    levels: list[_Level] = []
    yield from _enter(folder, levels)
    while levels:
        entry = next(levels[-1].names, None)
        if entry is None:
            levels.pop()
            continue
        name, is_folder = entry
        path = levels[-1].folder / name
        if is_folder:
            yield from _enter(path, levels)
        else:
            yield Listed(path)


class _Level(NamedTuple):
    """Folder of a search in progress."""

    folder: Path
    identity: tuple[int, int]
    names: Iterator[tuple[str, bool]]


def _enter(folder: Path, levels: list[_Level]) -> Iterator[Listed]:
    """Add a level for a folder, unless it is one of them; give the reason where it cannot be."""
    try:
        status = folder.stat()
        identity = status.st_dev, status.st_ino
        if any(identity == level.identity for level in levels):
            return
        with os.scandir(folder) as entries:
            visible = [(one.name, _is_folder(one)) for one in entries if not is_hidden(one.name)]
    except OSError as error:
        yield Listed(folder, f"this folder cannot be listed: {error.strerror}")
        return
    wanted = [one for one in visible if one[1] or is_image_name(one[0])]
    levels.append(_Level(folder, identity, iter(sorted(wanted))))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is not for the user's eyes: hidden, or what a Mac's zip leaves."""
    return name.startswith(".") or name == "__MACOSX"


def is_image_name(name: str) -> bool:
    """Tell whether a file name has the suffix of an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122  a Path each costs more
