"""Streams: a data set cut into tasks, under labels in order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from perdure.errors import StreamError
from perdure.randomness import permutation
from perdure.streams.config import StreamConfig
from perdure.streams.images.sets import ImageSet
from perdure.streams.imbalance import thinned
from perdure.streams.increments import Cut, cut
from perdure.streams.orders import class_order
from perdure.streams.sources.base import Source, load_source
from perdure.types import Task
from perdure.wording import counted


@dataclass(frozen=True, eq=False)
class Subset:
    """Subset of an image set, in data set order, under labels in order of arrival.

    Attributes:
        images: the set.
        indices: (n,) positions in the set, ascending.
        labels: label k belongs to the k-th class to arrive, see `Task`.
    """

    images: ImageSet
    indices: NDArray[np.int64]
    labels: Int64[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each image: a path, or ``digits[17]``."""
        return tuple(self.images.names[index] for index in self.indices)


@dataclass(frozen=True, eq=False)
class TaskData:
    """Task with its images.

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
        class_names: names in order of arrival, each once.
        class_order: their source labels.
        sizes: number of classes of each task.
        tasks: the tasks.
        skipped: ``"path: reason"`` per image left out as unreadable.
        domains: the domain of each task; empty where tasks are formed by classes alone.
        repeats: whether the same class comes in several tasks, each time in another domain.
        remarks: further notes for the user.
    """

    class_names: tuple[str, ...]
    class_order: tuple[int, ...]
    sizes: tuple[int, ...]
    tasks: tuple[TaskData, ...]
    skipped: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    repeats: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user: domains, a smaller last task, images that were left out."""
        notes = list(self.remarks)
        if not self.repeats and len(self.sizes) > 1 and self.sizes[-1] < self.sizes[-2]:
            classes = counted(self.sizes[-1], "class", "classes")
            notes.append(f"The last task has {classes}, the one before it {self.sizes[-2]}.")
        if self.skipped:
            images = counted(len(self.skipped), "unreadable image was", "unreadable images were")
            notes.append(f"{images} left out, first: {self.skipped[0]}")
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
        names = tuple(name for part in parts for name in part.task.names)
        vals = [part.val for part in parts if part.val is not None]
        texts = [part.task.text_features for part in parts if part.task.text_features is not None]
        text = torch.cat(texts) if texts else None
        return TaskData(
            task=Task(index, tuple(range(seen)), names, seen, text),
            train=_union([part.train for part in parts]),
            val=_union(vals) if vals else None,
            test=_union([part.test for part in parts]),
        )


def build_stream(config: StreamConfig, seed: int, source: Source | None = None) -> Stream:
    """Load a data set and cut it into tasks.

    Args:
        config: what the stream is made of.
        seed: of class order, validation split, caps, long tail and drawn images.
        source: a data set that is loaded already, in place of the one that is named.

    Raises:
        ConfigError: a key that cannot be read, or that the data set has no use for.
        StreamError: images that cannot be used, or sizes and orders that do not fit the classes.

    Examples:
        >>> stream = build_stream(StreamConfig(data="digits", tasks="B4-Inc3"), seed=2024)
        >>> [data.task.names for data in stream.tasks]
        [('3', '5', '2', '9'), ('0', '7', '4'), ('1', '6', '8')]
    """
    if source is None:
        source = load_source(config, seed)
    count = len(source.class_names)
    order = class_order(config.class_order, count, source.class_names, seed)
    made = cut(source, order, config.tasks, config.increment, config.domains)
    names = tuple(source.class_names[label] for label, _ in made.outputs)
    train, test = made.outputs_of(source)
    held_out = _held_out(train, made, names, config, seed)
    trained = _trained(train, held_out, made, names, config, seed)
    tasks = []
    for index, (first, end) in enumerate(made.ranges):
        ours = (train >= first) & (train < end)
        val = _subset(source.train, ours & held_out, train) if held_out.any() else None
        tasks.append(
            TaskData(
                task=Task(index, tuple(range(first, end)), names[first:end], end),
                train=_subset(source.train, ours & trained, train),
                val=val,
                test=_subset(source.test, (test >= first) & (test < end), test),
            )
        )
    return Stream(
        tuple(dict.fromkeys(names)),
        tuple(dict.fromkeys(label for label, _ in made.outputs)),
        made.sizes,
        tuple(tasks),
        source.skipped,
        made.domains,
        made.repeats,
        source.remarks + made.notes + _remarks(train, trained, held_out, config, made.repeats),
    )


def _held_out(
    outputs: NDArray[np.int64], made: Cut, names: Sequence[str], config: StreamConfig, seed: int
) -> NDArray[np.bool_]:
    """Return a mask of the training images held out for validation."""
    mask = np.zeros(len(outputs), dtype=bool)
    if not config.validation_fraction:
        return mask
    for index, (first, end) in enumerate(made.ranges):
        # In streams over domains the class is not all that is drawn for.
        domain = made.domains[index : index + 1]
        for output in range(first, end):
            positions = np.flatnonzero(outputs == output)
            if len(positions) == 1:
                where = f" in domain '{domain[0]}'" if domain else ""
                raise StreamError(
                    f"The class '{names[output]}'{where} has one training image, and needs two for "
                    f"validation_fraction={config.validation_fraction}. Add images, or type "
                    "validation_fraction=0."
                )
            wanted = int(config.validation_fraction * len(positions) + 0.5)
            count = min(max(1, wanted), len(positions) - 1)
            drawn = permutation(len(positions), seed, "validation", names[output], *domain)
            mask[positions[drawn[:count]]] = True
    return mask


def _trained(
    outputs: NDArray[np.int64],
    held_out: NDArray[np.bool_],
    made: Cut,
    names: Sequence[str],
    config: StreamConfig,
    seed: int,
) -> NDArray[np.bool_]:
    """Return a mask of the training images that are trained on."""
    wanted = (outputs >= 0) & ~held_out
    if config.imbalance is None:
        return wanted
    ranges = made.ranges if made.repeats else [(0, len(names))]
    parts = [[(output, names[output]) for output in range(*bounds)] for bounds in ranges]
    return thinned(np.where(wanted, outputs, -1), parts, config.imbalance, seed)


def _remarks(
    outputs: NDArray[np.int64],
    trained: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    config: StreamConfig,
    repeats: bool,
) -> tuple[str, ...]:
    """Return notes on images that are not trained on, and on the long tail."""
    remarks = []
    outside = int((outputs < 0).sum())
    if outside:
        where = "in other domains" if repeats else "in another domain than their class's"
        remarks.append(
            f"{outside:,} of {len(outputs):,} training images are {where}, and left out."
        )
    if config.imbalance is not None:
        counts = np.bincount(outputs[trained])
        dropped = int(((outputs >= 0) & ~trained & ~held_out).sum())
        remarks.append(
            f"imbalance={config.imbalance:g} leaves {dropped:,} training images out: {counts.max():,} "
            f"are left in the largest class, {counts.min():,} in the smallest."
        )
    return tuple(remarks)


def _subset(images: ImageSet, mask: NDArray[np.bool_], outputs: NDArray[np.int64]) -> Subset:
    indices = np.flatnonzero(mask)
    return Subset(images, indices, torch.from_numpy(outputs[indices]))


def _union(subsets: Sequence[Subset]) -> Subset:
    """Return the images of subsets of one set, in data set order."""
    indices = np.concatenate([subset.indices for subset in subsets])
    order = np.argsort(indices, kind="stable")
    labels = torch.cat([subset.labels for subset in subsets])
    return Subset(subsets[0].images, indices[order], labels[torch.from_numpy(order)])
