"""Search for image files in folders of any size, in alphabetical order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from perdure.streams.decoding import SUFFIXES, ImageFile, is_image
from perdure.streams.images.left_out import LeftOut


class Listed(NamedTuple):
    """Image found in a folder or table, or named by the user.

    Attributes:
        path: where it is, or its content.
        fault: why nothing can be read there; empty where it may be tried.
    """

    path: ImageFile
    fault: str = ""


def walk(
    folder: Path, left_out: LeftOut | None = None, around: Path | None = None
) -> Iterator[Listed]:
    """Find the image files in a folder and below it, in alphabetical order.

    Hidden files and folders are left out, and files that are not called like an image. Links are
    followed, but never into a folder that one is in already; one that leads nowhere is given if it
    is called like an image. A folder that cannot be listed is given with the reason. What is kept at
    a time is the names in one folder and in those around it.

    Args:
        folder: where to begin.
        left_out: receives what is left out.
        around: a folder around it that no link leads into either.
    """
    levels: list[_Level] = []
    if around is not None:
        status = around.stat()
        levels.append(_Level(around, (status.st_dev, status.st_ino), iter(())))
    yield from _enter(folder, levels, left_out)
    while levels:
        entry = next(levels[-1].names, None)
        if entry is None:
            levels.pop()
            continue
        name, is_folder = entry
        path = levels[-1].folder / name
        if is_folder:
            yield from _enter(path, levels, left_out)
        else:
            yield Listed(path)


class _Level(NamedTuple):
    """Folder of a search in progress."""

    folder: Path
    identity: tuple[int, int]
    names: Iterator[tuple[str, bool]]


def _enter(folder: Path, levels: list[_Level], left_out: LeftOut | None) -> Iterator[Listed]:
    """Add a level for a folder, unless it is one of them; give the reason where it cannot be."""
    try:
        status = folder.stat()
        identity = status.st_dev, status.st_ino
        if any(identity == level.identity for level in levels):
            return
        with os.scandir(folder) as entries:
            found = [(one.name, _is_folder(one)) for one in entries]
    except OSError as error:
        yield Listed(folder, f"this folder cannot be listed: {error.strerror}")
        return
    wanted = []
    for name, is_folder in found:
        if not is_hidden(name) and (is_folder or is_image_name(name)):
            wanted.append((name, is_folder))
        elif left_out is not None:
            left_out.add(why_left_out(folder / name), folder / name)
    levels.append(_Level(folder, identity, iter(sorted(wanted))))


def why_left_out(path: Path) -> str:
    """Tell for what reason of `REASONS` a file or folder is left out."""
    if is_hidden(path.name):
        return "hidden"
    if not path.exists():
        return "dangling"
    return "unnamed" if path.is_file() and is_image(path) else "other"


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
