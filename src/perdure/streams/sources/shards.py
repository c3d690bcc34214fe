"""Images in shards: WebDataset's tars, and Parquet files with images in them, of any size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perdure.cache import expanded
from perdure.class_names import ordered_names
from perdure.errors import ConfigError, StreamError
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig, refuse_test_fraction
from perdure.streams.images.find_images import is_hidden
from perdure.streams.images.sets import unreadable_images
from perdure.streams.shards.index import ShardImages, ShardIndex, indexed
from perdure.streams.shards.opening import is_url
from perdure.streams.shards.parquets import is_parquet
from perdure.streams.shards.tars import is_tar
from perdure.streams.sources.base import Source, capped, held_out_count, refuse_options
from perdure.wording import counted

_WILD = "*?["


@SOURCES.register("shards")
def load_shards(config: StreamConfig, seed: int) -> Source:
    """Load images from tars as WebDataset writes them, or from Parquet files that hold images.

    ``shards:FOLDER`` takes the tars and Parquet files of a folder, or of its folders ``train`` and
    ``test``; ``shards:'train-*.tar'`` those that fit. A class is told by ``NAME.cls`` or a label in
    ``NAME.json`` beside ``NAME.jpg``, else by the folder of the image in its tar; in Parquet by a
    column, as in a table. Shards whose names say ``train`` and ``test`` (else ``val``) are split so;
    where none says anything, ``test_fraction`` of each class is held out by the names of shard and
    image alone. No image is decoded before it is needed, and none is kept: each is read alone, from
    where the index has it, which the first run writes.

    Raises:
        ConfigError: no place, a URL, or a key that means nothing here.
        StreamError: there are no shards, one is damaged, an image has no class, or the shards do not
            agree on splits.
        UnreadableImageError: images that cannot be read, all of them listed.
    """
    refuse_options(config, "place", "test_fraction", "image_column", "label_column")
    shards = _read(config)
    test, remark = _test(shards, config)
    sets = []
    for split, mask in (("train", shards.for_training(test)), ("test", test)):
        positions = np.flatnonzero(mask & shards.sound)
        sets.append(shards.images(positions[capped(shards.labels[positions], config, split, seed)]))
    remarks = (remark,) if remark else ()
    return Source("shards", shards.names, sets[0], sets[1], shards.skipped, remarks=remarks)


@dataclass(frozen=True)
class LabelledShards:
    """Labelled images of shards, without a share held out.

    Attributes:
        parted: whether the shards say which images are for testing; else these are all.
    """

    images: ShardImages
    class_names: tuple[str, ...]
    skipped: tuple[str, ...]
    parted: bool


def labelled_shards(config: StreamConfig, side: Literal["train", "test"]) -> LabelledShards:
    """Return the images of a side, or all where nothing says which are for testing.

    Raises:
        PerdureError: as `load_shards`.
    """
    shards = _read(config)
    splits = ("train", "test", "validation", "")
    said = {split for split in splits if shards.index.of_split(split).any()}
    parted = bool(said & {"test", "validation"}) and bool(said & {"train", ""})
    mask = np.ones(len(shards.index), dtype=bool)
    if parted:
        test, _ = _test(shards, replace(config, test_fraction=StreamConfig.test_fraction))
        mask = test if side == "test" else shards.for_training(test)
    images = shards.images(np.flatnonzero(mask & shards.sound))
    return LabelledShards(images, shards.names, shards.skipped, parted)


@dataclass(frozen=True)
class _Shards:
    """What shards hold.

    Attributes:
        labels: of every image, the place of its class among the names.
        sound: which can be read.
        skipped: the others, each with the reason.
    """

    index: ShardIndex
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    sound: NDArray[np.bool_]
    skipped: tuple[str, ...]

    def images(self, positions: NDArray[np.int64]) -> ShardImages:
        """The images at these places."""
        return ShardImages(self.index, positions, self.labels[positions])

    def for_training(self, test: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Mask of what is neither for testing nor, beside it, for validation."""
        return ~test & ~self.index.of_split("validation")


