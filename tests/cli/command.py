"""What the fixtures of these tests give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

TINY = (
    "backbone=test_vit",
    "weights=random",
    "img_size=32",
    "stream=synthetic",
    "images_per_class=4",
    "test_images_per_class=2",
    "epochs=1",
)
"""Overrides that make a run of any preset take about a second."""


@dataclass(frozen=True)
class Said:
    """What a command did."""

    code: int
    out: str
    err: str


Perdure = Callable[..., Said]
