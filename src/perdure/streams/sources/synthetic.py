"""Synthetic images: coloured, textured patterns that a small model learns in seconds."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from perdure.errors import ConfigError
from perdure.randomness import generator
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig
from perdure.streams.images.sets import ArrayImages
from perdure.streams.sources.base import Source, refuse_options

TRAIN_IMAGES = 32
TEST_IMAGES = 16
SHAPE = "10x32"
LEAST = 2
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


@SOURCES.register("synthetic")
def draw_synthetic(config: StreamConfig, seed: int) -> Source:
    """Draw 10 classes of images of 32 pixels a side; ``synthetic:4x12`` draws 4 of 12 pixels.

    A class is two colours, mixed by a wave of its own direction and length; an image adds a phase,
    a brightness and noise. An image is a function of (seed, split, class, its number in the class)
    alone: more images or classes leave the others as they are. Without caps there are 32 training
    and 16 test images per class.

    Raises:
        ConfigError: a place that is no ``CLASSESxSIDE``, or a key that means nothing here.
    """
    refuse_options(config, "place")
    classes, side = _shape(config)
    sets = {}
    for split, count in (
        ("train", config.images_per_class or TRAIN_IMAGES),
        ("test", config.test_images_per_class or TEST_IMAGES),
    ):
        pixels = np.stack(
            [
                _draw(seed, split, label, number, side)
                for label in range(classes)
                for number in range(count)
            ]
        )
        labels = np.repeat(np.arange(classes), count)
        names = [f"synthetic/{split}[{index}]" for index in range(len(labels))]
        sets[split] = ArrayImages(pixels, labels, names)
    digits = len(str(classes - 1))
    class_names = tuple(f"pattern_{label:0{digits}d}" for label in range(classes))
    return Source("synthetic", class_names, sets["train"], sets["test"])


def _shape(config: StreamConfig) -> tuple[int, int]:
    """Return the number of classes and the side of the images in pixels."""
    classes, _, side = (config.place or SHAPE).partition("x")
    if not (classes.isdecimal() and side.isdecimal() and min(int(classes), int(side)) >= LEAST):
        raise ConfigError(
            f"data={config.data}: after synthetic: come the number of classes and the side of the "
            f"images in pixels, {LEAST} or more each, as data=synthetic:{SHAPE}"
        )
    return int(classes), int(side)


def _draw(seed: int, split: str, label: int, number: int, size: int) -> NDArray[np.uint8]:
    """Return one image, (size, size, 3)."""
    style = torch.rand(4, generator=generator(seed, "synthetic", "class", label)).tolist()
    hue = GOLDEN_ANGLE * label + 0.3 * style[0]
    colours = torch.stack([_colour(hue), _colour(hue + 2 + 2 * style[1])])
    # Directions follow the golden angle too, so that neighbours in number look unlike.
    angle = GOLDEN_ANGLE * label / 2 + 0.3 * style[2]
    waves = 1.5 + 2.5 * style[3]
    draw = generator(seed, "synthetic", split, label, number)
    phase, brightness = torch.rand(2, generator=draw).tolist()
    grid = torch.arange(size) / size
    along = grid[:, None] * math.sin(angle) + grid[None, :] * math.cos(angle)
    mix = 0.5 + 0.5 * torch.sin(2 * math.pi * (waves * along + phase))
    image = mix[:, :, None] * colours[0] + (1 - mix[:, :, None]) * colours[1]
    image = image * (0.7 + 0.3 * brightness) + 0.08 * torch.randn(size, size, 3, generator=draw)
    return np.asarray((image.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def _colour(hue: float) -> Float[Tensor, "3"]:
    """Return a saturated colour in [0, 1] for a hue in radians."""
    return 0.5 + 0.5 * torch.cos(hue - torch.tensor([0.0, 2.0, 4.0]) * math.pi / 3)
