"""Cache folders of downloaded weights and data (``PERDURE_HOME``)."""

from __future__ import annotations

import hashlib
import os
import sys
from functools import partial
from pathlib import Path

from perdure.errors import OutputError

_MOVE = "Set PERDURE_HOME to a folder that can be written."


def home() -> Path:
    """Return the cache folder: ``PERDURE_HOME``, or the user's cache folder of this platform.

    Nothing is created. Without ``PERDURE_HOME`` it is ``perdure`` in ``XDG_CACHE_HOME`` (where that
    is an absolute path), else in ``%LOCALAPPDATA%`` on Windows, ``~/Library/Caches`` on macOS and
    ``~/.cache`` elsewhere.

    Raises:
        OutputError: the user has no home folder and none of the variables is set.
    """
    try:
        given = os.environ.get("PERDURE_HOME", "").strip()
        if given:
            return Path(given).expanduser().absolute()
        return _user_cache() / "perdure"
    except RuntimeError as problem:
        raise OutputError(f"No home folder to keep the cache in ({problem}). {_MOVE}") from problem


def expanded(path: str | Path) -> Path:
    """A path as it was typed, with ``~`` for the home folder; it may be that of a file called so."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user
        return Path(path)


def _user_cache() -> Path:
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():
        return shared
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path.home() / ".cache"


def _writable(*parts: str) -> Path:
    """Return a folder of the cache, created when it is not there.

    Raises:
        OutputError: it cannot be created or written.
    """
    folder = home().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise OutputError(
            f"The cache folder {folder} cannot be created ({problem.strerror}). {_MOVE}"
        ) from problem
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"The cache folder {folder} cannot be written. {_MOVE}")
    return folder


# Each raises an OutputError where its folder cannot be created or written.
weights_dir = partial(_writable, "weights")
"""Return the folder for backbone weights, created when it is not there."""
archives_dir = partial(_writable, "data", "archives")
"""Return the folder for published files: downloads, and what was put there by hand."""
unpacked_dir = partial(_writable, "data", "unpacked")
"""Return the folder for the content of archives of one's own, created when it is not there."""
shards_dir = partial(_writable, "data", "shards")
"""Return the folder for indices of shards, created when it is not there."""
text_dir = partial(_writable, "text")
"""Return the folder for text features of classes, created when it is not there."""


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, in lower-case hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()
