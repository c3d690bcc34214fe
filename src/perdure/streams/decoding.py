"""From an image file to an upright RGB image, or to an error that names the file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from perdure.errors import UnreadableImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""The formats that are tried, whatever the file is called; PIL's others may start programs."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".heic", ".heif", ".avif", ".jp2", ".svg"}
)
"""What an image file is called. Those of the second row are not decoded, but refused by name."""


def image_size(path: Path) -> tuple[int, int]:
    """Return the stored (width, height) in pixels from the header alone.

    Raises:
        UnreadableImageError: the file is no image, has no pixels or claims absurdly many.
    """
    with _refusing_bombs():
        try:
            with Image.open(path, formats=FORMATS) as image:
                return _checked_size(image)
        except MemoryError:
            raise
        except Exception as error:
            raise UnreadableImageError(f"{path}: {_reason(path, error)}") from error


def decode(path: Path) -> Image.Image:
    """Read an image file as upright RGB.

    Grayscale, palette and CMYK images are converted; an alpha channel is dropped, as
    torchvision's loaders do; 16-bit gray is divided by 256; the rotation that EXIF asks for is
    applied; of an animation the first frame is taken.

    Raises:
        UnreadableImageError: the file cannot be decoded to its end, has no pixels, or claims more
            than ``PIL.Image.MAX_IMAGE_PIXELS`` of them.
    """
    with _refusing_bombs():
        try:
            with Image.open(path, formats=FORMATS) as image:
                _checked_size(image)
                image.load()
                return to_rgb(ImageOps.exif_transpose(image))
        except MemoryError:
            raise
        # PIL's decoders raise almost anything on damaged files.
        except Exception as error:
            raise UnreadableImageError(f"{path}: {_reason(path, error)}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image in mode RGB, 8 bits per channel.

    Raises:
        ValueError: the mode holds numbers without a fixed range.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels (mode {image.mode}) have no fixed range; save it with 8 bits")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


@contextmanager
def _refusing_bombs() -> Iterator[None]:
    """Turn PIL's warning about decompression bombs into an error, and silence its others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _checked_size(image: Image.Image) -> tuple[int, int]:
    if min(image.size) < 1:
        raise ValueError(f"it has no pixels ({image.size[0]} x {image.size[1]})")
    return image.size


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        if path.stat().st_size == 0:
            return "the file is empty"
        return f"no image of a known format ({', '.join(FORMATS)}), or its header is damaged"
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return f"a possible decompression bomb ({error}); shrink it first"
    return str(error) or type(error).__name__
