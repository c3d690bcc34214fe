"""Batches of transformed images; the same for every number of workers and after every resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from perdure.errors import ConfigError, PerdureError
from perdure.randomness import generator, permutation
from perdure.streams.images import TransformedImages
from perdure.streams.stream import Subset
from perdure.streams.transforms import Side, augment, build_transform


@dataclass(frozen=True, eq=False)
class Batch:
    """Images that go through the backbone together.

    Attributes:
        images: transformed pixels, 0 … 255, not normalised.
        labels: labels in order of arrival.
        positions: where the images stand in their subset.
    """

    images: UInt8[Tensor, "b 3 s s"]
    labels: Int64[Tensor, "b"]
    positions: Int64[Tensor, "b"]


def batch_count(count: int, batch_size: int) -> int:
    """Return how many batches ``count`` images make.

    Raises:
        ConfigError: the batch size is not positive.

    Example:
        >>> batch_count(10, 4)
        3
    """
    if batch_size < 1:
        raise ConfigError(
            f"batch_size={batch_size} is too small. Allowed: 1 and above, such as batch_size=128."
        )
    return -(-count // batch_size)


def batches(  # noqa: PLR0913  every argument is a counter or a size
    subset: Subset,
    batch_size: int,
    *,
    transform: str,
    side: Side,
    img_size: int,
    seed: int,
    task: int,
    epoch: int | None,
    workers: int = 0,
    start_step: int = 0,
) -> Iterator[Batch]:
    """Iterate over a subset once.

    What a batch holds depends on the arguments alone, never on ``workers`` or ``start_step``, and
    torch's global generator is neither used nor moved. Images of a deterministic side are kept
    with their set as they are computed, where all of them fit in its memory budget.

    Args:
        subset: the images.
        batch_size: images per batch; the last batch may be smaller.
        transform: name of a transform.
        side: its training or its test side.
        img_size: side of the transformed images in pixels.
        seed: seed of the run.
        task: index of the task.
        epoch: index of the epoch: order and augmentation are drawn from (seed, task, epoch). None:
            data set order, for evaluation.
        workers: processes that decode and transform; 0 does it in this one.
        start_step: batches to leave out at the start; their images are not touched.

    Raises:
        ConfigError: a batch size, number of workers or step out of range, or an augmentation
            without an epoch.
        UnknownNameError: no such transform.
        UnreadableImageError: an image file that cannot be decoded, when its batch is due.
    """
    steps = batch_count(len(subset), batch_size)
    for name, value in (("workers", workers), ("start_step", start_step)):
        if value < 0:
            raise ConfigError(f"{name}={value} is negative. Allowed: 0 and above.")
    reader = _Reader(subset, transform, side, img_size, seed, task, epoch)
    if epoch is None:
        order = list(range(len(subset)))
    else:
        order = permutation(len(subset), seed, "order", task, epoch)
    chunks = [
        order[step * batch_size : (step + 1) * batch_size] for step in range(start_step, steps)
    ]
    return _batches(reader, chunks, workers)


class _Reader(Dataset[Tensor]):
    """Gives transformed images by their position in a subset, in whatever process it is."""

    def __init__(
        self,
        subset: Subset,
        transform: str,
        side: Side,
        img_size: int,
        seed: int,
        task: int,
        epoch: int | None,
    ) -> None:
        built = build_transform(transform, img_size)
        self.augments = side == "train" and not built.deterministic
        if self.augments and epoch is None:
            raise ConfigError(
                f"The training side of transform '{transform}' draws at random and needs an epoch. "
                "Give an epoch, or take side='test'."
            )
        self.subset = subset
        self.transform = transform
        # A transform without augmentation computes the same on both sides only where train is
        # test; then one copy serves both.
        self.side: Side = "test" if built.train is built.test else side
        self.img_size = img_size
        self.counters = (seed, task, 0 if epoch is None else epoch)

    @property
    def kept(self) -> TransformedImages | None:
        """Where transformed images are kept, if they can be."""
        if self.augments:
            return None
        return self.subset.images.transformed(self.transform, self.side, self.img_size)

    def has_all(self, chunks: Sequence[list[int]]) -> bool:
        """Tell whether every image of these batches is kept already."""
        kept = self.kept
        if kept is None:
            return False
        filled = kept.filled.numpy()[self.subset.indices]
        return all(bool(filled[chunk].all()) for chunk in chunks)

    def pixels(self, position: int) -> UInt8[Tensor, "3 s s"]:
        """Return one transformed image."""
        index = int(self.subset.indices[position])
        kept = self.kept
        if kept is not None and bool(kept.filled[index]):
            return kept.pixels[index]
        image = self.subset.images.image(index)
        built = build_transform(self.transform, self.img_size)
        if not self.augments:
            return built.train(image) if self.side == "train" else built.test(image)
        seed, task, epoch = self.counters
        return augment(built, image, seed=seed, task=task, epoch=epoch, index=index)

    def read(self, chunk: list[int]) -> UInt8[Tensor, "b 3 s s"]:
        """Return the transformed images of one batch."""
        kept = self.kept
        if kept is not None:
            indices = torch.from_numpy(self.subset.indices[chunk])
            if bool(kept.filled[indices].all()):
                return kept.pixels[indices]
        return torch.stack([self.pixels(position) for position in chunk])

    def __getitems__(self, chunk: list[int]) -> Tensor | PerdureError:
        """Return a batch, or the error as a value: a worker would bury its text in a traceback."""
        try:
            return self.read(chunk)
        except PerdureError as error:
            return error

    def batch(self, chunk: list[int], pixels: UInt8[Tensor, "b 3 s s"]) -> Batch:
        """Make the batch of these images, and keep them for the next time if they can be."""
        kept = self.kept
        if kept is not None:
            indices = torch.from_numpy(self.subset.indices[chunk])
            new = ~kept.filled[indices]
            kept.store(indices[new], pixels[new])
        positions = torch.tensor(chunk, dtype=torch.int64)
        return Batch(pixels, self.subset.labels[positions], positions)


def _batches(reader: _Reader, chunks: Sequence[list[int]], workers: int) -> Iterator[Batch]:
    if workers == 0 or reader.has_all(chunks):
        for chunk in chunks:
            yield reader.batch(chunk, reader.read(chunk))
        return
    loader: DataLoader[Tensor] = DataLoader(
        reader,
        batch_sampler=chunks,
        num_workers=min(workers, len(chunks)),
        collate_fn=_as_it_is,
        # Without one the loader would draw from torch's global generator.
        generator=generator(reader.counters[0], "workers"),
    )
    for chunk, result in zip(chunks, loader, strict=True):
        if isinstance(result, PerdureError):
            raise result
        yield reader.batch(chunk, result)


def _as_it_is(result: Any) -> Any:
    return result
