"""Pictures of any mode and size are taken; what is no picture is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from perdure.errors import ConfigError, StreamError, UnreadableImageError
from perdure.learner import ContinualClassifier
from tests.tiny import SIDE, pictures


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_modes(learned: ContinualClassifier, mode: str) -> None:
    picture = Image.fromarray(pictures("a", 1)[0])
    picture = picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)
    assert torch.isfinite(learned.logits([picture])).all()


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (3, 500, 3), (300, 2), (SIDE, SIDE, 1), (SIDE, SIDE, 4)]
)
def test_sizes(learned: ContinualClassifier, shape: tuple[int, ...]) -> None:
    assert learned.predict([np.full(shape, 7, np.uint8)]).shape == (1,)


def test_files_images_and_arrays_are_the_same(learned: ContinualClassifier, tmp_path: Path) -> None:
    array = pictures("a", 1)[0]
    image = Image.fromarray(array)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    turned = Image.fromarray(np.rot90(array, -1))
    with Image.open(tmp_path / "a.png") as opened:
        found = learned.logits([str(tmp_path / "a.png"), tmp_path / "a.png", opened, turned])
    assert all(torch.equal(row, found[0]) for row in found)
    assert torch.equal(learned.logits(np.stack([array])), learned.logits([image]))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("a.jpg", StreamError, r"Type \['a\.jpg'\]"),
        (pictures("a", 1)[0][..., 0], StreamError, r"Type \[image\]"),
        ([], ConfigError, "no picture to predict"),
        (None, StreamError, "this is NoneType"),
        ({"a": 1}, StreamError, "this is dict"),
        ([None], StreamError, "no picture but NoneType"),
        ([np.zeros((2, 2))], StreamError, "float64"),
        (["nowhere.png"], UnreadableImageError, r"nowhere\.png"),
        ([Image.new("F", (4, 4))], UnreadableImageError, "mode F"),
    ],
)
def test_what_is_no_picture_is_refused(
    learned: ContinualClassifier, given: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        learned.predict(given)
