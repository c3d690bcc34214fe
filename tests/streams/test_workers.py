"""How many processes read, and what happens when one dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import pytest
from PIL import Image

from perdure.errors import ConfigError, StreamError
from perdure.streams import ArrayImages, Subset, batches, workers
from tests.streams.made import cut_up

MANY, BATCH = 10**6, 128 * 3 * 224**2
SOME: dict[str, Any] = {"side": "train", "img_size": 8, "seed": 0, "task": 0}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 cores with much shared memory."""
    monkeypatch.setattr(workers, "usable_cores", lambda: 16)
    monkeypatch.setattr(workers, "_free_shared_memory", lambda: 2**36)
    monkeypatch.setattr(workers, "_forked", lambda: True)


@pytest.mark.parametrize(("cores", "found"), [(1, 0), (2, 0), (3, 2), (4, 3), (9, 8), (64, 8)])
def test_auto_leaves_a_core_to_the_learner(
    monkeypatch: pytest.MonkeyPatch, machine: None, cores: int, found: int
) -> None:
    monkeypatch.setattr(workers, "usable_cores", lambda: cores)
    assert workers.worker_count("auto", MANY, BATCH) == found


def test_auto_starts_no_more_than_are_worth_it(machine: None) -> None:
    found = [workers.worker_count("auto", images, BATCH) for images in (0, 127, 128, 700, 2000)]
    assert found == [0, 0, 1, 5, 8]


@pytest.mark.parametrize(("method", "found"), [("fork", 8), ("spawn", 0), ("forkserver", 0)])
def test_auto_starts_none_where_they_are_not_forked(
    monkeypatch: pytest.MonkeyPatch, method: str, found: int
) -> None:
    monkeypatch.setattr(workers, "usable_cores", lambda: 16)
    monkeypatch.setattr(workers, "_free_shared_memory", lambda: 2**36)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: method)
    assert workers.worker_count("auto", MANY, BATCH) == found


def test_auto_keeps_to_the_shared_memory_of_a_container(
    monkeypatch: pytest.MonkeyPatch, machine: None
) -> None:
    monkeypatch.setattr(workers, "_free_shared_memory", lambda: 64 * 2**20)
    assert workers.worker_count("auto", MANY, BATCH) == 0
    # Each of them has two batches under way, and half stays free.
    assert workers.worker_count("auto", MANY, 4 * 2**20) == 4


def test_a_number_is_taken_as_it_is(machine: None) -> None:
    assert workers.worker_count(0, MANY, BATCH) == 0
    assert workers.worker_count(40, 1, BATCH) == 40
    with pytest.raises(
        ConfigError, match=r"workers=-2 is negative\. Allowed: 0 and above, or auto"
    ):
        workers.worker_count(-2, MANY, BATCH)


def test_this_machine_is_asked() -> None:
    assert 1 <= workers.usable_cores() <= (os.cpu_count() or 1)
    assert workers._free_shared_memory() > 0


def test_a_worker_that_was_killed_is_an_error_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent = os.getpid()

    def killed(self: ArrayImages, index: int) -> Image.Image:
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(ArrayImages, "image", killed)
    with pytest.raises(
        StreamError, match=r"ended from outside .*DataLoader worker.* Type workers=0"
    ):
        next(batches(_subset(), 4, workers=1, epoch=0, transform="flip_crop", **SOME))


def _subset() -> Subset:
    return cut_up("synthetic", "2x8", tasks=(2,), images_per_class=2).tasks[0].train
