"""Icons as images: drawn, compared, and kept apart where they are alike."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.distance import cdist

Box = tuple[float, float, float, float]
"""Left, top, width and height of what an SVG shows."""
Rasterise = Callable[[str, Box], NDArray[np.uint8]]
"""Draws the body of an SVG, dark on white."""

SIDE = 64
"""Side of the images in pixels."""
LOOK = 16
"""Side at which drawings are compared."""
ALIKE = 0.15
"""Drawings are alike if they differ in at most this share of their ink."""
FAINT = 32
"""Ink up to which a pixel counts as paper where a drawing is cropped."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """One icon as an image.

    Attributes:
        prefix: the set it is from.
        name: what it is called there.
        pixels: gray, dark on white.
        look: its ink, cropped and small, flat.
    """

    prefix: str
    name: str
    pixels: NDArray[np.uint8]
    look: NDArray[np.float32]


Sides = Mapping[str, Sequence[Drawing]]
"""Drawings of one class, by ``train`` and ``test``."""


def rasterise(body: str, box: Box) -> NDArray[np.uint8]:
    """Draw the body of an SVG black on white, in the middle of a square.

    Raises:
        SystemExit: resvg is not installed.
    """
    try:
        resvg = importlib.import_module("resvg_py")
    except ImportError as error:
        raise SystemExit("Drawing icons needs resvg. Type: pip install resvg-py") from error
    view = " ".join(f"{number:g}" for number in box)
    png = resvg.svg_to_bytes(
        svg_string=f'<svg viewBox="{view}" width="{SIDE}" height="{SIDE}">{body}</svg>',
        background="#ffffff",
        width=SIDE,
        height=SIDE,
        skip_system_fonts=True,
    )
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("L"))


def look_of(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The ink of a drawing, cropped to a square and made small: the same whatever its margins."""
    ink = 255 - pixels
    rows, columns = np.flatnonzero(ink.max(1) > FAINT), np.flatnonzero(ink.max(0) > FAINT)
    if not len(rows):
        return np.zeros(LOOK * LOOK, np.float32)
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(cut.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = ((side - length) // 2 for length in cut.shape)
    square[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    small = Image.fromarray(square).resize((LOOK, LOOK), Image.Resampling.BOX)
    return np.asarray(small, np.float32).ravel() / np.float32(255)


def looks(drawings: Sequence[Drawing]) -> NDArray[np.float32]:
    """The looks of drawings, one per row."""
    found = np.zeros((len(drawings), LOOK * LOOK), np.float32)
    for row, entry in zip(found, drawings, strict=True):
        row[:] = entry.look
    return found


def differences(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Difference of every two looks as a share of the ink of the one that has more."""
    ink = np.maximum(one.sum(1)[:, None], other.sum(1)[None])
    found: NDArray[np.float64] = cdist(one, other, "cityblock") / np.maximum(ink, 1e-6)
    return found


def distinct(given: NDArray[np.float32]) -> list[int]:
    """Positions of looks that are not like an earlier one that is kept."""
    close = differences(given, given) <= ALIKE
    kept: list[int] = []
    for index in range(len(given)):
        if not close[index, kept].any():
            kept.append(index)
    return kept


def split(drawings: Sequence[Drawing], side_of: Mapping[str, str]) -> dict[str, list[Drawing]]:
    """The drawings of one class on either side, no two of them alike.

    Args:
        drawings: of one class.
        side_of: ``train`` or ``test`` by set. Of two that are alike the training side keeps its own.
    """
    by_side: dict[str, list[Drawing]] = {"train": [], "test": []}
    ordered = sorted(drawings, key=lambda entry: side_of[entry.prefix] != "train")
    for index in distinct(looks(ordered)):
        by_side[side_of[ordered[index].prefix]].append(ordered[index])
    return by_side


def without_leaks(classes: Mapping[str, Sides]) -> dict[str, dict[str, list[Drawing]]]:
    """Leave out test drawings that are like a training drawing of any class."""
    trained = looks([entry for found in classes.values() for entry in found["train"]])
    kept = {}
    for word, found in classes.items():
        fresh = differences(looks(found["test"]), trained).min(1) > ALIKE
        tests = [entry for entry, new in zip(found["test"], fresh, strict=True) if new]
        kept[word] = {"train": list(found["train"]), "test": tests}
    return kept
