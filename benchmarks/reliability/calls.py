"""File-system calls of a process, counted: at the k-th it is killed, or told that the call failed.

Python's audit events tell of every file that is opened, renamed or removed, before it happens;
what has no event, `os.fsync` and `os.sync`, is replaced. Nothing is really synced: a kill leaves
what the kernel holds. An audit hook cannot be taken away, so this belongs into a forked child.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}
EVENTS |= {"os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

Act = Callable[[str, int | None], None]
"""What happens at a call, given its name and, of a sync, the file's descriptor."""


def count_calls(folder: Path) -> list[str]:
    """Return a list that every later call of this process on files within a folder is added to."""
    calls: list[str] = []
    _watch(folder, lambda name, _: calls.append(name))
    return calls


def act_at(folder: Path, number: int, act: Act) -> None:
    """Let something happen right before a call of this process, counted from 0, happens."""
    count = -1

    def one(name: str, descriptor: int | None) -> None:
        nonlocal count
        count += 1
        if count == number:
            act(name, descriptor)

    _watch(folder, one)


def kill(name: str, descriptor: int | None) -> None:
    """End this process on the spot."""
    os.kill(os.getpid(), signal.SIGKILL)


def tear(name: str, descriptor: int | None) -> None:
    """End this process; of a file that was to be synced only the first half is there."""
    if descriptor is not None and Path(f"/proc/self/fd/{descriptor}").is_file():
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    kill(name, descriptor)


def fail(number: int) -> Act:
    """Let the call fail with an error number."""

    def act(name: str, descriptor: int | None) -> None:
        raise OSError(number, os.strerror(number), name.partition(" ")[2])

    return act


def _watch(folder: Path, act: Act) -> None:
    root = os.path.realpath(folder)
    busy = False

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy or event not in EVENTS or not args or isinstance(args[0], int):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & WRITES):
            return
        busy = True
        try:
            path = str(Path(os.fsdecode(args[0])).absolute())
            if path.startswith(root + os.sep):
                act(f"{event} {os.path.relpath(path, root)}", None)
        finally:
            busy = False

    def fsync(fd: Any) -> None:
        nonlocal busy
        descriptor = fd if isinstance(fd, int) else fd.fileno()
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if path == root or path.startswith(root + os.sep):
            busy = True
            try:
                kind = "folder" if Path(path).is_dir() else "file"
                act(f"fsync-{kind} {os.path.relpath(path, root)}", descriptor)
            finally:
                busy = False

    os.fsync = fsync
    os.sync = lambda: None
    sys.addaudithook(hook)
