"""Mutated input of every kind: only a `PerdureError` may come out, in bounded time and memory.

A child makes many trials, each under a limit of CPU time, all under a limit of memory; where one ends
the child, the next child goes on after it.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from faults import Fault
from forks import in_child
from inputs import KINDS, Kind, make_inputs
from mutators import mutate

from perdure.errors import PerdureError

BATCH = 100
"""Trials of a child."""
SECONDS = 20.0
"""CPU time of a trial, after which it counts as hanging: most take milliseconds."""
MEMORY = 2**30
"""Bytes that a child may allocate; what is probed has some thousand."""
LONGEST = 900.0
"""Seconds of a batch, after which it waits for something that does not come."""


def mutations(
    count: int,
    seed: int,
    world: Path,
    place: Path,
    only: int | None = None,
    kinds: Sequence[Kind] = KINDS,
) -> Iterator[Fault]:
    """Mutate input of each kind in turn; yield a fault, or an empty one, per trial."""
    inputs = world / "inputs"
    if not inputs.exists():
        inputs.mkdir()
        made = in_child(partial(make_inputs, world, inputs, kinds), world)
        if not made.fine:
            raise RuntimeError(f"The inputs cannot be made: {made}")
    # Kinds in blocks: what one of them caches serves the next trial.
    numbers = sorted(range(count), key=lambda n: n % len(kinds)) if only is None else [only]
    while numbers:
        batch, work = numbers[:BATCH], place / "mutated"
        work.mkdir()
        log = work / "log"
        ending = in_child(
            partial(_tried, batch, seed, kinds, inputs, work, log), work, LONGEST, MEMORY
        )
        lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
        shutil.rmtree(work)
        ended = [line for line in lines if "why" in line]
        for line in ended:
            yield Fault(line["number"], line["what"], line["why"])
        if len(ended) < len(batch):
            begun = next((line for line in lines[::-1] if "why" not in line), None)
            number = batch[len(ended)]
            what = begun["what"] if begun and begun["number"] == number else "before it began"
            hung = ending.code == -signal.SIGPROF or ending.hung
            why = "hangs" if hung else str(ending)
            yield Fault(number, what, why)
            numbers = numbers[len(ended) + 1 :]
        else:
            numbers = numbers[len(batch) :]


def _tried(
    numbers: list[int], seed: int, kinds: Sequence[Kind], inputs: Path, work: Path, log: Path
) -> None:
    """Make the trials of a batch, each noted before it begins and when it has ended."""
    with log.open("a", encoding="utf-8", buffering=1) as noted:
        for number in numbers:
            trial = _Trial.drawn(number, seed, kinds, inputs, work / "input")
            note = {"number": number, "what": trial.what}
            noted.write(json.dumps(note) + "\n")
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            why = trial.outcome()
            signal.setitimer(signal.ITIMER_PROF, 0)
            shutil.rmtree(trial.folder)
            noted.write(json.dumps({**note, "why": why}) + "\n")


@dataclass(frozen=True)
class _Trial:
    what: str
    probe: Callable[[Path], Any]
    folder: Path

    @classmethod
    def drawn(
        cls, number: int, seed: int, kinds: Sequence[Kind], inputs: Path, folder: Path
    ) -> _Trial:
        """A copy of an input, one of whose files is mutated."""
        chance = random.Random(f"{seed} {number}")
        kind: Kind = kinds[number % len(kinds)]
        shutil.copytree(inputs / kind.name, folder)
        paths = sorted(p for p in folder.rglob("*") if p.is_file() and kind.mutates(p))
        path = chance.choice(paths)
        path.write_bytes(mutate(path.read_bytes(), path.suffix, chance))
        forged = kind.forge is not None and chance.random() < 0.5
        if forged and kind.forge is not None:
            kind.forge(folder)
        name = path.relative_to(folder)
        return cls(f"{kind.name}, {name}{', forged' if forged else ''}", kind.probe, folder)

    def outcome(self) -> str:
        """What is wrong with what comes out; empty for nothing."""
        try:
            self.probe(self.folder)
        except PerdureError as error:
            return "" if str(error).strip() else f"{type(error).__name__} says nothing"
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)
            ours = [f for f in place if "perdure" in f.filename and "benchmarks" not in f.filename]
            where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
            return f"{type(error).__name__}: {str(error)[:150]!r} at {where}"
        return ""
