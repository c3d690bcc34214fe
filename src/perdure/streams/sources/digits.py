"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

import importlib

import numpy as np

from perdure.errors import StreamError
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig
from perdure.streams.sources.base import Source, array_images, refuse_options

TEST_FRACTION = 0.3


@SOURCES.register("digits")
def load_digits(config: StreamConfig, seed: int) -> Source:
    """Load the 1,797 handwritten digits (8 x 8 pixels) that come with scikit-learn.

    The last 30 % of each class in data set order are the test images (rounded down), whatever the
    seed. Pixel values 0 … 16 become 0 … 255.

    Raises:
        ConfigError: a place or a key that means nothing here.
        StreamError: scikit-learn is not installed.
    """
    refuse_options(config)
    try:
        data = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise StreamError(
            "Data set 'digits' comes with scikit-learn, which is not installed. "
            "Type: pip install scikit-learn"
        ) from error
    pixels = np.rint(np.asarray(data.images) * (255 / 16)).astype(np.uint8)
    labels = np.asarray(data.target, dtype=np.int64)
    held_out = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        positions = np.flatnonzero(labels == label)
        held_out[positions[len(positions) - int(TEST_FRACTION * len(positions)) :]] = True
    train, test = (
        array_images(config, seed, split, "digits", pixels, labels, np.flatnonzero(mask))
        for split, mask in (("train", ~held_out), ("test", held_out))
    )
    return Source("digits", tuple(map(str, range(10))), train, test)
