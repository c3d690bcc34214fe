"""Data loading: batches of transformed images, the same for any number of workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from perdure.errors import ConfigError, PerdureError, StreamError
from perdure.randomness import generator, permutation
from perdure.streams.images.sets import TransformedImages
from perdure.streams.stream import Subset
from perdure.streams.transforms import Side, augment, build_transform
from perdure.streams.workers import BATCHES_PER_WORKER, Workers, worker_count


@dataclass(frozen=True, eq=False)
class Batch:
    """Batch of images with labels and positions.

    Attributes:
        images: transformed pixels, 0 … 255, not normalised.
        labels: labels in order of arrival.
        positions: where the images stand in their subset.
    """

    images: UInt8[Tensor, "b 3 s s"]
    labels: Int64[Tensor, "b"]
    positions: Int64[Tensor, "b"]


Share = Callable[[list[int]], list[int]]
"""Part of a batch that one of several processes reads, by the positions of its images."""


def batch_count(count: int, batch_size: int) -> int:
    """Return the number of batches of ``count`` images.

    Raises:
        ConfigError: the batch size is not positive.

    Examples:
        >>> batch_count(10, 4)
        3
    """
    if batch_size < 1:
        raise ConfigError(
            f"batch_size={batch_size} is too small. Allowed: 1 and above, such as batch_size=128."
        )
    return -(-count // batch_size)


@dataclass(frozen=True)
class Chunk:
    """Positions of the images of a batch.

    Attributes:
        epoch: the epoch that it belongs to; None in data set order.
        positions: where the images stand in their subset.
    """

    epoch: int | None
    positions: list[int]


def batch_order(
    count: int,
    batch_size: int,
    *,
    seed: int,
    task: int,
    epoch: int | range | None,
    start_step: int = 0,
) -> Iterator[Chunk]:
    """Return the batches of one or several epochs as positions; no image is read.

    Raises:
        ConfigError: a batch size or step out of range.
    """
    steps = batch_count(count, batch_size)
    if start_step < 0:
        raise ConfigError(f"start_step={start_step} is negative. Allowed: 0 and above.")

    def chunks() -> Iterator[Chunk]:
        first = start_step
        for one in _passes(epoch):
            order = range(count) if one is None else permutation(count, seed, "order", task, one)
            for step in range(first, steps):
                yield Chunk(one, list(order[step * batch_size : (step + 1) * batch_size]))
            first = 0

    return chunks()


def _passes(epoch: int | range | None) -> Sequence[int | None]:
    return epoch if isinstance(epoch, range) else [epoch]


def batches(  # noqa: PLR0913  every argument is a counter or a size
    subset: Subset,
    batch_size: int,
    *,
    transform: str,
    side: Side,
    img_size: int,
    seed: int,
    task: int,
    epoch: int | range | None,
    workers: Workers = 0,
    start_step: int = 0,
    share: Share | None = None,
) -> Iterator[Batch]:
    """Iterate over a subset once, or once per epoch.

    What a batch holds depends on the arguments alone, never on ``workers`` or ``start_step``, and
    torch's global generator is neither used nor moved. Images of a deterministic side are kept
    with their set as they are computed, where all of them fit in its memory budget.

    Args:
        subset: the images.
        batch_size: images per batch; the last batch of a pass may be smaller.
        transform: name of a transform.
        side: its training or its test side.
        img_size: side of the transformed images in pixels.
        seed: seed of the run.
        task: index of the task.
        epoch: index of the epoch: order and augmentation are drawn from (seed, task, epoch). A
            range: these epochs one after another, where workers start once and read ahead from
            one into the next. None: data set order, for evaluation.
        workers: processes that decode and transform; 0 does it in this one, ``auto`` chooses by
            the machine (`worker_count`).
        start_step: batches to leave out at the start of the first pass; their images are not
            touched.
        share: chooses the positions of each batch that are read; all of them by default.

    Raises:
        ConfigError: a batch size, number of workers or step out of range, or an augmentation
            without an epoch.
        UnknownNameError: no such transform.
        UnreadableImageError: an image file that cannot be decoded, when its batch is due.
        StreamError: a worker process died.
    """
    reader = _Reader(subset, transform, side, img_size, seed, task)
    if reader.augments and epoch is None:
        raise ConfigError(
            f"The training side of transform '{transform}' draws at random and needs an epoch. "
            "Give an epoch, or take side='test'."
        )
    order = batch_order(
        len(subset), batch_size, seed=seed, task=task, epoch=epoch, start_step=start_step
    )
    if share is not None:
        order = (Chunk(chunk.epoch, share(chunk.positions)) for chunk in order)
    passes = len(_passes(epoch)) if reader.kept is None else 1
    steps = max(passes * batch_count(len(subset), batch_size) - start_step, 0)
    largest = min(batch_size, len(subset))
    processes = min(worker_count(workers, steps * largest, largest * 3 * img_size**2), steps)
    if reader.kept is None:
        return _batches(reader, order, processes)
    epochs = (list(one) for _, one in itertools.groupby(order, key=lambda chunk: chunk.epoch))
    return itertools.chain.from_iterable(
        _batches(reader, chunks, 0 if reader.has_all(chunks) else processes) for chunks in epochs
    )


class _Reader(Dataset[Tensor | PerdureError]):
    """Reader of transformed images by position, in any process."""

    def __init__(
        self, subset: Subset, transform: str, side: Side, img_size: int, seed: int, task: int
    ) -> None:
        built = build_transform(transform, img_size)
        self.augments = side == "train" and not built.deterministic
        self.subset = subset
        self.transform = transform
        # A transform without augmentation computes the same on both sides only where train is
        # test; then one copy serves both.
        self.side: Side = "test" if built.train is built.test else side
        self.img_size = img_size
        self.counters = (seed, task)

    @property
    def kept(self) -> TransformedImages | None:
        """Cache of transformed images, if the transform is deterministic."""
        if self.augments:
            return None
        return self.subset.images.transformed(self.transform, self.side, self.img_size)

    def has_all(self, chunks: Iterable[Chunk]) -> bool:
        """Tell whether every image of these batches is in the cache."""
        kept = self.kept
        if kept is None:
            return False
        filled = kept.filled.numpy()[self.subset.indices]
        return all(bool(filled[chunk.positions].all()) for chunk in chunks)

    def pixels(self, position: int, epoch: int | None) -> UInt8[Tensor, "3 s s"]:
        """Return one transformed image."""
        index = int(self.subset.indices[position])
        kept = self.kept
        if kept is not None and bool(kept.filled[index]):
            return kept.pixels[index]
        image = self.subset.images.image(index)
        built = build_transform(self.transform, self.img_size)
        if not self.augments:
            return built.train(image) if self.side == "train" else built.test(image)
        assert epoch is not None, "batches has seen to it"
        seed, task = self.counters
        return augment(built, image, seed=seed, task=task, epoch=epoch, index=index)

    def read(self, chunk: Chunk) -> UInt8[Tensor, "b 3 s s"]:
        """Return the transformed images of one batch."""
        kept = self.kept
        if kept is not None:
            indices = torch.from_numpy(self.subset.indices[chunk.positions])
            if bool(kept.filled[indices].all()):
                return kept.pixels[indices]
        return torch.stack([self.pixels(position, chunk.epoch) for position in chunk.positions])

    def __getitem__(self, chunk: Chunk) -> Tensor | PerdureError:
        """Return a batch, or the error as a value: a worker would bury its text in a traceback."""
        try:
            return self.read(chunk)
        except PerdureError as error:
            return error

    def batch(self, chunk: Chunk, pixels: UInt8[Tensor, "b 3 s s"]) -> Batch:
        """Return the batch of these images, and cache them if possible."""
        kept = self.kept
        if kept is not None:
            indices = torch.from_numpy(self.subset.indices[chunk.positions])
            new = ~kept.filled[indices]
            kept.store(indices[new], pixels[new])
        positions = torch.tensor(chunk.positions, dtype=torch.int64)
        return Batch(pixels, self.subset.labels[positions], positions)


def _batches(reader: _Reader, chunks: Iterable[Chunk], workers: int) -> Iterator[Batch]:
    if workers == 0:
        for chunk in chunks:
            yield reader.batch(chunk, reader.read(chunk))
        return
    # The loader draws batches from its own copy as it reads ahead.
    chunks, ahead = itertools.tee(chunks)
    loader: DataLoader[Tensor | PerdureError] = DataLoader(
        reader,
        batch_size=None,
        sampler=ahead,
        num_workers=workers,
        prefetch_factor=BATCHES_PER_WORKER,
        collate_fn=_as_it_is,
        # Pinned memory is copied to the device while the device computes.
        pin_memory=torch.cuda.is_initialized(),
        # Without one the loader would draw from torch's global generator.
        generator=generator(reader.counters[0], "workers"),
    )
    for chunk, result in zip(chunks, _surviving(loader), strict=True):
        if isinstance(result, PerdureError):
            raise result
        yield reader.batch(chunk, result)


def _surviving(loader: DataLoader[Tensor | PerdureError]) -> Iterator[Tensor | PerdureError]:
    """Iterate over a loader; a killed worker becomes an error that says what to do."""
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise StreamError(
            f"A process that reads images was ended from outside ({error}). It may have found no "
            "memory, or no shared memory (/dev/shm, small in many containers). Type workers=0, "
            "fewer workers, or a smaller batch_size."
        ) from error


def _as_it_is(result: Any) -> Any:
    return result
