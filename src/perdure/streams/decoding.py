"""Image decoding: files to upright RGB images, or to an error that names the file."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from perdure.errors import UnreadableImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""The formats that are tried, whatever the file is called; PIL's others may start programs."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".heic", ".heif", ".avif", ".jp2", ".svg"}
)
"""What an image file is called. Those of the second row are not decoded, but refused by name."""


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by the orientation that its EXIF block states."""


class _Warnings:
    """PIL's warnings while an image is open: suppressed, or raised as errors, in any thread.

    Python keeps one list of filters for all threads: had each image its own, one thread could lift
    the filters of another, or leave its own behind. So the first that opens an image sets them and
    the last that closes one restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._before = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._open == 0:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                # Only PIL's: other threads may compute meanwhile. The one about decompression
                # bombs becomes an error.
                warnings.filterwarnings("ignore", module=r"PIL\.")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
            self._open += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open -= 1
            if self._open == 0:
                self._before.__exit__(None, None, None)


_WARNINGS = _Warnings()


@dataclass(frozen=True)
class Stored:
    """Stored form of an image: format, mode, size, orientation.

    Attributes:
        format: PIL's name for the format of its content, whatever the file is called.
        gray: whether it has no colours.
        alpha: whether pixels may be transparent.
        cmyk: whether its colours are those of print.
        turned: whether EXIF asks for a rotation or reflection.
    """

    format: str
    gray: bool
    alpha: bool
    cmyk: bool
    turned: bool


def image_size(path: Path) -> tuple[int, int]:
    """Return the stored (width, height) in pixels from the header alone.

    Raises:
        UnreadableImageError: the file is no image, has no pixels or claims absurdly many.
    """
    with _opened(path) as image:
        return image.size


def decode(path: Path) -> Image.Image:
    """Read an image file as upright RGB.

    Grayscale, palette and CMYK images are converted; an alpha channel is dropped, as
    torchvision's loaders do; 16-bit gray is divided by 256; the rotation that EXIF asks for is
    applied, and an EXIF block that cannot be read asks for none; of an animation the first frame
    is taken.

    Raises:
        UnreadableImageError: the file cannot be decoded to its end, has no pixels, or claims more
            than ``PIL.Image.MAX_IMAGE_PIXELS`` of them.
    """
    with _opened(path) as image:
        return _upright_rgb(image)


def examine(path: Path) -> Stored:
    """Decode an image file to its end as `decode` does, and tell how it is stored.

    Raises:
        UnreadableImageError: as `decode`.
    """
    with _opened(path) as image:
        # Before the pixels are read: TIFF images are turned as they are read.
        stored = Stored(
            format=str(image.format),
            gray=image.mode in ("1", "L", "LA") or image.mode.startswith("I;16"),
            alpha=image.has_transparency_data,
            cmyk=image.mode == "CMYK",
            turned=_orientation(image) in _TURNS,
        )
        _upright_rgb(image)
        return stored


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
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; any failure becomes an error that names the file."""
    with _WARNINGS:
        try:
            with Image.open(path, formats=FORMATS) as image:
                if min(image.size) < 1:
                    raise ValueError(f"it has no pixels ({image.size[0]} x {image.size[1]})")
                yield image
        except MemoryError:
            raise
        # PIL's decoders raise almost anything on damaged files.
        except Exception as error:
            raise UnreadableImageError(f"{path}: {_reason(path, error)}") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    turn = _TURNS.get(_orientation(image))
    return to_rgb(image if turn is None else image.transpose(turn))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # whatever EXIF blocks can raise; the pixels may be sound
        return 1


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        if path.stat().st_size == 0:
            return "the file is empty"
        return f"no image of a known format ({', '.join(FORMATS)}), or its header is damaged"
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return f"a possible decompression bomb ({error}); shrink it first"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
