"""Classifiers that learn in a fraction of a second, and pictures for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perdure.learner import ContinualClassifier

SIDE = 32
OPTIONS = {"weights": "random", "img_size": SIDE, "precision": "fp32", "batch_size": 4}

Pixels = NDArray[np.uint8]


def classifier(method: str = "lda", heads: Any = None, **options: Any) -> ContinualClassifier:
    """A classifier on a random ViT; ``calibration_fraction`` is 0 unless it is among the options."""
    share = options.pop("calibration_fraction", 0)
    return ContinualClassifier(
        method,
        "test_vit",
        heads,
        epochs=1,
        device="cpu",
        calibration_fraction=share,
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
