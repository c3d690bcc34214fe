"""Image decoding: files to upright RGB images, or to an error that names the file."""

from __future__ import annotations

import functools
import importlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError, features
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

from perdure.errors import UnreadableImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "HEIF")
"""The formats that are tried, whatever the file is called; PIL's others may start programs."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".pbm", ".pnm", ".avif", ".heic", ".heif", ".jp2", ".svg"}
)
"""What an image file is called. Those that are not decoded are refused by name, not passed over."""

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")

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


@dataclass(frozen=True, order=True)
class EncodedImage:
    """Image file in memory, as a cell of a table holds it.

    Attributes:
        place: where it comes from, as ``photos.parquet[3]``.
        content: bytes of the file.
    """

    place: str
    content: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.place

    @property
    def name(self) -> str:
        """Last part of its place."""
        return PurePath(self.place).name


ImageFile = Path | EncodedImage


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


def image_size(path: ImageFile) -> tuple[int, int]:
    """Return the stored (width, height) in pixels from the header alone.

    Raises:
        UnreadableImageError: the file is no image, has no pixels or claims absurdly many.
    """
    with _opened(path) as image:
        return image.size


def decode(path: ImageFile) -> Image.Image:
    """Read an image file as upright RGB.

    Grayscale, palette and CMYK images are converted; an alpha channel is dropped, as
    torchvision's loaders do; gray of more than 8 bits keeps its 8 highest, and is inverted where 0
    stands for white; the rotation that EXIF asks for is applied, and an EXIF block that cannot be
    read asks for none; of an animation the first frame is taken.

    Raises:
        UnreadableImageError: the file cannot be decoded to its end, has no pixels, or claims more
            than ``PIL.Image.MAX_IMAGE_PIXELS`` of them.
    """
    with _opened(path) as image:
        return upright_rgb(image)


def examine(path: ImageFile) -> Stored:
    """Decode an image file to its end as `decode` does, and tell how it is stored.

    Raises:
        UnreadableImageError: as `decode`.
    """
    with _opened(path) as image:
        # Before the pixels are read: TIFF images are turned as they are read.
        stored = Stored(
            format=str(image.format),
            gray=image.mode in ("1", "L", "LA", "I") or image.mode.startswith("I;16"),
            alpha=image.has_transparency_data,
            cmyk=image.mode == "CMYK",
            turned=_orientation(image) in _TURNS,
        )
        upright_rgb(image)
        return stored


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image in mode RGB, 8 bits per channel.

    Raises:
        ValueError: the mode holds numbers without a fixed range.
    """
    # PIL spreads what a PGM file states as its range over 16 bits, in mode I.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray(_high_bits(image)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels (mode {image.mode}) have no fixed range; save it with 8 bits")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _high_bits(image: Image.Image) -> NDArray[np.uint8]:
    """The 8 highest bits of gray values of more than 8; black is 0."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITSPERSAMPLE, (16,))[0]
    gray: NDArray[np.uint8] = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    white_is_zero = tags.get(PHOTOMETRIC_INTERPRETATION) == 0
    return ~gray if white_is_zero else gray


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that can be read here."""
    missing = [] if features.check("avif") else ["AVIF"]
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError:
        missing.append("HEIF")
    else:
        heif.register_heif_opener()
    return tuple(name for name in FORMATS if name not in missing)


@contextmanager
def _opened(path: ImageFile) -> Iterator[Image.Image]:
    """Open an image; any failure becomes an error that names the file."""
    with _WARNINGS:
        try:
            file = io.BytesIO(path.content) if isinstance(path, EncodedImage) else path
            with Image.open(file, formats=_formats()) as image:
                if min(image.size) < 1:
                    raise ValueError(f"it has no pixels ({image.size[0]} x {image.size[1]})")
                yield image
        except MemoryError:
            raise
        # PIL's decoders raise almost anything on damaged files.
        except Exception as error:
            raise UnreadableImageError(f"{path}: {_reason(path, error)}") from error


def is_image(path: Path) -> bool:
    """Tell from its first bytes whether a file is an image that `decode` may read."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*")
    in_riff = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return head.startswith(starts) or in_riff or _brand(head) in (*_AVIF_BRANDS, *_HEIF_BRANDS)


def _brand(head: bytes) -> bytes:
    """What a file in ISO's media format says it is; empty for any other file."""
    return head[8:12] if head[4:8] == b"ftyp" else b""


def upright_rgb(image: Image.Image) -> Image.Image:
    """Decode an image that PIL opened, as `decode` does.

    Raises:
        ValueError: the mode holds numbers without a fixed range.
        OSError: it is damaged; PIL's decoders may raise almost anything else.
    """
    image.load()
    turn = _TURNS.get(_orientation(image))
    # First of all: what PIL derives of an image has lost how its numbers were stored.
    rgb = to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # whatever EXIF blocks can raise; the pixels may be sound
        return 1


def _reason(path: ImageFile, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(path)
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return f"a possible decompression bomb ({error}); shrink it first"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _unidentified(path: ImageFile) -> str:
    """Why an image is of no known format."""
    if isinstance(path, EncodedImage):
        head = path.content[:16]
    else:
        with path.open("rb") as file:
            head = file.read(16)
    if not head:
        return "the file is empty"
    kind = (
        "HEIF" if _brand(head) in _HEIF_BRANDS else "AVIF" if _brand(head) in _AVIF_BRANDS else ""
    )
    if kind and kind not in _formats():
        if kind == "HEIF":
            return "a HEIC image, which needs pillow-heif. Type: pip install 'perdure[heif]'"
        return "an AVIF image, which this Pillow cannot read. Type: pip install --upgrade pillow"
    return f"no image of a known format ({', '.join(FORMATS)}), or its header is damaged"
