"""Pictures as people hand them in: files, PIL images or arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perdure.streams.decoding import decode, to_rgb

Picture = str | Path | Image.Image | NDArray[np.uint8]


def open_picture(picture: Picture) -> Image.Image:
    """Return the picture upright and in mode RGB.

    Raises:
        UnreadableImageError: a file that cannot be decoded.
    """
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    if isinstance(picture, np.ndarray):
        return to_rgb(Image.fromarray(picture))
    return decode(Path(picture))
