"""Tiny world of the tests: a random ViT on 32 pixels, drawn images, runs of a second or two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perdure.engine.config import Config, make_config
from perdure.learner import ContinualClassifier
from perdure.testing.trial import BACKBONE, SIDE

Pixels = NDArray[np.uint8]

MODEL = {"backbone": BACKBONE, "weights": "random", "img_size": SIDE, "precision": "fp32"}
"""Keys of a random backbone, on every machine alike: of any run, or of a classifier."""
RUN = {
    **MODEL,
    "data": "synthetic",
    "images_per_class": 4,
    "test_images_per_class": 2,
    "epochs": 1,
}
"""Keys that make a run of any preset take about a second."""
WORDS, TINY = (tuple(f"{key}={value}" for key, value in keys.items()) for keys in (MODEL, RUN))
"""The same keys on the command line."""
SMALL = {
    **RUN,
    "tasks": "2+2+2+2+2",
    "images_per_class": 8,
    "test_images_per_class": 4,
    "batch_size": 4,
    "epochs": 2,
    "device": "cpu",
    "checkpoint_every": 3,
}
"""A run that is long enough to be stopped within a task."""
OPTIONS = {key: SMALL[key] for key in ("weights", "img_size", "precision", "batch_size")}
"""The same of a classifier."""


def small_config(method: str, **changes: Any) -> Config:
    """The run `SMALL` of a method."""
    return make_config({**SMALL, "method": method, **changes})


def classifier(method: str = "lda", heads: Any = None, **options: Any) -> ContinualClassifier:
    """A classifier; ``calibration_fraction`` is 0 unless it is among the options."""
    return ContinualClassifier(
        method,
        BACKBONE,
        heads,
        epochs=1,
        device="cpu",
        calibration_fraction=options.pop("calibration_fraction", 0),
        options={**OPTIONS, **options},
    )


def pictures(name: str, count: int = 6, seed: int = 0) -> list[Pixels]:
    """Noise around a colour that the name decides, so that classes can be told."""
    colour = np.random.default_rng([*name.encode()]).integers(0, 256, (1, 1, 3))
    random = np.random.default_rng([seed, *name.encode()])
    noise = random.integers(-40, 41, (count, SIDE, SIDE, 3))
    return list(np.clip(colour + noise, 0, 255).astype(np.uint8))


def lesson(*names: str, count: int = 6, seed: int = 0) -> tuple[list[Pixels], list[str]]:
    """Pictures of some classes, and their names."""
    images = [picture for name in names for picture in pictures(name, count, seed)]
    return images, [name for name in names for _ in range(count)]
