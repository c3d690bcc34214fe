"""Registry of data sources, and the data set that each returns."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.errors import ConfigError, StreamError
from perdure.keys import defaults_of, keys_of
from perdure.randomness import permutation
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig
from perdure.streams.images.sets import ArrayImages, ImageSet
from perdure.wording import listed


@dataclass(frozen=True, eq=False)
class Domains:
    """Domain of every image of a source.

    Attributes:
        names: of the domains, in order.
        train: position in ``names`` of each training image.
        test: position in ``names`` of each test image.
    """

    names: tuple[str, ...]
    train: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Source:
    """A data set before it is cut into tasks.

    Attributes:
        name: name of the source.
        class_names: one name per source label.
        train: training images, labelled 0 … C − 1.
        test: test images, labelled alike.
        skipped: ``"path: reason"`` per image that was left out as unreadable.
        domains: where they were asked for.
        remarks: notes for the user.

    Raises:
        StreamError: two classes share a name, a label names no class, or a class has no training
            or no test image.
    """

    name: str
    class_names: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    skipped: tuple[str, ...] = ()
    domains: Domains | None = None
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.class_names)
        twice = [name for name, times in Counter(self.class_names).items() if times > 1]
        if twice:
            raise StreamError(f"Data set '{self.name}': two classes are called '{twice[0]}'.")
        if count <= 1:
            raise StreamError(
                f"Data set '{self.name}' has {count} classes, and a stream needs two: add a class."
            )
        for split, images in (("training", self.train), ("test", self.test)):
            labels = images.labels
            if len(labels) and not 0 <= labels.min() <= labels.max() < count:
                raise StreamError(
                    f"Data set '{self.name}': {split} labels run from {labels.min()} to "
                    f"{labels.max()}; with {count} classes they lie in 0 … {count - 1}."
                )
            empty = np.flatnonzero(np.bincount(labels, minlength=count) == 0)
            if len(empty):
                names = listed([f"'{self.class_names[label]}'" for label in empty])
                raise StreamError(
                    f"Data set '{self.name}': no {split} image for {names}. Every class needs at "
                    "least one: add images, or remove the class."
                )


def load_source(config: StreamConfig, seed: int = 0, *, fetch: bool = True) -> Source:
    """Load the data set that a stream is made of.

    Without ``fetch`` blank images stand in for files that a source would fetch.

    Raises:
        UnknownNameError: no source has that name.
        ConfigError: a key that this source has no use for.
        StreamError: the images cannot be found or used.

    Examples:
        >>> source = load_source(StreamConfig(data="digits"))
        >>> len(source.class_names), len(source.train), len(source.test)
        (10, 1262, 535)
    """
    loader = SOURCES[config.source]
    if not fetch and SOURCES.declared[config.source].fetches:
        return loader(config, seed, fetch=False)
    return loader(config, seed)


def refuse_options(config: StreamConfig, *used: str) -> None:
    """Refuse keys that were set although the source has no use for them.

    Args:
        config: names the source.
        *used: of the keys that mean something to some sources only, those that mean something to
            this one; ``place`` for a place after its name, ``domains`` for domains of its images.

    Raises:
        ConfigError: another one differs from its default.
    """
    name, unset = config.source, defaults_of(StreamConfig)
    if config.over_domains and "domains" not in used:
        raise ConfigError(
            f"Data set '{name}' does not know the domains of its images. Give a table or a data set "
            "with a column 'domain' (data=table.csv, data=hf:NAME) or data=domainnet, or leave "
            "increment out: then every task brings new classes."
        )
    if config.place is not None and "place" not in used:
        raise ConfigError(
            f"Data set '{name}' has no use for '{config.place}' in data={config.data}. Type "
            f"data={name}."
        )
    for key in keys_of(StreamConfig, role="of_some"):
        value = getattr(config, key)
        if key not in used and value != unset[key]:
            raise ConfigError(
                f"Data set '{name}' has no use for {key}={value}. Leave {key} out, or choose another "
                f"data set: {', '.join(SOURCES)}."
            )


def held_out_count(images: int, fraction: float, of_class: str, first: object) -> int:
    """Return how many images of a class to hold out: a share, rounded, at least one and not all.

    Raises:
        StreamError: the class has one image, called ``first``.
    """
    if images == 1:
        raise StreamError(
            f"The class {of_class} has one image ('{first}'), and needs two: one to train and one to "
            "hold out for testing. Add images, or remove the class."
        )
    return min(max(1, math.floor(fraction * images + 0.5)), images - 1)


def capped(
    groups: NDArray[np.int64], config: StreamConfig, split: str, seed: int
) -> NDArray[np.int64]:
    """Return the positions of the images of a split that the caps leave, in data set order.

    A cap holds for every group: a class, or a class in one domain. Which training images are left is
    drawn by the seed; test images are the same for every seed.
    """
    most = config.images_per_class if split == "train" else config.test_images_per_class
    if most is None:
        return np.arange(len(groups))
    kept = []
    for group in np.unique(groups):
        positions = np.flatnonzero(groups == group)
        drawn_by = seed if split == "train" else 0
        order = permutation(len(positions), drawn_by, "cap", split, int(group))
        kept.append(positions[order[:most]])
    return np.sort(np.concatenate(kept)) if kept else np.arange(0)


def array_images(
    config: StreamConfig,
    seed: int,
    split: str,
    called: str,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    positions: NDArray[np.int64] | slice = slice(None),
) -> ArrayImages:
    """Return one split as an image set in memory, capped as the configuration says.

    It has the images at some positions, or all; their names are ``called`` and the position.
    """
    places = np.arange(len(labels))[positions]
    kept = places[capped(labels[places], config, split, seed)]
    return ArrayImages(pixels[kept], labels[kept], [f"{called}[{place}]" for place in kept])
