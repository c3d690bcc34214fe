"""Image sets: labelled images in memory or in files, with a cache of transformed ones."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from perdure.errors import StreamError, UnreadableImageError
from perdure.streams.decoding import ImageFile, decode
from perdure.wording import counted, printable


class TransformedImages:
    """Cache of one set's images under one deterministic transform."""

    def __init__(self, count: int, size: int) -> None:
        self.pixels: UInt8[Tensor, "n 3 s s"] = torch.empty(
            (count, 3, size, size), dtype=torch.uint8
        )
        self.filled: Bool[Tensor, "n"] = torch.zeros(count, dtype=torch.bool)

    def store(self, indices: Int64[Tensor, "b"], pixels: UInt8[Tensor, "b 3 s s"]) -> None:
        """Store the transformed images of these positions."""
        self.pixels[indices] = pixels
        self.filled[indices] = True


class ComputedNames(Sequence[str]):
    """Names of images that are worked out when they are asked for, of sets too large to hold them.

    Args:
        count: how many.
        name: the name at a position.
    """

    def __init__(self, count: int, name: Callable[[int], str]) -> None:
        self._count, self._name = count, name

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        """Return one name, or several."""
        if isinstance(index, slice):
            return [self._name(at) for at in range(self._count)[index]]
        return self._name(range(self._count)[index])


class ImageSet(abc.ABC):
    """Labelled images of one source.

    Args:
        labels: source label of each image, int64.
        names: how each image is called in an error: a path, or ``digits[17]``.

    Attributes:
        in_memory: whether the images are there decoded, and no file is read for them.
        memory_budget: bytes of decoded, and again of transformed, pixels that may be kept.

    Raises:
        StreamError: labels and names are not equally many.
    """

    in_memory = False
    memory_budget = 2**30

    def __init__(self, labels: NDArray[np.int64], names: Sequence[str]) -> None:
        if len(labels) != len(names):
            raise StreamError(f"{len(labels)} labels were given for {len(names)} images.")
        self.labels: NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
        self.names: Sequence[str] = names if isinstance(names, ComputedNames) else tuple(names)
        self._transformed: dict[tuple[str, str, int], TransformedImages] = {}

    def __len__(self) -> int:
        return len(self.names)

    @abc.abstractmethod
    def image(self, index: int) -> Image.Image:
        """Return one image, upright, in mode RGB.

        Raises:
            UnreadableImageError: its file cannot be decoded.
        """

    def faults(self, positions: Iterable[int]) -> dict[int, str]:
        """Decode these images once, and return ``"name: reason"`` of those that cannot be read."""
        found = {}
        for position in positions:
            try:
                self.image(position)
            except UnreadableImageError as error:
                found[position] = str(error).splitlines()[1].strip()
        return found

    def transformed(self, transform: str, side: str, size: int) -> TransformedImages | None:
        """Return the cache of images under one deterministic transform.

        Returns:
            None where all images of the set would not fit in what is left of the memory budget.
        """
        key = (transform, side, size)
        if key not in self._transformed:
            used = sum(kept.pixels.numel() for kept in self._transformed.values())
            if used + len(self) * 3 * size * size > self.memory_budget:
                return None
            self._transformed[key] = TransformedImages(len(self), size)
        return self._transformed[key]

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is not forked would otherwise be sent everything that was computed.
        return {**self.__dict__, "_transformed": {}}


class ArrayImages(ImageSet):
    """Image set in memory: images of one size in an array.

    Args:
        pixels: (n, height, width) gray or (n, height, width, 3) RGB, uint8.
        labels: source label of each image.
        names: how each image is called in an error.

    Raises:
        StreamError: the array is not of that form.

    Examples:
        >>> pixels = np.zeros((2, 8, 8), np.uint8)
        >>> ArrayImages(pixels, np.array([0, 1]), ["a", "b"]).image(1).size
        (8, 8)
    """

    in_memory = True

    def __init__(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], names: Sequence[str]
    ) -> None:
        super().__init__(labels, names)
        colour = pixels.shape[3:] in ((), (3,))
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or not colour:
            raise StreamError(
                f"Image arrays are uint8 of shape (n, height, width) or (n, height, width, 3); "
                f"this one is {pixels.dtype} of shape {pixels.shape}."
            )
        if len(pixels) != len(names) or 0 in pixels.shape[1:]:
            raise StreamError(f"{len(names)} images cannot be of shape {pixels.shape}.")
        self.pixels = pixels

    def image(self, index: int) -> Image.Image:
        """Return one image, see `ImageSet.image`."""
        return Image.fromarray(self.pixels[index]).convert("RGB")


class FileImages(ImageSet):
    """Image set in files, decoded on access unless their pixels are cached.

    Args:
        paths: one file per image.
        labels: source label of each image.
        pixels: the decoded images, (height, width, 3) uint8 each, where they fit in memory.
    """

    def __init__(
        self,
        paths: Sequence[ImageFile],
        labels: NDArray[np.int64],
        pixels: Sequence[NDArray[np.uint8]] | None = None,
    ) -> None:
        super().__init__(labels, [str(path) for path in paths])
        if pixels is not None and len(pixels) != len(paths):
            raise StreamError(f"{len(pixels)} decoded images were given for {len(paths)} files.")
        self.paths = tuple(paths)
        self.pixels = None if pixels is None else tuple(pixels)
        self.in_memory = pixels is not None

    def image(self, index: int) -> Image.Image:
        """Return one image, see `ImageSet.image`."""
        if self.pixels is not None:
            return Image.fromarray(self.pixels[index])
        try:
            return decode(self.paths[index])
        except UnreadableImageError as error:
            raise unreadable_images([str(error)]) from error


def unreadable_images(faults: Sequence[str], most: int = 10) -> UnreadableImageError:
    """Build the error for image files that cannot be read."""
    more = f"\n  and {len(faults) - most} more" if len(faults) > most else ""
    lines = "".join(f"\n  {printable(fault)}" for fault in faults[:most])
    return UnreadableImageError(
        f"{counted(len(faults), 'image')} cannot be read:{lines}{more}\n"
        "Repair or remove them, or leave them out with skip_unreadable=true."
    )
