"""CIFAR-100, read from its binary version."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from perdure.errors import StreamError
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig
from perdure.streams.fetch.published import PUBLISHED
from perdure.streams.images.sets import ArrayImages
from perdure.streams.sources.base import Source, array_images, refuse_options

SIDE = 32
LABELS = 2
"""Bytes before the pixels of an image: its superclass, then its class."""
RECORD = LABELS + 3 * SIDE * SIDE


@SOURCES.register("cifar100")
def load_cifar100(config: StreamConfig, seed: int) -> Source:
    """Load 50,000 training and 10,000 test images (32 x 32 pixels) of 100 classes.

    Labels are the fine ones, in the publisher's order.

    Raises:
        ConfigError: a key that means nothing here.
        StreamError: the files are not at hand, or one of them is damaged.
    """
    refuse_options(config, "place")
    folder = PUBLISHED["cifar100"].root(config.place) / "cifar-100-binary"
    lines = (folder / "fine_label_names.txt").read_text("utf-8", "replace").splitlines()
    names = tuple(line.strip().replace("_", " ") for line in lines if line.strip())
    train, test = (_read_split(folder, split, config, seed) for split in ("train", "test"))
    return Source("cifar100", names, train, test)


def _read_split(folder: Path, split: str, config: StreamConfig, seed: int) -> ArrayImages:
    path = folder / f"{split}.bin"
    content = np.fromfile(path, dtype=np.uint8)
    if len(content) == 0 or len(content) % RECORD:
        raise StreamError(
            f"'{path}' has {len(content):,} bytes, which is no multiple of the {RECORD:,} of an "
            f"image. Remove '{folder.parent}' and type: perdure data fetch cifar100"
        )
    records = content.reshape(-1, RECORD)
    pixels = records[:, LABELS:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    labels = records[:, LABELS - 1].astype(np.int64)
    return array_images(config, seed, split, f"cifar100/{split}", pixels, labels)
