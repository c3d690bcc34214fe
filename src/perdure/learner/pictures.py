"""Pictures from files, PIL images or arrays: checked, and opened when they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perdure.cache import expanded
from perdure.errors import StreamError, UnreadableImageError
from perdure.streams.decoding import EncodedImage, decode, image_size, to_rgb, upright_rgb
from perdure.streams.images.sets import ImageSet, unreadable_images
from perdure.streams.sources.table_file import image_of_cell

Picture = str | Path | EncodedImage | Image.Image | NDArray[np.uint8]

FORMS = (
    "a file's path, a PIL image, or an array of shape (height, width) or (height, width, 3), of "
    "uint8"
)
_GRAY, _COLOUR = 2, 3
_CHANNELS = (1, 3, 4)


def open_picture(picture: Any) -> Image.Image:
    """Return the picture upright and in mode RGB.

    Raises:
        UnreadableImageError: a file or image that cannot be decoded.
        StreamError: something else than a picture.
    """
    check_picture(picture)
    if isinstance(picture, EncodedImage):
        return decode(picture)
    if isinstance(picture, str | Path):
        return decode(expanded(picture))
    try:
        if isinstance(picture, Image.Image):
            return upright_rgb(picture)
        return to_rgb(Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture))
    except MemoryError:
        raise
    except Exception as error:  # PIL's decoders raise almost anything on damaged images
        raise UnreadableImageError(f"an image in memory: {error}") from error


def check_picture(picture: Any) -> None:
    """Refuse what is no picture; nothing is decoded.

    Raises:
        UnreadableImageError: a file whose header cannot be read.
        StreamError: of another type or shape.
    """
    if isinstance(picture, str | Path):
        image_size(expanded(picture))
    elif isinstance(picture, EncodedImage):
        image_size(picture)
    elif isinstance(picture, Image.Image):
        if min(picture.size) < 1:
            raise StreamError(f"This image has no pixels: its size is {picture.size}.")
    elif not isinstance(picture, np.ndarray):
        raise StreamError(f"This is no picture but {type(picture).__name__}. Allowed: {FORMS}.")
    elif (
        picture.dtype not in (np.uint8, np.uint16)
        or picture.ndim not in (_GRAY, _COLOUR)
        or (picture.ndim == _COLOUR and picture.shape[2] not in _CHANNELS)
        or (picture.ndim == _COLOUR and picture.dtype != np.uint8)
        or 0 in picture.shape
    ):
        raise StreamError(
            f"This array is no picture: {picture.dtype} of shape {picture.shape}. Allowed: {FORMS} "
            "(or uint16 without colours)."
        )


def as_pictures(given: Any) -> list[Any]:
    """Return pictures as a list; an array (height, width, 3) is one picture.

    Raises:
        StreamError: it is a single picture, or nothing that holds pictures.
    """
    if isinstance(given, str | Path | Image.Image):
        shown = repr(str(given)) if isinstance(given, str | Path) else "image"
        raise StreamError(f"Pictures come as a list. Type [{shown}] for a single one.")
    if isinstance(given, np.ndarray) and given.ndim == _COLOUR and given.shape[-1] in (3, 4):
        return [given]  # one picture in colour; gray ones of three pixels' width come as a list
    if isinstance(given, np.ndarray) and given.dtype != object and given.ndim < _COLOUR:
        if given.ndim == 1 and given.dtype.kind == "U":
            return [str(path) for path in given]
        raise StreamError(
            f"Pictures come as a list; this is one array of shape {given.shape}. Type [image] for a "
            "single one."
        )
    if isinstance(given, dict | bytes) or not isinstance(given, Iterable):
        raise StreamError(f"Pictures come as a list, and this is {type(given).__name__}: {FORMS}.")
    return [_encoded(one, place) for place, one in enumerate(given)]


def _encoded(picture: Any, place: int) -> Any:
    """A picture, or the file that its bytes are, alone or as ``{"bytes": …, "path": …}``."""
    if isinstance(picture, bytes | bytearray | memoryview | dict):
        return image_of_cell(picture, Path(), f"image {place}", f"image {place}")
    return picture


def checked_pictures(
    pictures: Sequence[Any], labels: NDArray[np.int64], names: Sequence[str], skip_unreadable: bool
) -> tuple[PictureImages, tuple[str, ...]]:
    """Check pictures, and return them as a set.

    Args:
        pictures: files, PIL images or arrays.
        labels: label of each.
        names: name of each in errors.
        skip_unreadable: leave out those that cannot be decoded to their end.

    Returns:
        The pictures, and ``"name: reason"`` per picture that was left out.

    Raises:
        UnreadableImageError: pictures that cannot be used, all of them listed.
    """
    faults: dict[int, str] = {}
    for place, picture in enumerate(pictures if skip_unreadable else ()):
        try:
            open_picture(picture)
        except StreamError as error:
            faults[place] = f"{names[place]}: {_reason(error, names[place])}"
    left = [place for place in range(len(pictures)) if place not in faults]
    used = ([pictures[place] for place in left], labels[left], [names[place] for place in left])
    return PictureImages(*used), tuple(faults.values())


class PictureImages(ImageSet):
    """Pictures as they were handed in, opened when they are asked for.

    Args:
        pictures: files, PIL images or arrays.
        labels: label of each.
        names: name of each picture in errors.

    Raises:
        UnreadableImageError: pictures that cannot be used, all of them listed.
    """

    def __init__(
        self, pictures: Sequence[Any], labels: NDArray[np.int64], names: Sequence[str]
    ) -> None:
        super().__init__(labels, names)
        self._pictures = tuple(pictures)
        faults = []
        for name, picture in zip(names, pictures, strict=True):
            try:
                check_picture(picture)
            except StreamError as error:
                faults.append(f"{name}: {_reason(error, name)}")
        if faults:
            raise unreadable_images(faults)

    def image(self, index: int) -> Image.Image:
        """Return one image, upright, in mode RGB.

        Raises:
            UnreadableImageError: it cannot be decoded.
        """
        try:
            return open_picture(self._pictures[index])
        except UnreadableImageError as error:
            name = self.names[index]
            raise unreadable_images([f"{name}: {_reason(error, name)}"]) from error


def _reason(error: StreamError, name: str) -> str:
    return str(error).removeprefix(f"{name}: ").removeprefix("an image in memory: ")
