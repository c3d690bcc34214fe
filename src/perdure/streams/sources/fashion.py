"""Fashion-MNIST, from the Debian package, from a folder, or from a download."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.errors import StreamError
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig
from perdure.streams.fetch import fetching
from perdure.streams.fetch.published import PUBLISHED
from perdure.streams.sources.base import Source, array_images, refuse_options

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
IMAGES = {"train": 60_000, "test": 10_000}
MAGIC = b"\x00\x00\x08"
"""Two zero bytes and the code of unsigned bytes; the number of axes follows."""


@SOURCES.register("fashion_mnist")
def load_fashion_mnist(config: StreamConfig, seed: int, *, fetch: bool = True) -> Source:
    """Load 60,000 training and 10,000 test images (28 x 28 pixels, gray) of ten kinds of clothes.

    The four idx files, with or without ``.gz``, are looked for in the folder that ``data`` names
    alone where it does; otherwise in the folder of the Debian package dataset-fashion-mnist, then in
    ``$PERDURE_HOME/data/fashion_mnist``, to which they are fetched if nothing is there; without
    ``fetch`` blank images stand in for them.

    Raises:
        ConfigError: a key that means nothing here.
        StreamError: the files are nowhere to be found, or one of them is damaged.
    """
    refuse_options(config, "place")
    published = PUBLISHED["fashion_mnist"]
    read = _blank
    if config.place is not None or fetch or published.at_hand:
        folder = (
            published.root(config.place) if config.place else fetching.fetch(published, wait=True)
        )
        read = partial(_read_split, folder)
    sets = {}
    for split in FILES:
        pixels, labels = read(split)
        called = f"fashion_mnist/{split}"
        sets[split] = array_images(config, seed, split, called, pixels, labels.astype(np.int64))
    return Source("fashion_mnist", CLASS_NAMES, sets["train"], sets["test"])


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, gzipped or not.

    Raises:
        StreamError: the file is not of that form, or shorter or longer than its header says.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise StreamError(
            f"Cannot read '{path}': {error}. Remove it and fetch it again."
        ) from error
    head = len(MAGIC) + 1
    if len(content) < head or not content.startswith(MAGIC):
        raise StreamError(
            f"'{path}' is no idx file of unsigned bytes: it starts with {content[:head]!r} and "
            f"must start with {MAGIC!r}. Remove it and fetch it again."
        )
    axes = content[len(MAGIC)]
    start = head + 4 * axes
    if len(content) < start:
        raise StreamError(f"'{path}' ends within its header. Remove it and fetch it again.")
    shape = struct.unpack(f">{axes}I", content[head:start])
    if len(content) - start != math.prod(shape):
        raise StreamError(
            f"'{path}' holds {len(content) - start:,} bytes of data where its header announces "
            f"{math.prod(shape):,}. Remove it and fetch it again."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


_Split = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Pixels and labels."""


def _read_split(folder: Path, split: str) -> _Split:
    images_file, labels_file = (_find(folder, name) for name in FILES[split])
    pixels, labels = read_idx(images_file), read_idx(labels_file)
    if (pixels.ndim, labels.ndim) != (3, 1) or len(pixels) != len(labels):
        raise StreamError(
            f"'{images_file}' has shape {pixels.shape} and '{labels_file}' {labels.shape}; they "
            "must be (n, height, width) and (n,). Remove both and fetch them again."
        )
    return pixels, labels


def _blank(split: str) -> _Split:
    """Return as many images as there are, of one black pixel each, and labels in turn."""
    count = IMAGES[split]
    labels = np.arange(count) % len(CLASS_NAMES)
    return np.zeros((count, 1, 1), np.uint8), labels.astype(np.uint8)


def _find(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).exists() else folder / f"{name}.gz"
