"""Atomic file writes: a file is replaced whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import secrets
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from perdure.errors import BusyError, OutputError

FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""What the system says of a full disk or a used-up quota."""
_DENIED = {errno.EACCES, errno.EPERM}
_UNABLE = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}
"""What systems answer that cannot sync a folder at all."""

LOCK = ".lock"
MAKING = ".making"
"""Ending of a folder that is being made, see `atomic_folder`."""
_TEMPORARY = re.compile(r"\.perdure-([0-9a-f]{8})-(\d+)-([0-9a-f]{8})-[0-9a-f]{8}\.tmp")
_TEMPORARY_BEFORE = re.compile(r"\.perdure-[0-9a-f]{16}\.tmp")
_MACHINE = f"{uuid.uuid5(uuid.NAMESPACE_DNS, platform.node()).int >> 96:08x}"
_START = secrets.token_hex(4)
_OLD = 24 * 60 * 60
"""Seconds after which a temporary file is a leftover whoever wrote it: no single write lasts a day."""


def atomic_write(path: Path | str, data: bytes) -> None:
    """Write ``data`` to ``path``, replacing the old file; on failure nothing changes.

    The bytes go to a hidden file beside the target, reach the disk, and only then take its name.
    A symbolic link is followed, so that the link stays and its target is replaced. The folder must
    exist.

    Raises:
        OutputError: it cannot be written; the old content is intact and no temporary file is left.
    """
    target = Path(os.path.realpath(path))
    name = f".perdure-{_MACHINE}-{os.getpid()}-{_START}-{secrets.token_hex(4)}.tmp"
    temporary = target.parent / name
    sweep(target.parent)
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


@contextlib.contextmanager
def atomic_folder(folder: Path, failed: str) -> Iterator[Path]:
    """Make a folder whole or not at all: the one that is given takes its name when the block ends.

    Only under a lock on its name: what a killed process left (`MAKING`) is removed first. What is put
    in must have reached the disk by then: by `atomic_write`, or `sync_all` at the end.

    Args:
        folder: not there, or empty; its parent must exist.
        failed: what to say where it cannot be written, as ``The index of 'shards' could not be
            written``.

    Raises:
        OutputError: it cannot be written; nothing of it is left.
    """
    work = folder.with_name(f".{folder.name}{MAKING}")
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir()
        yield work
        work.replace(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise OutputError(
            f"{failed} in '{folder.parent}' ({error.strerror or error}). Free some space, or set "
            "PERDURE_HOME to another folder."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def make_once(folder: Path, failed: str, fill: Callable[[Path], None]) -> None:
    """Make a folder of the cache whole where it is not there; whoever comes second waits.

    What killed processes left of it and of those beside it is removed first.

    Args:
        folder: its parent must exist.
        failed: as for `atomic_folder`.
        fill: puts the content into the folder that it is given.

    Raises:
        OutputError: it cannot be written; nothing of it is left.
    """
    with FileLock(folder.with_name(LOCK)):
        for left in folder.parent.glob(f".*{MAKING}"):
            shutil.rmtree(left, ignore_errors=True)
        if not folder.is_dir():
            with atomic_folder(folder, failed) as work:
                fill(work)


def sync_all() -> None:
    """Wait until everything written has reached its disk, where the system can: for many files."""
    if hasattr(os, "sync"):
        os.sync()


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
        raise OutputError(f"'{path}' cannot be used: '{nearest}' {reason}. Choose another place.")
    return nearest


def check_file(path: Path) -> None:
    """Check that a file can be written where it is to lie; nothing is created.

    Raises:
        OutputError: its folder is not there or cannot be written.
    """
    if not path.parent.is_dir():
        raise OutputError(
            f"There is no folder '{path.parent}' to write '{path.name}' to. Create it with: "
            f"mkdir -p '{path.parent}'"
        )
    check_place(path.parent)


def make_folder(folder: Path) -> Path:
    """Create a folder for results, with its parents.

    Raises:
        OutputError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder '{folder}' cannot be used ({error.strerror}). Choose another place."
        ) from error
    return folder


@contextlib.contextmanager
def alone(folder: Path, task: str) -> Iterator[None]:
    """Create a folder if need be, and keep every other process from working in it.

    A folder that was created for it and stayed empty is removed again.

    Args:
        folder: the folder to lock.
        task: what is done in it, for the error: "saving a model".

    Raises:
        BusyError: another process is at work in it.
        OutputError: it cannot be used.
    """
    created = not folder.exists()
    outermost = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One per path in a process: who keeps others away may write meanwhile.
        lock = FileLock(folder / LOCK, is_singleton=True)
        outermost = not lock.is_locked
        lock.acquire(blocking=False)
    except Timeout:
        raise BusyError(
            f"Another process is {task} in '{folder}'. Wait until it is done, or choose another "
            "folder."
        ) from None
    except OSError as error:
        raise OutputError(
            f"'{folder}' cannot be written ({error.strerror}). Choose another folder."
        ) from error
    try:
        yield
    finally:
        # Removed while it is held: whoever opened it meanwhile sees that it has no name any more.
        with contextlib.suppress(OSError):
            if outermost:
                (folder / LOCK).unlink()
            if created:
                folder.rmdir()  # only where it is empty
        lock.release()


def is_leftover(name: str) -> bool:
    """Tell whether a file's name is that of a lock or of a temporary file of `atomic_write`."""
    return name == LOCK or any(kind.fullmatch(name) for kind in (_TEMPORARY, _TEMPORARY_BEFORE))


def sweep(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".perdure-") and _is_abandoned(Path(entry)):
                with contextlib.suppress(OSError):
                    os.remove(entry)  # noqa: PTH107


def _is_abandoned(path: Path) -> bool:
    named = _TEMPORARY.fullmatch(path.name)
    if named is None and not _TEMPORARY_BEFORE.fullmatch(path.name):
        return False
    if time.time() - path.lstat().st_mtime > _OLD:
        return True
    # Of another machine, and on Windows, where asking would end the process, nothing more is known.
    if named is None or named[1] != _MACHINE or os.name != "posix":
        return False
    process = int(named[2])
    return named[3] != _START if process == os.getpid() else not lives(process)


def lives(process: int) -> bool:
    """Tell whether a process of this machine lives; of Windows, where asking ends it, always True."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Make new names last through a power cut, where the system can do that for folders.

    Raises:
        OutputError: it can, and failed.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise OutputError(
                f"'{folder}' was written, but may not last through a power cut: the system could "
                f"not sync the folder ({error.strerror}). Check the disk, and write it again."
            ) from error
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
    return next((part for part in reversed(path.parents) if not part.is_dir()), path.parent)
