"""Fault of a trial: what was done to the library, and what was wrong with its answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """Outcome of a trial.

    Attributes:
        number: the trial's, of those of its kind.
        what: what was done.
        why: what was wrong; empty for nothing.
    """

    number: int
    what: str
    why: str = ""
