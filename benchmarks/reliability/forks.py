"""Fork server: a trial is a child of one warm process, which has imported torch already."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perdure.errors import PerdureError

Work = Callable[[], Any]
"""What a trial does, in its folder; what it returns must be JSON-ready."""


@dataclass(frozen=True)
class Ending:
    """How a trial ended.

    Attributes:
        code: exit status; minus the signal where one ended it.
        value: what the work returned.
        error: class of the error that came out; empty for none.
        ours: whether that is a `PerdureError`.
        text: what the error says; the traceback of one that is not ours; what a process first
            said which a signal ended.
        hung: whether it was ended because it took too long.
    """

    code: int
    value: Any = None
    error: str = ""
    ours: bool = False
    text: str = ""
    hung: bool = False

    @property
    def fine(self) -> bool:
        """Whether the work was done."""
        return self.code == 0 and not self.error

    def __str__(self) -> str:
        if self.hung:
            return "hangs"
        if self.error:
            return f"{self.error}: {self.text}"
        return f"exit {self.code}" if self.code >= 0 else f"signal {-self.code} {self.text}"


@dataclass
class Child:
    """A trial that runs: its process, the pipe that its ending comes through, its errors' file."""

    pid: int
    pipe: int
    errors: int
    limit: float
    _said: bytes = field(default=b"", repr=False)

    def end(self) -> Ending:
        """Wait until it has ended; it is killed at its limit of seconds."""
        until = time.monotonic() + self.limit
        hung = False
        while True:
            ready, _, _ = select.select([self.pipe], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                os.kill(self.pid, signal.SIGKILL)
                hung = True
                break
            data = os.read(self.pipe, 1 << 16)
            if not data:
                break
            self._said += data
        os.close(self.pipe)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        said = json.loads(self._said) if self._said and not hung else {}
        if code < 0:
            said["text"] = os.pread(self.errors, 2000, 0).decode(errors="replace")
        os.close(self.errors)
        return Ending(code, **said, hung=hung)


def start(work: Work, folder: Path, limit: float = 300.0, memory: int = 0) -> Child:
    """Fork a child that does some work in a folder.

    Args:
        work: what it does.
        folder: its working directory.
        limit: seconds after which it counts as hanging.
        memory: bytes that it may allocate beyond what it has; 0 for any number.
    """
    reading, writing = os.pipe()
    errors = os.memfd_create("errors")
    with warnings.catch_warnings():
        # Of threads that a fork leaves behind: ours wait for nothing that a child would need.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading, errors, limit)
    try:
        os.close(reading)
        _quieten(errors)
        os.chdir(folder)
        if "torch" in sys.modules:
            # Its pool of threads is made anew in a child, at once: two threads that ask for it
            # together end the process ("Invalid thread pool", pytorch's ParallelOpenMP.cpp).
            sys.modules["torch"].set_num_threads(1)
        if memory:
            limit_memory(memory)
        said = json.dumps(_tried(work)).encode()
        while said:
            said = said[os.write(writing, said) :]
        os._exit(0)
    finally:
        os._exit(70)


def in_child(work: Work, folder: Path, limit: float = 300.0, memory: int = 0) -> Ending:
    """Do some work in a child, and wait for its end."""
    return start(work, folder, limit, memory).end()


def limit_memory(more: int) -> None:
    """Let this process allocate no more than so many bytes beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _tried(work: Work) -> dict[str, Any]:
    try:
        return {"value": work()}
    except PerdureError as error:
        return {"error": type(error).__name__, "ours": True, "text": str(error)}
    except BaseException as error:
        return {"error": type(error).__name__, "text": traceback.format_exc()}


def _quieten(errors: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream, to in enumerate((nowhere, nowhere, errors)):
        os.dup2(to, stream)
    faulthandler.enable(errors)
