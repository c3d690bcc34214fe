"""Rendezvous of the processes of a run: the address of rank 0 answers, and every rank is there.

torch.distributed waits for both as long as for any exchange, and tells neither what nor whom for.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

from perdure.errors import RankError
from perdure.wording import listed

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore  # torch.distributed's, where its type is

ANSWER = 120.0
"""Seconds in which the address of rank 0 must answer."""
QUIET = 10.0
"""Seconds of waiting without a word."""
_ATTEMPT = 5.0
_PAUSE = 0.5


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a run meet.

    Attributes:
        rank: number of this process.
        count: number of processes.
        host: of rank 0, a name or an address.
        port: there.
        served: whether what has started the processes answers there, as ``torchrun`` does; else rank 0.
    """

    rank: int
    count: int
    host: str
    port: int
    served: bool = False

    @property
    def place(self) -> str:
        """Host and port, as errors name them."""
        return f"{self.host}:{self.port}"


def meet(meeting: Meeting, late: timedelta) -> list[TCPStore]:
    """Wait until rank 0 answers, and then until every rank has come.

    Args:
        meeting: where, and who this process is.
        late: how long late-comers are waited for, once rank 0 answers.

    Returns:
        What rank 0 answers by, for as long as it is held: until the process group has its own.

    Raises:
        RankError: nothing answers, something else does, or ranks have not come.
        RuntimeError: the port is taken.
    """
    held = []
    if meeting.rank == 0 and not meeting.served:
        held.append(_store(meeting, "127.0.0.1", serve=True))
    _knock(meeting)
    held.append(_connect(meeting))
    _await_all(held[-1], meeting, late)
    return held


def _connect(meeting: Meeting) -> TCPStore:
    """Connect to what answers.

    Raises:
        RankError: it is not this run; of what says nothing, torch.distributed would wait for a word.
    """
    found: Queue[TCPStore | Exception] = Queue()

    def connect() -> None:
        try:
            found.put(_store(meeting, meeting.host))
        except RuntimeError as error:
            found.put(error)

    Thread(target=connect, daemon=True).start()
    try:
        answer = found.get(timeout=ANSWER)
    except Empty:
        answer = TimeoutError(f"no word for {ANSWER:.0f} seconds")
    if not isinstance(answer, Exception):
        return answer
    reason = str(answer).strip().partition("\n")[0]
    raise RankError(
        f"Rank {meeting.rank} of {meeting.count} finds something else than this run at "
        f"{meeting.place} ({reason}). Set MASTER_PORT to a free port of that machine, the same on all."
    ) from answer


def _store(meeting: Meeting, host: str, *, serve: bool = False) -> TCPStore:
    dist: Any = importlib.import_module("torch.distributed")  # whose stubs do not export it
    store: TCPStore = dist.TCPStore(
        host,
        meeting.port,
        meeting.count,
        is_master=serve,
        timeout=timedelta(seconds=ANSWER / 4),  # it may try for three times as long
        wait_for_workers=False,
        multi_tenant=True,  # the process group's own, later, answers by the same port
    )
    return store


def _knock(meeting: Meeting) -> None:
    """Wait until the address accepts a connection.

    Raises:
        RankError: it does not within `ANSWER`.
    """
    begun, told = time.monotonic(), False
    while True:
        left = begun + ANSWER - time.monotonic()
        try:
            socket.create_connection(
                (meeting.host, meeting.port), max(0.1, min(_ATTEMPT, left))
            ).close()
        except (OSError, UnicodeError) as error:  # of a name that is none
            reason = getattr(error, "strerror", None) or str(error)
        else:
            return
        if left <= 0:
            raise _unanswered(meeting, reason)
        if not told and ANSWER - left >= QUIET:
            told = True
            _tell(
                f"rank {meeting.rank} of {meeting.count} waits for rank 0 at {meeting.place} "
                f"({reason}), {left:.0f} seconds more."
            )
        time.sleep(_PAUSE)


def _unanswered(meeting: Meeting, reason: str) -> RankError:
    who = f"Rank {meeting.rank} of {meeting.count}"
    if meeting.rank == 0 and not meeting.served:
        return RankError(
            f"{who} is not reached by its own address, {meeting.place} ({reason}, for {ANSWER:.0f} "
            "seconds). Set MASTER_ADDR to an address of this machine by which the others reach it."
        )
    return RankError(
        f"{who} found nobody at {meeting.place} for {ANSWER:.0f} seconds ({reason}). Check that rank 0 "
        "is started on that machine, no later than that after the others; that MASTER_ADDR and "
        "MASTER_PORT are the same everywhere; and that no firewall closes the port."
    )


def _await_all(store: TCPStore, meeting: Meeting, late: timedelta) -> None:
    """Wait for every rank.

    Raises:
        RankError: some have not come, or rank 0 has gone.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    keys = [f"perdure/{attempt}/{rank}" for rank in range(meeting.count)]
    begun, told = time.monotonic(), False
    try:
        store.set(keys[meeting.rank], "here")
        while not store.check(keys):
            waited = time.monotonic() - begun
            if waited >= late.total_seconds():
                raise RankError(
                    f"Rank {meeting.rank} of {meeting.count} has waited for {_minutes(late)} at "
                    f"{meeting.place}, and {_missing(store, keys)} not come. Start all processes at "
                    "about the same time; what those wrote says why they ended."
                )
            if not told and waited >= QUIET and meeting.rank == 0:
                told = True
                _tell(
                    f"{_missing(store, keys)} not come to {meeting.place} yet; the others wait for "
                    f"up to {_minutes(late)}."
                )
            time.sleep(_PAUSE)
    except RuntimeError as error:
        raise RankError(
            f"Rank {meeting.rank} of {meeting.count} stops: rank 0 at {meeting.place} has ended while "
            "others were still to come. What it wrote says why."
        ) from error


def _missing(store: TCPStore, keys: list[str]) -> str:
    ranks = [str(rank) for rank, key in enumerate(keys) if not store.check([key])]
    return f"rank {ranks[0]} has" if len(ranks) == 1 else f"ranks {listed(ranks)} have"


def _minutes(wait: timedelta) -> str:
    return f"{wait.total_seconds() / 60:.0f} minutes"


def _tell(text: str) -> None:
    sys.stderr.write(f"note: {text}\n")
    sys.stderr.flush()
