"""Atomic file writes: a file is replaced whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from perdure.errors import OutputError

FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""What the system says of a full disk or a used-up quota."""
_DENIED = {errno.EACCES, errno.EPERM}


def atomic_write(path: Path | str, data: bytes) -> None:
    """Write ``data`` to ``path``, replacing the old file; on failure nothing changes.

    The bytes go to a hidden file beside the target, reach the disk, and only then take its name.
    A symbolic link is followed, so that the link stays and its target is replaced. The folder must
    exist.

    Args:
        path: file to write.
        data: its whole content.

    Raises:
        OutputError: it cannot be written; the old content is intact and no temporary file is left.
    """
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".perdure-{secrets.token_hex(8)}.tmp"
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "", str(target))
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(_explain(Path(path), len(data), error)) from error
        raise
    sync_folder(target.parent)


def check_place(path: Path) -> Path:
    """Check that a folder can be written, or created; nothing is created.

    Returns:
        The nearest part of the path that exists.

    Raises:
        OutputError: that part is a file, or cannot be written.
    """
    nearest = next(part for part in (path, *path.absolute().parents) if part.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        reason = "cannot be written" if nearest.is_dir() else "is a file, not a folder"
        raise OutputError(f"'{path}' cannot be used: '{nearest}' {reason}. Choose another --out.")
    return nearest


def make_folder(folder: Path) -> Path:
    """Create a folder for results, with its parents.

    Raises:
        OutputError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder '{folder}' cannot be used ({error.strerror}). Choose another --out."
        ) from error
    return folder


def sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut, where the system can do that for folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _explain(path: Path, size: int, error: OSError) -> str:
    if error.errno in FULL:
        cause = f"the disk is full or your quota is used up ({size:,} bytes were to be written)"
        advice = "Free some space or choose another folder"
    elif error.errno == errno.EROFS:
        cause, advice = "the file system is read-only", "Choose another folder"
    elif error.errno == errno.EISDIR:
        cause = "a folder of that name exists"
        advice = "Choose another name, or move the folder away"
    elif error.errno in (errno.ENOTDIR, errno.ENOENT, errno.EEXIST):
        obstacle = _not_a_folder(path)
        cause = f"'{obstacle}' is not a folder" if obstacle.exists() else f"'{obstacle}' is missing"
        advice = f"Choose another folder, or create it with: mkdir -p '{path.parent}'"
    elif error.errno in _DENIED:
        cause = f"the system does not permit you to write in '{path.parent}'"
        advice = "Choose another folder, or change its permissions"
    else:
        cause = os.strerror(error.errno) if error.errno else str(error)
        advice = "Choose another folder or name"
    return f"Cannot write '{path}': {cause}. {advice}. Nothing was changed."


def _not_a_folder(path: Path) -> Path:
    """Return the outermost part above the file that is missing or is no folder."""
    for part in reversed(path.parents):
        if not part.is_dir():
            return part
    return path.parent
