"""Folders of small images, written as the tests ask for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteFolder = Callable[[Path, Mapping[str, int]], Path]


@pytest.fixture
def write_folder() -> WriteFolder:
    """Write so many distinct PNG images (12 x 10 pixels) per class folder."""

    def write(root: Path, counts: Mapping[str, int]) -> Path:
        for number, (name, count) in enumerate(counts.items()):
            folder = root / name
            folder.mkdir(parents=True)
            for index in range(count):
                draw = np.random.Generator(np.random.PCG64(1000 * number + index))
                pixels = draw.integers(0, 256, (10, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index:03d}.png")
        return root

    return write
