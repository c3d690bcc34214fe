"""Pairs: threads and processes that meet in one model, one run, one object; nothing may vanish."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from commands import NEW, OPERATIONS, RUN, command, finished_run, saved
from faults import Fault
from forks import Ending, Work, in_child, start

from perdure.errors import PerdureError
from perdure.learner import ContinualClassifier

Meeting = Callable[[Path, Path, random.Random], str]
"""Runs one pair in a folder, given the world of `commands.prepare`; what was wrong, or nothing."""


def pairs(count: int, seed: int, world: Path, place: Path, only: int | None) -> Iterator[Fault]:
    """Let pairs of each kind meet in turn; yield a fault, or an empty one, per trial."""
    for index in range(count) if only is None else (only,):
        chance = random.Random(f"{seed} pairs {index}")
        name, meeting = list(MEETINGS.items())[index % len(MEETINGS)]
        folder = place / "pair"
        folder.mkdir()
        for source in ("d1", "d2", "m"):
            shutil.copytree(world / source, folder / source)
        try:
            yield Fault(index, name, meeting(world, folder, chance))
        finally:
            shutil.rmtree(folder)


def _together(works: list[Work], folder: Path, chance: random.Random) -> list[Ending]:
    """Begin in several processes at once, or almost."""
    waits = [chance.choice((0.0, 0.0, 0.05, 0.2)) for _ in works]

    def late(wait: float, work: Work) -> Any:
        time.sleep(wait)
        return work()

    children = [
        start(partial(late, wait, work), folder) for wait, work in zip(waits, works, strict=True)
    ]
    return [child.end() for child in children]


def _unexpected(endings: list[Ending]) -> str:
    return next((str(one) for one in endings if not one.fine and not one.ours), "")


def _two_lessons(model: str, world: Path, folder: Path, chance: random.Random) -> str:
    """Two lessons into one model: every one that says it is done is in it."""
    more = NEW if model == "n" else ()
    sources = {"d1": "ab", "d2": "cd"}
    works = [command("learn", model, source, "-q", *more) for source in sources]
    endings = _together(works, folder, chance)
    if fault := _unexpected(endings):
        return fault
    known = set(ContinualClassifier.load(folder / model).classes_)
    lessons = zip(sources.values(), endings, strict=True)
    want = {name for names, ending in lessons if ending.fine for name in names}
    want |= set("ab") if model == "m" else set()
    return "" if known == want and want else f"known are {sorted(known)}, not {sorted(want)}"


def _two_runs(world: Path, folder: Path, chance: random.Random) -> str:
    """Two runs into one folder: one is refused, or finds that all is done."""
    work = command("run", "digits/nsp2", *RUN, "--out", "r", "--resume", "-q")
    endings = _together([work, work], folder, chance)
    if fault := _unexpected(endings):
        return fault
    if not any(ending.fine for ending in endings):
        return f"neither was done: {endings[0]}"
    there = world / "reference of a run"
    if not there.exists():
        run = next(one for one in OPERATIONS if one.name == "run")
        there.mkdir()
        in_child(run.work, there)
    return "" if finished_run(folder) == finished_run(there) else "the results are others"


def _save_and_read(world: Path, folder: Path, chance: random.Random) -> str:
    """A model that is read while lessons are saved to it is always whole."""

    def reading() -> int:
        read = 0
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            saved("m")(Path())
            read += 1
        return read

    endings = _together([command("learn", "m", "d2", "-q"), reading, reading], folder, chance)
    return next((str(ending) for ending in endings if not ending.fine), "")


def _teaching_threads(world: Path, folder: Path, chance: random.Random) -> str:
    """Four threads teach one object, others predict: all lessons that were not refused are known."""
    ending = in_child(partial(_teach_in_threads, chance.randrange(2**32)), folder)
    return str(ending.value or "") if ending.fine else str(ending)


def _teach_in_threads(seed: int) -> str:
    pictures: list[Any] = list(
        np.random.default_rng(seed).integers(0, 256, (4, 24, 24), dtype=np.uint8)
    )
    classifier = ContinualClassifier.load("m", device="cpu")
    refused: list[int] = []
    faults: list[str] = []

    def teach(number: int) -> None:
        classifier.learn(pictures, [f"{number}-{k // 2}" for k in range(4)])

    def predict(number: int) -> None:
        for _ in range(3):
            shares = classifier.predict_proba(pictures)
            if not np.allclose(shares.sum(axis=1), 1.0, atol=1e-4):
                raise ValueError("the probabilities do not add up to 1")

    works = [(teach, 0), (predict, -1), (teach, 1), (predict, -2), (teach, 2), (teach, 3)]
    threads = [threading.Thread(target=_noting, args=(*work, refused, faults)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    want = 2 + 2 * (4 - len([number for number in refused if number >= 0]))
    if len(classifier.classes_) != want:
        faults.append(f"{len(classifier.classes_)} classes are known, not {want}")
    return "; ".join(faults)


def _noting(
    work: Callable[[int], object], number: int, refused: list[int], faults: list[str]
) -> None:
    """Do some work, and note its number where it is refused, or the error that is not ours."""
    try:
        work(number)
    except PerdureError:
        refused.append(number)
    except Exception as error:
        faults.append(f"{type(error).__name__}: {error}")


def _two_unpackings(world: Path, folder: Path, chance: random.Random) -> str:
    """Two lessons from one archive at once: each is learned, and the archive unpacked once."""
    shutil.copyfile(world / "photos.zip", folder / "photos.zip")
    works = [command("learn", name, "photos.zip", "-q", *NEW) for name in ("x", "y")]
    endings = _together(works, folder, chance)
    if any(not ending.fine for ending in endings):
        return "; ".join(str(ending) for ending in endings if not ending.fine)
    return "" if saved("x")(folder) == saved("y")(folder) else "they learned different things"


MEETINGS: dict[str, Meeting] = {
    "two first lessons": partial(_two_lessons, "n"),
    "two more lessons": partial(_two_lessons, "m"),
    "two runs in one folder": _two_runs,
    "a lesson and two readers": _save_and_read,
    "threads with one classifier": _teaching_threads,
    "two lessons from one archive": _two_unpackings,
}
