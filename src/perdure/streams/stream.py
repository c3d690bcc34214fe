"""A data set cut into tasks: which images each task shows, under labels in order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from perdure.errors import ConfigError, StreamError
from perdure.randomness import permutation
from perdure.streams.images import ImageSet
from perdure.streams.protocol import class_order, task_sizes
from perdure.streams.sources import SOURCES, Source, SourceOptions, load_source
from perdure.streams.transforms import build_transform
from perdure.types import Task


@dataclass(frozen=True)
class StreamOptions:
    """What a stream is made of.

    Attributes:
        source: name of a source.
        tasks: ``"Bm-Incn"`` or explicit sizes, see ``task_sizes``.
        class_order: ``nsp2``, ``pilot``, ``sorted`` or a file, see ``class_order``.
        seed: seed of class order, validation split, caps and drawn images, at least 0.
        validation_fraction: share of each class's training images that is kept from training for
            choosing hyperparameters, in [0, 1); at least one image where it is not 0.
        transform: name of a transform.
        img_size: side of the transformed images in pixels.
        source_options: what the source is asked for; its own seed is replaced by ``seed``.

    Raises:
        ConfigError: a value is out of range.
        UnknownNameError: no such source or transform.
    """

    source: str = "digits"
    tasks: str | tuple[int, ...] = "B0-Inc2"
    class_order: str = "nsp2"
    seed: int = 0
    validation_fraction: float = 0.0
    transform: str = "plain"
    img_size: int = 224
    source_options: SourceOptions = field(default_factory=SourceOptions)

    def __post_init__(self) -> None:
        SOURCES[self.source]
        build_transform(self.transform, self.img_size)
        if self.seed < 0:
            raise ConfigError(
                f"seed={self.seed} is negative. Allowed: 0 and above, such as seed=0."
            )
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(
                f"validation_fraction={self.validation_fraction} is not allowed. Allowed: 0 (no "
                "validation images) up to but not including 1, such as validation_fraction=0.25."
            )


@dataclass(frozen=True, eq=False)
class Subset:
    """Some images of a set, in data set order, under labels in order of arrival.

    Attributes:
        images: the set.
        indices: (n,) positions in the set, ascending.
        labels: label k belongs to the k-th class to arrive.
    """

    images: ImageSet
    indices: NDArray[np.int64]
    labels: Int64[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def names(self) -> tuple[str, ...]:
        """How each image is called: a path, or ``digits[17]``."""
        return tuple(self.images.names[index] for index in self.indices)


@dataclass(frozen=True, eq=False)
class TaskData:
    """One task and its images.

    Attributes:
        task: what a method sees.
        train: training images.
        val: images kept from training; None where there is no validation split.
        test: test images of this task's classes.
    """

    task: Task
    train: Subset
    val: Subset | None
    test: Subset


@dataclass(frozen=True, eq=False)
class Stream:
    """A sequence of tasks.

    Attributes:
        options: what the stream was built from.
        class_names: names in order of arrival.
        class_order: source labels in order of arrival.
        sizes: number of classes of each task.
        tasks: the tasks.
        skipped: ``"path: reason"`` per image left out as unreadable.
    """

    options: StreamOptions
    class_names: tuple[str, ...]
    class_order: tuple[int, ...]
    sizes: tuple[int, ...]
    tasks: tuple[TaskData, ...]
    skipped: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told: a smaller last task, images that were left out."""
        notes = []
        if len(self.sizes) > 1 and self.sizes[-1] < self.sizes[-2]:
            classes = "class" if self.sizes[-1] == 1 else "classes"
            notes.append(
                f"The last task has {self.sizes[-1]} {classes}, the one before it {self.sizes[-2]}."
            )
        if self.skipped:
            images = "image was" if len(self.skipped) == 1 else "images were"
            notes.append(
                f"{len(self.skipped)} unreadable {images} left out, first: {self.skipped[0]}"
            )
        return tuple(notes)

    def upto(self, index: int) -> TaskData:
        """Return the union of tasks 0 … ``index``, in data set order.

        Its task carries that index, and the classes and names of all tasks in it.

        Raises:
            IndexError: the stream has no such task.
        """
        if not 0 <= index < len(self.tasks):
            raise IndexError(f"The stream has tasks 0 … {len(self.tasks) - 1}, and no {index}.")
        parts = self.tasks[: index + 1]
        seen = parts[-1].task.seen
        vals = [part.val for part in parts if part.val is not None]
        texts = [part.task.text_features for part in parts if part.task.text_features is not None]
        text = torch.cat(texts) if texts else None
        return TaskData(
            task=Task(index, tuple(range(seen)), self.class_names[:seen], seen, text),
            train=_union([part.train for part in parts]),
            val=_union(vals) if vals else None,
            test=_union([part.test for part in parts]),
        )