def _read(config: StreamConfig) -> _Shards:
    index = indexed(find_shards(config.place), config)
    if not len(index):
        raise StreamError(f"'{config.place}' holds no image. Name shards that hold some.")
    names = ordered_names(index.classes)
    order = {name: label for label, name in enumerate(names)}
    labels = np.array([order[name] for name in index.classes], np.int64)[index.label]
    unreadable = _unreadable(index, config)
    sound = np.ones(len(index), dtype=bool)
    sound[list(unreadable)] = False
    told = tuple(f"{index.name(at)}: {why}" for at, why in unreadable.items())
    return _Shards(index, names, labels, sound, told)


def find_shards(place: str | None) -> list[Path]:
    """Return the shards that a place stands for, in order.

    Raises:
        ConfigError: none was named, or a URL.
        StreamError: there are none.
    """
    if place is None:
        raise ConfigError("data=shards names no shards. Type data=shards:FOLDER.")
    if is_url(place):
        raise ConfigError(
            f"data=shards:{place}: images are read in any order while a model learns, and shards must "
            "lie on a disk for that. Fetch them first. (perdure predict --ray reads URLs.)"
        )
    path = expanded(place)
    if path.is_dir():
        found = _in_folder(path)
        found = found or [
            one for part in ("train", "test", "val") for one in _in_folder(path / part)
        ]
    elif path.is_file():
        found = [path] if _is_shard(path) else []
    else:
        found = sorted(filter(_is_shard, path.parent.glob(path.name))) if _is_wild(path) else []
    if not found:
        raise StreamError(
            f"There are no shards at '{place}'. Expected are files ending in .tar, .tar.gz, .tgz or "
            ".parquet: type data=shards:FOLDER or data='shards:train-*.tar'."
        )
    return found


def _in_folder(folder: Path) -> list[Path]:
    return sorted(filter(_is_shard, folder.iterdir())) if folder.is_dir() else []


def _is_shard(path: Path) -> bool:
    named = is_tar(path.name) or is_parquet(path.name)
    return named and not is_hidden(path.name) and path.is_file()


def _is_wild(path: Path) -> bool:
    return any(character in path.name for character in _WILD) and path.parent.is_dir()


def _test(shards: _Shards, config: StreamConfig) -> tuple[NDArray[np.bool_], str]:
    """Mask of the test images, and a remark on images that are for neither."""
    index = shards.index
    train, test, validation, unsaid = (
        index.of_split(split) for split in ("train", "test", "validation", "")
    )
    told = test if test.any() else validation
    if told.any():
        if unsaid.any() or not train.any():
            one = index.name(int(np.flatnonzero(unsaid if unsaid.any() else told)[0]))
            raise StreamError(
                f"Some shards say what they are for, but nothing says that '{one}' is for training. "
                "Name shards train-….tar and test-….tar, or put them into folders of these names."
            )
        why = "the shards say which images are for testing. Leave test_fraction out."
        refuse_test_fraction(config, why)
        beside = int(validation.sum()) if test.any() else 0
        remark = f"{counted(beside, 'image')} of validation shards left out." if beside else ""
        return told, remark
    held_out = np.zeros(len(index), dtype=bool)
    for label, name in enumerate(shards.names):
        ours = np.flatnonzero(shards.labels == label)
        first = index.name(int(ours[0]))
        count = held_out_count(len(ours), config.test_fraction, f"'{name}'", first)
        held_out[ours[np.argsort(index.draw[ours], kind="stable")[:count]]] = True
    return held_out, ""


def _unreadable(index: ShardIndex, config: StreamConfig) -> dict[int, str]:
    """Why images cannot be read, by position; they may be left out.

    Raises:
        UnreadableImageError: they may not.
    """
    faults = dict(index.faults)
    if not config.skip_unreadable:
        if faults:
            raise unreadable_images([f"{index.name(at)}: {why}" for at, why in faults.items()])
        return {}
    everything = ShardImages(index, np.arange(len(index)), np.zeros(len(index), np.int64))
    for at, line in everything.faults(at for at in range(len(index)) if at not in faults).items():
        faults[at] = line.removeprefix(f"{index.name(at)}: ")
    return dict(sorted(faults.items()))
