"""Reliability campaign: kills, write errors, mutated input, threads and processes in pairs.

    python benchmarks/reliability/campaign.py                      everything
    python benchmarks/reliability/campaign.py kills --trials 20
    python benchmarks/reliability/campaign.py kills --seed 3 --only 17

Prints a line per fault and one table, and exits with 1 where there was a fault, or not all was done.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Before torch is imported: several threads would not survive a fork.
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", PERDURE_HOME="home")

from commands import prepare
from faults import Fault
from kills import kills, write_errors
from mutations import mutations
from pairs import pairs

Trials = Callable[[int, int, Path, Path, int | None], Iterator[Fault]]

KINDS: dict[str, tuple[Trials, int]] = {
    "kills": (kills, 260),
    "write errors": (write_errors, 100),
    "mutations": (mutations, 5000),
    "pairs": (pairs, 36),
}
"""What is done, and how often by default."""


@dataclass
class Row:
    """Row of the table.

    Attributes:
        kind: what was done.
        wanted: how many trials were to be made.
        made: how many were.
        faults: how many found one.
        seconds: time that they took.
    """

    kind: str
    wanted: int
    made: int = 0
    faults: int = 0
    seconds: float = 0.0


def campaign(
    kinds: dict[str, int], seed: int, only: int | None = None, minutes: float = 30.0
) -> list[Row]:
    """Run trials of some kinds, and print their faults; Ctrl-C ends it with the rows so far.

    Args:
        kinds: number of trials by kind.
        seed: what is drawn depends on it alone.
        only: the one trial of each kind that is made; all by default.
        minutes: after which no further trial begins.
    """
    until = time.monotonic() + 60 * minutes
    rows = [Row(kind, count if only is None else 1) for kind, count in kinds.items()]
    with tempfile.TemporaryDirectory(prefix="perdure-campaign-") as name:
        world, place = Path(name).resolve() / "world", Path(name).resolve() / "place"
        world.mkdir()
        place.mkdir()
        try:
            prepare(world)
            for row in rows:
                _fill(row, KINDS[row.kind][0](row.wanted, seed, world, place, only), seed, until)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
    return rows


def _fill(row: Row, trials: Iterator[Fault], seed: int, until: float) -> None:
    began = time.monotonic()
    try:
        while time.monotonic() < until and (fault := next(trials, None)) is not None:
            row.made += 1
            if fault.why:
                row.faults += 1
                again = f"'{row.kind}' --seed {seed} --only {fault.number}"
                print(f"FAULT {again}: {fault.what}: {fault.why}", flush=True)
    finally:
        row.seconds = time.monotonic() - began


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("kinds", nargs="*", choices=[[], *KINDS], metavar="KIND")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--trials", type=int, help="of each kind; default: " + _usual())
    arguments.add_argument("--only", type=int, metavar="N", help="the trial of this number alone")
    arguments.add_argument("--minutes", type=float, default=30.0, help="at most; default: 30")
    args = arguments.parse_args()
    kinds = {kind: args.trials or KINDS[kind][1] for kind in args.kinds or KINDS}
    print(f"seed {args.seed}, {platform.machine()}, {os.cpu_count()} cores", flush=True)
    # What ends it otherwise ends it so too, with the table.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows = campaign(kinds, args.seed, args.only, args.minutes)
    print("\n| kind | trials | faults | seconds |\n|---|---|---|---|")
    for row in rows:
        of = "" if row.made == row.wanted else f" of {row.wanted:,}"
        print(f"| {row.kind} | {row.made:,}{of} | {row.faults} | {row.seconds:.0f} |")
    return int(any(row.faults or row.made < row.wanted for row in rows))


def _usual() -> str:
    return ", ".join(f"{count:,} {kind}" for kind, (_, count) in KINDS.items())


if __name__ == "__main__":
    sys.exit(main())
