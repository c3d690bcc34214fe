"""Kills and failing calls at the k-th file-system call of every operation that writes."""

from __future__ import annotations

import errno
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from calls import Act, act_at, count_calls, fail, kill, tear
from commands import OPERATIONS, Operation, lay_out, names
from faults import Fault
from forks import Ending, Work, in_child

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)


@dataclass(frozen=True)
class Reference:
    """What an operation does when nothing interrupts it.

    Attributes:
        calls: the file-system calls that it makes.
        states: of the folder before, after it, and after it was done again.
        names: files and folders at the end of each.
        refused: whether it is refused the second time.
    """

    calls: list[str]
    states: tuple[Any, Any, Any]
    names: tuple[set[str], set[str], set[str]]
    refused: bool


def make_reference(operation: Operation, world: Path, place: Path) -> Reference:
    """Do an operation twice, undisturbed.

    Raises:
        RuntimeError: it fails.
    """
    folder = lay_out(operation, world, place)
    states, found = [operation.state(folder)], [names(folder)]

    def counted() -> list[str]:
        calls = count_calls(folder)
        operation.work()
        return calls

    first = in_child(counted, folder)
    if not first.fine:
        raise RuntimeError(f"'{operation.name}' fails undisturbed: {first}")
    states.append(operation.state(folder))
    found.append(names(folder))
    second = in_child(operation.work, folder)
    states.append(operation.state(folder))
    found.append(names(folder))
    shutil.rmtree(folder)
    return Reference(first.value, tuple(states), tuple(found), not second.fine)  # type: ignore[arg-type]


def kills(
    count: int,
    seed: int,
    world: Path,
    place: Path,
    only: int | None = None,
    operations: Sequence[Operation] = OPERATIONS,
) -> Iterator[Fault]:
    """Kill operations in turn, at one call after the other; yield a fault or none per trial."""
    return _trials(
        range(count) if only is None else (only,), seed, world, place, operations, _killed
    )


def write_errors(
    count: int,
    seed: int,
    world: Path,
    place: Path,
    only: int | None = None,
    operations: Sequence[Operation] = OPERATIONS,
) -> Iterator[Fault]:
    """Let a call fail, or a file grow no further; yield a fault, or an empty one, per trial."""
    return _trials(
        range(count) if only is None else (only,), seed, world, place, operations, _failed
    )


Outcome = tuple[str, str]
"""What was done, and what was wrong; empty for nothing."""
Trial = Callable[[Operation, Reference, int, random.Random, Path], Outcome]


def _trials(
    numbers: Sequence[int],
    seed: int,
    world: Path,
    place: Path,
    operations: Sequence[Operation],
    trial: Trial,
) -> Iterator[Fault]:
    references: dict[str, Reference] = {}
    for index in numbers:
        chance = random.Random(f"{seed} {trial.__name__} {index}")
        operation = operations[index % len(operations)]
        if operation.name not in references:
            references[operation.name] = make_reference(operation, world, place / "reference")
        reference = references[operation.name]
        # Every round begins elsewhere, so that all calls are met before one is met twice.
        step = (index // len(operations) * 7 + seed) % len(reference.calls)
        folder = lay_out(operation, world, place / "trial")
        try:
            yield Fault(index, *trial(operation, reference, step, chance, folder))
        finally:
            shutil.rmtree(folder)


def _disturbed(folder: Path, number: int, act: Act, work: Work) -> Any:
    act_at(folder, number, act)
    return work()


def _killed(
    operation: Operation, reference: Reference, number: int, chance: random.Random, folder: Path
) -> Outcome:
    act = chance.choice((kill, tear))
    ending = in_child(partial(_disturbed, folder, number, act, operation.work), folder)
    what = f"{operation.name}, killed at call {number} ({reference.calls[number]}, {act.__name__})"
    if ending.code != -signal.SIGKILL:
        return what, f"it was not killed there, but: {ending}"
    return _compared(what, operation, reference, folder)


def _failed(
    operation: Operation, reference: Reference, number: int, chance: random.Random, folder: Path
) -> Outcome:
    code = chance.choice((*ERRORS, 0))
    if code:
        call = reference.calls[number]
        name = errno.errorcode[code]
        what = f"{operation.name}, {name} at call {number} ({call})"
        work = partial(_disturbed, folder, number, fail(code), operation.work)
    else:
        most, call = chance.choice((0, 100, 1000, 5000, 30_000)), ""
        what = f"{operation.name}, files of at most {most} bytes"
        work = partial(_limited, most, operation.work)
    ending = in_child(work, folder)
    if ending.error and not ending.ours:
        return what, str(ending)
    if not ending.error and ending.code:
        return what, str(ending)
    sync = call.startswith("fsync-file") or (
        call.startswith("fsync-folder") and code != errno.EACCES
    )
    if ending.fine and sync:
        return what, "a sync that failed is reported as success"
    if ending.fine and operation.state(folder) != reference.states[1]:
        return what, "success is reported, and the result is another"
    left = names(folder) - reference.names[0] - reference.names[1]
    left = {one for one in left if ".tmp" in one or ".unpacking" in one}
    if left and not call.startswith(("os.remove", "os.rmdir")):
        return what, f"left behind: {sorted(left)[:3]}"
    return _compared(what, operation, reference, folder)


def _limited(most: int, work: Work) -> Any:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    return work()


def _compared(what: str, operation: Operation, reference: Reference, folder: Path) -> Outcome:
    """What is there after an interruption is the old or the new, and the command can be repeated."""
    try:
        found = operation.state(folder)
    except Exception as error:
        return what, f"what is there cannot be read: {error}"
    before, after, twice = reference.states
    if found not in (before, after):
        return what, "what is there is neither the old nor the new"
    again: Ending = in_child(operation.work, folder)
    new = found == after
    if not again.fine and not (new and reference.refused and again.ours):
        return what, f"it cannot be repeated: {again}"
    if operation.state(folder) not in ((twice, after) if new else (after,)):
        return what, "repeated, it ends otherwise than undisturbed"
    if not again.fine:  # refused, so nothing was written: files of the new model may wait still
        return what, ""
    left = names(folder) - reference.names[2] - reference.names[1]
    return what, f"left behind: {sorted(left)[:3]}" if left else ""
