from __future__ import annotations

import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from perdure.errors import UnreadableImageError
from perdure.learner.pictures import open_picture
from perdure.streams import decoding
from perdure.streams.decoding import (
    FORMATS,
    EncodedImage,
    decode,
    examine,
    image_size,
    is_image,
)


def gradient(width: int = 20, height: int = 10) -> Image.Image:
    """Dark on the left, light on the right; red at the top, blue at the bottom."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    pixels = np.stack([(1 - y) * x, x, y * x], axis=-1)
    return Image.fromarray((pixels * 255).astype(np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    original = gradient().convert(mode)
    original.save(tmp_path / "image.png")
    image = decode(tmp_path / "image.png")
    assert (image.mode, image.size) == ("RGB", (20, 10))
    assert np.array_equal(np.asarray(image), np.asarray(original.convert("RGB")))
    assert image_size(tmp_path / "image.png") == (20, 10)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    red, green, blue = decode(tmp_path / "red.jpg").getpixel((4, 4))  # type: ignore[misc]
    assert red > 240
    assert green < 15
    assert blue < 15


def test_alpha_is_dropped_and_palette_transparency_does_not_warn(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 2), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert decode(tmp_path / "clear.png").getpixel((0, 0)) == (10, 20, 30)
    palette = gradient().convert("P")
    palette.save(tmp_path / "palette.png", transparency=bytes(range(256)))
    assert np.array_equal(
        np.asarray(decode(tmp_path / "palette.png")), np.asarray(palette.convert("RGB"))
    )


def test_sixteen_bit_gray_keeps_its_range(tmp_path: Path) -> None:
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert np.asarray(decode(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 1, 128, 255]


DEPTHS = [(255, 1), (300, 2), (1023, 2), (4095, 2), (65535, 2)]


@pytest.mark.parametrize(("most", "size"), DEPTHS)
def test_a_pgm_file_states_its_range(tmp_path: Path, most: int, size: int) -> None:
    values = np.arange(0, 12) * most // 11
    header = f"P5\n# gray\n4 3\n{most}\n".encode()
    (tmp_path / "a.pgm").write_bytes(header + values.astype(f">u{size}").tobytes())
    plain = f"P2\n4 3\n{most}\n" + " ".join(map(str, values))
    (tmp_path / "plain.pgm").write_bytes(plain.encode())
    for name in ("a.pgm", "plain.pgm"):
        gray = np.asarray(decode(tmp_path / name))[..., 1].reshape(-1)
        assert np.abs(gray - values * 255 / most).max() <= 1, name
    with Image.open(tmp_path / "a.pgm") as opened:
        assert np.array_equal(open_picture(opened), decode(tmp_path / "a.pgm"))
    assert examine(tmp_path / "a.pgm").gray


def tiff(values: NDArray[np.int64], bits: int, black: int, order: str) -> bytes:
    """A TIFF file of one strip, written by the letter of its specification."""
    height, width = values.shape
    if bits == 12:
        digits = ["".join(f"{value:012b}" for value in row) for row in values]
        padded = [row + "0" * (-len(row) % 8) for row in digits]
        data = b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in padded)
    else:
        data = values.astype(f"{order}u{bits // 8}").tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, black), (273, 8)]
    tags += [(277, 1), (278, height), (279, len(data))]
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data))
    entries = b"".join(struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("bits", "black", "order"),
    [(8, 0, "<"), (8, 1, ">"), (12, 1, "<"), (16, 0, "<"), (16, 1, "<"), (16, 1, ">")],
)
def test_gray_of_a_tiff_file(tmp_path: Path, bits: int, black: int, order: str) -> None:
    """Whether 0 is white (``black`` is 0) or black, and however many bits there are."""
    values = (np.arange(12) * (2**bits - 1) // 11).reshape(3, 4)
    (tmp_path / "a.tif").write_bytes(tiff(values, bits, black, order))
    gray = np.asarray(decode(tmp_path / "a.tif"))[..., 0]
    light = values / (2**bits - 1)
    assert np.abs(gray - 255 * (light if black else 1 - light)).max() <= 1
    with Image.open(tmp_path / "a.tif") as opened:
        assert np.array_equal(np.asarray(open_picture(opened))[..., 0], gray)


def test_images_of_telephones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    for name, kind in (("a.heic", "HEIF"), ("a.avif", "AVIF")):
        gradient(64, 64).save(tmp_path / name, quality=95)
        assert examine(tmp_path / name).format == kind
        assert is_image(tmp_path / name)
        difference = np.asarray(decode(tmp_path / name)).astype(int) - np.asarray(gradient(64, 64))
        assert np.abs(difference).mean() < 4
    monkeypatch.setattr(decoding, "_formats", lambda: ("JPEG",))
    with pytest.raises(UnreadableImageError, match=r"a\.heic: a HEIC .*pip install 'perdure\[heif"):
        decode(tmp_path / "a.heic")
    with pytest.raises(UnreadableImageError, match=r"a\.avif: an AVIF .*pip install --upgrade pil"):
        decode(tmp_path / "a.avif")


def test_formats_that_can_be_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert decoding._formats.__wrapped__() == FORMATS[:-1]
    monkeypatch.setattr(decoding.features, "check", lambda name: False)
    assert decoding._formats.__wrapped__() == FORMATS[:-2]


def test_an_image_file_in_memory_is_read_as_a_file_is(tmp_path: Path) -> None:
    gradient().save(tmp_path / "a.png")
    encoded = EncodedImage("photos.parquet[3]", (tmp_path / "a.png").read_bytes())
    assert np.array_equal(np.asarray(decode(encoded)), np.asarray(gradient()))
    assert image_size(encoded) == (20, 10)
    for content, reason in ((b"", "the file is empty"), (b"text", "no image of a known")):
        with pytest.raises(UnreadableImageError, match=rf"photos\.parquet\[3\]: {reason}"):
            decode(EncodedImage("photos.parquet[3]", content))


def test_images_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    for name in ("png", "jpg", "webp", "gif", "tif"):
        gradient().save(tmp_path / f"a.{name}")
        (tmp_path / f"a.{name}").rename(tmp_path / "odd")
        assert is_image(tmp_path / "odd"), name
    (tmp_path / "odd").write_text("BM is how a bitmap begins, and a text may.")
    assert not is_image(tmp_path / "odd")
    assert not is_image(tmp_path / "gone")


def test_floats_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(UnreadableImageError, match="no fixed range"):
        decode(tmp_path / "float.tif")


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = gradient()
    stored_as = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(stored_as[orientation]) if orientation in stored_as else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{suffix}"
    stored.save(path, exif=exif, lossless=True)
    assert np.array_equal(np.asarray(decode(path)), np.asarray(upright))
    assert examine(path).turned is (orientation > 1)


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.webp"])
def test_an_exif_block_that_cannot_be_read_asks_for_no_rotation(tmp_path: Path, name: str) -> None:
    gradient().save(tmp_path / name, exif=b"Exif\0\0garbage")
    assert decode(tmp_path / name).size == (20, 10)
    assert not examine(tmp_path / name).turned


@pytest.mark.parametrize(
    ("mode", "suffix", "unusual"),
    [
        ("RGB", "png", set()),
        ("P", "png", set()),
        ("1", "png", {"gray"}),
        ("L", "jpg", {"gray"}),
        ("I;16", "png", {"gray"}),
        ("LA", "png", {"gray", "alpha"}),
        ("RGBA", "png", {"alpha"}),
        ("CMYK", "jpg", {"cmyk"}),
        ("CMYK", "tif", {"cmyk"}),
    ],
)
def test_how_an_image_is_stored(tmp_path: Path, mode: str, suffix: str, unusual: set[str]) -> None:
    path = tmp_path / f"image.{suffix}"
    gradient().convert("L" if mode == "I;16" else mode).convert(mode).save(path)
    stored = examine(path)
    assert {
        kind for kind in ("gray", "alpha", "cmyk", "turned") if getattr(stored, kind)
    } == unusual
    assert stored.format == {"png": "PNG", "jpg": "JPEG", "tif": "TIFF"}[suffix]


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    gradient().save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.jpg")
    assert decode(tmp_path / "image.jpg").size == (20, 10)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"These are not the pixels you are looking for.\n", "no image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known format"),
        (b"P6\n0 5\n255\n", "fake"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "fake.png"
    path.write_bytes(content)
    for read in (decode, examine, image_size):
        with pytest.raises(UnreadableImageError, match=reason) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["image.jpg", "image.png", "image.webp", "image.gif", "image.bmp"])
def test_a_truncated_image_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    gradient(64, 64).save(path)
    content = path.read_bytes()
    decode(path)
    path.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(UnreadableImageError, match=name):
        decode(path)


def test_flipped_bytes_in_a_png_are_found(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    gradient(64, 64).save(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(8)
    path.write_bytes(bytes(content))
    with pytest.raises(UnreadableImageError, match=r"image\.png"):
        decode(path)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    gradient().save(path)
    for limit in (
        150,
        50,
    ):  # PIL warns at 200 pixels of the first, and raises at those of the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UnreadableImageError, match="possible decompression bomb"):
            decode(path)
        with pytest.raises(UnreadableImageError, match="possible decompression bomb"):
            image_size(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"gone\.png"):
        decode(tmp_path / "gone.png")


def test_images_open_in_two_threads_share_what_warnings_become(tmp_path: Path) -> None:
    """The thread that ends first takes nothing from the other, and nothing stays behind."""
    gradient().save(tmp_path / "image.png")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before = list(warnings.filters)
        first, second = (decoding._opened(tmp_path / "image.png") for _ in range(2))
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        with pytest.raises(Image.DecompressionBombWarning):
            warnings.warn("huge", Image.DecompressionBombWarning, stacklevel=1)
        second.__exit__(None, None, None)
        assert warnings.filters == before


def test_missing_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "gone.png", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UnreadableImageError, match=reason) as caught:
            decode(path)
        assert "Errno" not in str(caught.value)