def build_stream(options: StreamOptions, source: Source | None = None) -> Stream:
    """Load the source and cut it into tasks.

    Args:
        options: what the stream is made of.
        source: a source that is loaded already, in place of the one that the options name.

    Raises:
        ConfigError: an option that cannot be read.
        StreamError: images that cannot be used, or sizes and orders that do not fit the classes.

    Example:
        >>> stream = build_stream(StreamOptions(source="digits", tasks="B4-Inc3", seed=2024))
        >>> [data.task.names for data in stream.tasks]
        [('3', '5', '2', '9'), ('0', '7', '4'), ('1', '6', '8')]
    """
    if source is None:
        source = load_source(options.source, replace(options.source_options, seed=options.seed))
    count = len(source.class_names)
    sizes = task_sizes(options.tasks, count)
    order = class_order(options.class_order, count, source.class_names, options.seed)
    names = tuple(source.class_names[label] for label in order)
    arrival = np.empty(count, dtype=np.int64)
    arrival[order] = np.arange(count)
    held_out = _held_out(source, options)
    tasks = []
    seen = 0
    for index, size in enumerate(sizes):
        classes = tuple(range(seen, seen + size))
        seen += size
        members = np.isin(source.train.labels, order[classes[0] : seen])
        tasks.append(
            TaskData(
                task=Task(index, classes, names[classes[0] : seen], seen),
                train=_subset(source.train, members & ~held_out, arrival),
                val=_subset(source.train, members & held_out, arrival) if held_out.any() else None,
                test=_subset(
                    source.test, np.isin(source.test.labels, order[classes[0] : seen]), arrival
                ),
            )
        )
    return Stream(options, names, tuple(order), sizes, tuple(tasks), source.skipped)


def _held_out(source: Source, options: StreamOptions) -> NDArray[np.bool_]:
    """Return which training images are kept for validation."""
    mask = np.zeros(len(source.train), dtype=bool)
    if not options.validation_fraction:
        return mask
    for label, name in enumerate(source.class_names):
        positions = np.flatnonzero(source.train.labels == label)
        if len(positions) == 1:
            raise StreamError(
                f"The class '{name}' has one training image, and needs two for "
                f"validation_fraction={options.validation_fraction}. Add images, or type "
                "validation_fraction=0."
            )
        wanted = int(options.validation_fraction * len(positions) + 0.5)
        count = min(max(1, wanted), len(positions) - 1)
        shuffled = permutation(len(positions), options.seed, "validation", name)
        mask[positions[shuffled[:count]]] = True
    return mask


def _subset(images: ImageSet, mask: NDArray[np.bool_], arrival: NDArray[np.int64]) -> Subset:
    indices = np.flatnonzero(mask)
    return Subset(images, indices, torch.from_numpy(arrival[images.labels[indices]]))


def _union(subsets: Sequence[Subset]) -> Subset:
    """Return the images of subsets of one set, in data set order."""
    indices = np.concatenate([subset.indices for subset in subsets])
    order = np.argsort(indices, kind="stable")
    labels = torch.cat([subset.labels for subset in subsets])
    return Subset(subsets[0].images, indices[order], labels[torch.from_numpy(order)])
