"""Registry of data sources, and the data set that each returns."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.errors import ConfigError, StreamError
from perdure.randomness import permutation
from perdure.registry import Declaration, Registry
from perdure.streams.images.sets import MEMORY_BUDGET, ArrayImages, ImageSet
from perdure.wording import listed

DIGITS_TEST_FRACTION = 0.3


@dataclass(frozen=True)
class SourceOptions:
    """What a source can be asked for. A source refuses options that mean nothing to it.

    Attributes:
        path: folder of the images (``folder``), file of the table (``table``), name or folder of the
            data set (``huggingface``), or folder of a published data set's files where they are not
            kept with the others.
        images_per_class: at most so many training images per class, drawn by ``seed``.
        test_images_per_class: at most so many test images per class; the same for every seed.
        test_fraction: own images without a test split: share of each class held out, in (0, 1).
        image_column: ``table`` and ``huggingface``: where the images are, if it cannot be told.
        label_column: likewise, their classes.
        domains: whether the domain of every image is asked for; caps and shares of a class then
            hold in each domain.
        domain_column: likewise, their domains.
        skip_unreadable: leave unreadable images out, and list them, instead of failing.
        seed: seed of the run. In a stream the stream's own seed takes its place.
        memory_budget: bytes of decoded, and again of transformed, pixels that may be kept.
        synthetic_classes: ``synthetic``: number of classes.
        synthetic_size: ``synthetic``: side of the images in pixels.

    Raises:
        ConfigError: a value is out of range.
    """

    path: Path | None = None
    images_per_class: int | None = None
    test_images_per_class: int | None = None
    test_fraction: float = 0.2
    image_column: str | None = None
    label_column: str | None = None
    domains: bool = False
    domain_column: str | None = None
    skip_unreadable: bool = False
    seed: int = 0
    memory_budget: int = MEMORY_BUDGET
    synthetic_classes: int = 10
    synthetic_size: int = 32

    def __post_init__(self) -> None:
        for name, least in (
            ("images_per_class", 1),
            ("test_images_per_class", 1),
            ("seed", 0),
            ("memory_budget", 0),
            ("synthetic_classes", 2),
            ("synthetic_size", 2),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(
                    f"{name}={value} is too small. Allowed: {least} and above, such as "
                    f"{name}={max(least, 10)}."
                )
        if not 0 < self.test_fraction < 1:
            raise ConfigError(
                f"test_fraction={self.test_fraction} is not a share. Allowed: between 0 and 1, "
                "both excluded, such as test_fraction=0.2."
            )
        if self.domain_column is not None and not self.domains:
            raise ConfigError(
                f"domain_column={self.domain_column} has no use: tasks are formed by classes alone. "
                "Add increment=domains or increment=classes+domains, or leave domain_column out."
            )


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

    def __post_init__(self) -> None:
        count = len(self.class_names)
        twice = [name for name, times in Counter(self.class_names).items() if times > 1]
        if twice:
            raise StreamError(f"Source '{self.name}': two classes are called '{twice[0]}'.")
        if count <= 1:
            raise StreamError(
                f"Source '{self.name}' has {count} classes, and a stream needs two: add a class."
            )
        for split, images in (("training", self.train), ("test", self.test)):
            labels = images.labels
            if len(labels) and not 0 <= labels.min() <= labels.max() < count:
                raise StreamError(
                    f"Source '{self.name}': {split} labels run from {labels.min()} to "
                    f"{labels.max()}; with {count} classes they lie in 0 … {count - 1}."
                )
            empty = np.flatnonzero(np.bincount(labels, minlength=count) == 0)
            if len(empty):
                names = listed([f"'{self.class_names[label]}'" for label in empty])
                raise StreamError(
                    f"Source '{self.name}': no {split} image for {names}. Every class needs at "
                    "least one: add images, or remove the class."
                )


LoadSource = Callable[[SourceOptions], Source]

SOURCES: Registry[LoadSource, Declaration] = Registry("source", Declaration)


def load_source(name: str, options: SourceOptions | None = None) -> Source:
    """Load a source by its name.

    Raises:
        UnknownNameError: no source has that name.
        ConfigError: an option that this source has no use for.
        StreamError: the images cannot be found or used.

    Examples:
        >>> source = load_source("digits")
        >>> len(source.class_names), len(source.train), len(source.test)
        (10, 1262, 535)
    """
    return SOURCES[name](options or SourceOptions())


_OF_SOME = (
    "path",
    "test_fraction",
    "image_column",
    "label_column",
    "domains",
    "domain_column",
    "synthetic_classes",
    "synthetic_size",
)
"""Options that mean something to some sources only."""


def refuse_options(source: str, options: SourceOptions, *used: str) -> None:
    """Refuse options that a source does not use.

    Args:
        source: its name.
        options: as they were set.
        *used: those that mean something to this source and not to all.

    Raises:
        ConfigError: another one differs from its default.
    """
    if options.domains and "domains" not in used:
        raise ConfigError(
            f"Source '{source}' does not know the domains of its images. Give a table or a data set "
            "with a column 'domain' (data=table.csv, data=hf:NAME) or stream=domainnet, or leave "
            "increment out: then every task brings new classes."
        )
    for field in fields(options):
        if (
            field.name in _OF_SOME
            and field.name not in used
            and getattr(options, field.name) != field.default
        ):
            raise ConfigError(
                f"Source '{source}' has no use for {field.name}={getattr(options, field.name)}. "
                f"Leave {field.name} out, or choose another source: {', '.join(SOURCES)}."
            )


def capped(
    labels: NDArray[np.int64], most: int | None, seed: int, *name: int | str
) -> NDArray[np.int64]:
    """Return the positions of at most ``most`` images per class, in data set order.

    Args:
        labels: label of each image.
        most: the cap; None keeps every image.
        seed: which images are kept is drawn from ``(seed, name, label)``.
        name: what is being capped.
    """
    if most is None:
        return np.arange(len(labels))
    kept = []
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        order = permutation(len(positions), seed, "cap", *name, int(label))
        kept.append(positions[order[:most]])
    return np.sort(np.concatenate(kept)) if kept else np.arange(0)


def array_images(
    options: SourceOptions,
    split: str,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    names: Sequence[str],
) -> ArrayImages:
    """Return one split as an image set in memory, capped by the options.

    Args:
        options: the caps, the seed and the memory budget.
        split: ``train`` or ``test``; the cap on test images does not depend on the seed.
        pixels: (n, height, width) or (n, height, width, 3), uint8.
        labels: label of each image.
        names: how each image is called in an error.
    """
    if split == "train":
        kept = capped(labels, options.images_per_class, options.seed, "train")
    else:
        kept = capped(labels, options.test_images_per_class, 0, "test")
    return ArrayImages(
        pixels[kept], labels[kept], [names[index] for index in kept], options.memory_budget
    )


@SOURCES.register("digits")
def load_digits(options: SourceOptions) -> Source:
    """Load the 1,797 handwritten digits (8 x 8 pixels) that come with scikit-learn.

    The last 30 % of each class in data set order are the test images (rounded down), whatever the
    seed. Pixel values 0 … 16 become 0 … 255.

    Raises:
        ConfigError: a path or another option that means nothing here.
        StreamError: scikit-learn is not installed.
    """
    refuse_options("digits", options)
    try:
        data = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise StreamError(
            "Source 'digits' comes with scikit-learn, which is not installed. "
            "Type: pip install scikit-learn"
        ) from error
    pixels = np.rint(np.asarray(data.images) * (255 / 16)).astype(np.uint8)
    labels = np.asarray(data.target, dtype=np.int64)
    names = [f"digits[{index}]" for index in range(len(labels))]
    held_out = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        positions = np.flatnonzero(labels == label)
        held_out[positions[len(positions) - int(DIGITS_TEST_FRACTION * len(positions)) :]] = True
    sets = {}
    for split, mask in (("train", ~held_out), ("test", held_out)):
        chosen = np.flatnonzero(mask)
        sets[split] = array_images(
            options, split, pixels[chosen], labels[chosen], [names[index] for index in chosen]
        )
    return Source("digits", tuple(str(digit) for digit in range(10)), sets["train"], sets["test"])
