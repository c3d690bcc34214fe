"""Verdict on reading speed: does it keep up with training?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.wording import per_cent

MOST_WAITING = 0.1
"""The learner is starved where it waits for more than this share of the time."""


@dataclass(frozen=True)
class Reading:
    """Measured rate of reading images.

    Attributes:
        workers: processes that read; 0 for the learner's own.
        first: images per second of the first pass, the start of the processes included.
        later: images per second of the passes after it.
    """

    workers: int
    first: float
    later: float

    def waiting(self, needed: float, first: bool = False) -> float:
        """Share of the time that the learner waits for images, 0 … 1.

        Without workers it reads and learns in turn; with workers it waits where they are slower.

        Args:
            needed: images per second that the learner takes where it never waits.
            first: in the first pass instead of later ones.

        Examples:
            >>> Reading(0, 10.0, 30.0).waiting(10.0), Reading(2, 5.0, 30.0).waiting(10.0)
            (0.25, 0.0)
        """
        rate = self.first if first else self.later
        if self.workers == 0:
            return needed / (needed + rate)
        return max(0.0, 1 - rate / needed)


@dataclass(frozen=True)
class Verdict:
    """Verdict on the workers: do they keep up, how many are best?

    Attributes:
        starves: whether the learner waits too long with every measured number of workers.
        workers: the smallest number with which it does not, else the best one.
        text: the same in words, with figures.
    """

    starves: bool
    workers: int
    text: str


def verdict(needed: float, readings: Sequence[Reading], cores: int) -> Verdict:
    """Judge reading by its later passes, which are most of a task; the first is named too.

    Args:
        needed: images per second that the learner takes.
        readings: at least one.
        cores: cores of this machine; more workers are no advice.

    Examples:
        >>> verdict(10.0, [Reading(0, 190.0, 190.0)], cores=2).text
        'With workers=0 reading gives 19 × what the learner takes, which waits 5 % of the time.'
    """
    in_order = sorted(readings, key=lambda reading: reading.workers)
    enough = [one for one in in_order if one.waiting(needed) <= MOST_WAITING]
    chosen = enough[0] if enough else min(in_order, key=lambda one: one.waiting(needed))
    waits = chosen.waiting(needed)
    times = chosen.later / needed
    rates = (
        f"reading gives {_rounded(times)} × what the learner takes, which waits "
        f"{per_cent(waits, 0)} of the time"
    )
    if not enough:
        more = min(max(1, 2 * in_order[-1].workers), cores)
        way_out = f"more workers, as --workers {more}, or " if more > in_order[-1].workers else ""
        return Verdict(
            True,
            chosen.workers,
            f"Reading starves the learner; at best, with workers={chosen.workers}, {rates}. Try "
            f"{way_out}smaller image files, or a transform that draws nothing (plain): what it "
            "makes of images is kept where it fits in memory.",
        )
    text = f"With workers={chosen.workers} {rates}."
    fewest = in_order[0]
    if chosen is not fewest:
        text = (
            f"workers={fewest.workers} starves the learner, which waits "
            f"{per_cent(fewest.waiting(needed), 0)} of the time: try workers={chosen.workers}. {text}"
        )
    first = chosen.waiting(needed, first=True)
    if first > MOST_WAITING:
        text += f" In the first pass over a task's images it waits {per_cent(first, 0)}."
    return Verdict(False, chosen.workers, text)


def _rounded(times: float) -> str:
    """Format a number with two digits, without an exponent."""
    return f"{float(f'{times:.2g}'):,.10g}"
