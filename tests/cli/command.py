"""What the fixtures of these tests give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """What a command did."""

    code: int
    out: str
    err: str


Perdure = Callable[..., Said]
