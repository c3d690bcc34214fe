"""Index of shards: where every image lies, written once, so that any of them is read alone."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perdure.atomic import make_once
from perdure.cache import shards_dir
from perdure.errors import StreamError, UnreadableImageError
from perdure.randomness import derived_seed
from perdure.streams.config import StreamConfig
from perdure.streams.decoding import EncodedImage, decode, image_size
from perdure.streams.images.sets import ComputedNames, ImageSet, unreadable_images
from perdure.streams.shards.samples import samples

_FORMAT = 1
_INDEX, _IMAGES = "index.npz", "images.bin"
_SPLITS = ("", "train", "test", "validation")


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where the images of some shards lie, and what they show.

    Attributes:
        files: the shards, and last the file of images that have no place of their own in theirs.
        classes: names, in the order in which they were met.
        shard: (n,) position in ``files`` of each image's shard.
        holder: (n,) position in ``files`` of the file that holds its bytes.
        offset: (n,) where they begin.
        length: (n,) how many they are.
        label: (n,) position in ``classes``.
        split: (n,) position in ``("", "train", "test", "validation")``.
        draw: (n,) number drawn from the names of class and image, by which images are held out.
        name_ends: (n,) where the image's name in its shard ends in ``name_bytes``.
        name_bytes: all names, in UTF-8.
        faults: why an image cannot be read, by position.
    """

    files: tuple[Path, ...]
    classes: tuple[str, ...]
    shard: NDArray[np.int32]
    holder: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    label: NDArray[np.int32]
    split: NDArray[np.int8]
    draw: NDArray[np.uint64]
    name_ends: NDArray[np.int64]
    name_bytes: NDArray[np.uint8]
    faults: dict[int, str]

    def __len__(self) -> int:
        return len(self.label)

    def of_split(self, split: str) -> NDArray[np.bool_]:
        """Mask of the images of a split; an empty text for those of none."""
        return np.asarray(self.split == _SPLITS.index(split))

    def name(self, position: int) -> str:
        """What an image is called: its shard, and its name there."""
        start = self.name_ends[position - 1] if position else 0
        name = self.name_bytes[start : self.name_ends[position]].tobytes().decode()
        return f"{self.files[self.shard[position]]}[{name}]"

    def read(self, position: int) -> EncodedImage:
        """Read one image's bytes.

        Raises:
            UnreadableImageError: they are not there any more.
        """
        path, length = self.files[self.holder[position]], int(self.length[position])
        try:
            with path.open("rb") as file:
                file.seek(self.offset[position])
                content = file.read(length)
        except OSError as error:
            raise UnreadableImageError(f"{self.name(position)}: {error.strerror}") from error
        if len(content) != length:
            raise UnreadableImageError(f"{self.name(position)}: '{path}' became shorter")
        return EncodedImage(self.name(position), content)


