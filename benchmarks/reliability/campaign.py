"""Reliability campaign: kills, write errors, mutated input, threads and processes in pairs.

    python benchmarks/reliability/campaign.py                      everything
    python benchmarks/reliability/campaign.py kills --trials 20
    python benchmarks/reliability/campaign.py kills --seed 3 --only 17

Prints a line per fault and one table, and exits with 1 where there was a fault.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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


def campaign(
    kinds: dict[str, int], seed: int, only: int | None = None
) -> list[tuple[str, int, list[Fault], float]]:
    """Run trials of some kinds.

    Args:
        kinds: number of trials by kind.
        seed: what is drawn depends on it alone.
        only: the one trial of each kind that is made; all by default.

    Returns:
        Kind, number of trials, faults and seconds.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="perdure-campaign-") as name:
        world, place = Path(name).resolve() / "world", Path(name).resolve() / "place"
        world.mkdir()
        place.mkdir()
        prepare(world)
        for kind, count in kinds.items():
            began = time.monotonic()
            made, faults = 0, []
            for fault in KINDS[kind][0](count, seed, world, place, only):
                made += 1
                if fault.why:
                    faults.append(fault)
                    again = f"'{kind}' --seed {seed} --only {fault.number}"
                    print(f"FAULT {again}: {fault.what}: {fault.why}", flush=True)
            rows.append((kind, made, faults, time.monotonic() - began))
    return rows


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("kinds", nargs="*", choices=[[], *KINDS], metavar="KIND")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--trials", type=int, help="of each kind; default: " + _usual())
    arguments.add_argument("--only", type=int, metavar="N", help="the trial of this number alone")
    args = arguments.parse_args()
    kinds = {kind: args.trials or KINDS[kind][1] for kind in args.kinds or KINDS}
    print(f"seed {args.seed}, {platform.machine()}, {os.cpu_count()} cores", flush=True)
    rows = campaign(kinds, args.seed, args.only)
    print("\n| kind | trials | faults | seconds |\n|---|---|---|---|")
    for kind, made, faults, seconds in rows:
        print(f"| {kind} | {made:,} | {len(faults)} | {seconds:.0f} |")
    return int(any(faults for _, _, faults, _ in rows))


def _usual() -> str:
    return ", ".join(f"{count:,} {kind}" for kind, (_, count) in KINDS.items())


if __name__ == "__main__":
    sys.exit(main())
