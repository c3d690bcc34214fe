"""Processes meet, or are told where they looked and whom they miss."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from perdure.engine import rendezvous
from perdure.engine.rendezvous import Meeting, meet
from perdure.errors import RankError

LATE = timedelta(minutes=5)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "ANSWER", 1.0)
    monkeypatch.setattr(rendezvous, "QUIET", 0.5)
    monkeypatch.setattr(rendezvous, "_PAUSE", 0.05)
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)


@pytest.fixture
def port() -> int:
    """One that nobody has, below those that the system gives to whoever asks for any."""
    for found in range(20_000 + os.getpid() % 5_000, 32_000):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", found))
            return found
    raise AssertionError("all are taken")


@contextlib.contextmanager
def listening(queue: int) -> Iterator[int]:
    """A port that takes connections and says nothing; with a full queue, not even that."""
    with contextlib.ExitStack() as open_:
        server = open_.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(queue)
        for _ in range(0 if queue else 4):
            waiting = open_.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(server.getsockname())
        yield server.getsockname()[1]


def test_port_where_nothing_listens_is_named(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    expected = (
        rf"Rank 1 of 3 found nobody at 127\.0\.0\.1:{port} for 1 seconds \(.*refused\)\. Check"
    )
    with pytest.raises(RankError, match=expected):
        meet(Meeting(1, 3, "127.0.0.1", port), LATE)
    assert f"note: rank 1 of 3 waits for rank 0 at 127.0.0.1:{port} (" in capfd.readouterr().err


def test_host_that_does_not_answer_is_named() -> None:
    with (
        listening(0) as port,
        pytest.raises(RankError, match=rf"at 127\.0\.0\.1:{port} .*timed out"),
    ):
        meet(Meeting(1, 2, "127.0.0.1", port), LATE)


NO_HOST = "a" * 70
"""A name that none can have, and that no server of names is asked for."""


def test_host_that_there_is_not_is_named(port: int) -> None:
    with pytest.raises(RankError, match=f"found nobody at {NO_HOST}:"):
        meet(Meeting(1, 2, NO_HOST, port), LATE)


def test_first_rank_that_its_address_does_not_lead_to_is_told(port: int) -> None:
    with pytest.raises(RankError, match="not reached by its own address"):
        meet(Meeting(0, 2, NO_HOST, port), LATE)


@pytest.mark.long
def test_port_of_something_else_is_named() -> None:
    with (
        listening(9) as port,
        pytest.raises(RankError, match=r"something else .*no word for 1 sec"),
    ):
        meet(Meeting(1, 2, "127.0.0.1", port), LATE)


def test_late_comers_are_waited_for_by_name(
    port: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ranks 1 and 2 come once it was told that they have not."""
    monkeypatch.setattr(rendezvous, "ANSWER", 60.0)
    told = threading.Event()
    tell = rendezvous._tell

    def noting(text: str) -> None:
        tell(text)
        told.set()

    monkeypatch.setattr(rendezvous, "_tell", noting)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(meet, Meeting(0, 3, "127.0.0.1", port), LATE)
        assert told.wait(60)
        others = [pool.submit(meet, Meeting(r, 3, "127.0.0.1", port), LATE) for r in (1, 2)]
        assert [len(one.result(60)) for one in (first, *others)] == [2, 1, 1]
    expected = (
        f"ranks 1, 2 have not come to 127.0.0.1:{port} yet; the others wait for up to 5 minutes."
    )
    assert expected in capfd.readouterr().err


def test_those_who_have_not_come_are_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "ANSWER", 60.0)
    with pytest.raises(RankError, match=r"waited for 0 minutes at .*:\d+, and rank 1 has not come"):
        meet(Meeting(0, 2, "127.0.0.1", port), timedelta(seconds=0.2))