class ShardImages(ImageSet):
    """Image set in shards, each image read alone and decoded whenever it is asked for.

    Nothing is kept: a stream of thousands of tasks would end up whole in memory.

    Args:
        index: where the images lie.
        positions: those of the set in the index.
        labels: source label of each.
    """

    memory_budget = 0

    def __init__(
        self, index: ShardIndex, positions: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> None:
        self._index, self._positions = index, positions
        super().__init__(labels, ComputedNames(len(positions), self._name))

    def image(self, index: int) -> Image.Image:
        """Return one image, see `ImageSet.image`."""
        try:
            return decode(self._index.read(int(self._positions[index])))
        except UnreadableImageError as error:
            raise unreadable_images([str(error)]) from error

    def _name(self, index: int) -> str:
        return self._index.name(int(self._positions[index]))


def indexed(shards: Sequence[Path], config: StreamConfig) -> ShardIndex:
    """Return the index of shards; it is written where that was not done before.

    It lies in the cache, under a checksum of the shards' places, sizes and times of change, and holds
    what images show by their header. Parquet files and compressed tars, in which an image has no
    place of its own, are copied into one file beside it, image after image.

    Args:
        shards: tars and Parquet files.
        config: names columns.

    Raises:
        StreamError: a shard is damaged or cut short, or the index is damaged or of other shards.
        OutputError: the cache cannot be written.
    """
    identity = _identity(shards, config)
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    holder = shards[0].parent
    folder = shards_dir() / f"{holder.name[:60]}-{digest[:16]}"

    def fill(work: Path) -> None:
        content = _walk(shards, config, work / _IMAGES)
        with (work / _INDEX).open("wb") as file:
            np.savez(file, allow_pickle=False, about=_packed(json.dumps(identity)), **content)
            file.flush()
            os.fsync(file.fileno())

    make_once(folder, f"The index of '{holder}' could not be written", fill)
    return _read(folder, identity, shards)


def _identity(shards: Sequence[Path], config: StreamConfig) -> dict[str, Any]:
    """What an index depends on, JSON-ready."""
    status = [(str(path.absolute()), path.stat()) for path in shards]
    return {
        "format": _FORMAT,
        "image_column": config.image_column,
        "label_column": config.label_column,
        "shards": [[path, one.st_size, one.st_mtime_ns] for path, one in status],
    }


def _walk(shards: Sequence[Path], config: StreamConfig, copies: Path) -> dict[str, NDArray[Any]]:
    """Read every shard once; copy images that have no place of their own."""
    keys = ("shard", "holder", "offset", "length", "label", "split", "draw", "name_ends")
    kinds = (np.int32, np.int32, np.int64, np.int64, np.int32, np.int8, np.uint64, np.int64)
    columns = [array("q") for _ in keys]
    classes: dict[str, int] = {}
    names, faults = bytearray(), dict[int, str]()
    with copies.open("wb") as copied:
        for number, shard in enumerate(shards):
            for one in samples(shard, config):
                file, offset = number, one.offset
                if offset is None:
                    file, offset = len(shards), copied.tell()
                    copied.write(one.content)
                names += one.name.encode("utf-8", "backslashreplace")
                if fault := _fault(one.content):
                    faults[len(columns[0])] = fault
                label = classes.setdefault(one.label, len(classes))
                draw = derived_seed(0, "held out", one.label, f"{shard.name}[{one.name}]")
                split = _SPLITS.index(one.split)
                length = len(one.content)
                row = (number, file, offset, length, label, split, draw % 2**63, len(names))
                for column, value in zip(columns, row, strict=True):
                    column.append(value)
        copied.flush()
        os.fsync(copied.fileno())
    content: dict[str, NDArray[Any]] = {
        key: np.array(column, np.int64).astype(kind)
        for key, column, kind in zip(keys, columns, kinds, strict=True)
    }
    content["name_bytes"] = np.frombuffer(bytes(names), np.uint8)
    told = {"classes": list(classes), "faults": {str(at): why for at, why in faults.items()}}
    return {**content, "told": _packed(json.dumps(told))}


def _fault(content: bytes) -> str:
    try:
        image_size(EncodedImage("", content))
    except UnreadableImageError as error:
        return str(error).removeprefix(": ")
    return ""


def _packed(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


def _read(folder: Path, identity: dict[str, Any], shards: Iterable[Path]) -> ShardIndex:
    """Read an index, and check that it is of these shards.

    Raises:
        StreamError: it is damaged, or of others.
    """
    path = folder / _INDEX
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            content = {key: file[key] for key in file.files}
        about = json.loads(content.pop("about").tobytes())
        told = json.loads(content.pop("told").tobytes())
        faults = {int(at): why for at, why in told["faults"].items()}
        files = (*shards, folder / _IMAGES)
        index = ShardIndex(files, tuple(told["classes"]), faults=faults, **content)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise StreamError(
            f"The index '{path}' is damaged ({str(error).partition(chr(10))[0]}). Remove the folder "
            f"'{folder}'; the next run writes it anew."
        ) from error
    if about != identity:
        raise StreamError(
            f"The index '{path}' is of other shards. Remove the folder '{folder}'; the next run "
            "writes it anew."
        )
    return index
