"""Data sets of Hugging Face's ``datasets``: by name on the hub, or saved on disk."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perdure.cache import expanded
from perdure.class_names import are_numbers, class_name, class_names, ordered_names
from perdure.errors import ConfigError, StreamError
from perdure.randomness import permutation
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig, refuse_test_fraction
from perdure.streams.decoding import decode, upright_rgb
from perdure.streams.images.sets import ImageSet, unreadable_images
from perdure.streams.sources.base import Domains, Source, capped, refuse_options
from perdure.streams.sources.resolve import is_saved
from perdure.streams.sources.table import IMAGES, LABELS, find_column, find_domain_column
from perdure.streams.sources.table_file import image_of_cell
from perdure.wording import listed

_TESTS = ("test", "validation")


class DatasetImages(ImageSet):
    """Image set of some rows of a data set, decoded on access."""

    def __init__(
        self,
        rows: Any,
        column: str,
        positions: NDArray[np.int64],
        labels: NDArray[np.int64],
        names: Sequence[str],
    ) -> None:
        super().__init__(labels, names)
        self._rows, self._column, self._positions = rows, column, positions

    def readable(self) -> tuple[DatasetImages, list[int], tuple[str, ...]]:
        """Decode every image once, and leave out those that cannot be read.

        Returns:
            The others, their positions among all, and ``"name: reason"`` per image left out.
        """
        faults = self.faults(range(len(self)))
        kept = [index for index in range(len(self)) if index not in faults]
        names = [self.names[index] for index in kept]
        positions, labels = self._positions[kept], self.labels[kept]
        others = DatasetImages(self._rows, self._column, positions, labels, names)
        return others, kept, tuple(faults.values())

    def image(self, index: int) -> Image.Image:
        """Return one image, see `ImageSet.image`."""
        try:
            image = self._rows[int(self._positions[index])][self._column]
            if not isinstance(image, Image.Image):
                name = self.names[index]
                return decode(image_of_cell(image, Path(), name, name))
            return upright_rgb(image)
        except StreamError as error:
            raise unreadable_images([str(error)]) from error
        except Exception as error:  # of any kind: PIL's decoders, formats of the library
            raise unreadable_images([f"{self.names[index]}: {error}"]) from error


@SOURCES.register("huggingface")
def load_huggingface(config: StreamConfig, seed: int) -> Source:
    """Load a data set by its hub name, or from a folder written by ``save_to_disk``.

    The column of images and that of labels are found by their kind, or named by ``image_column`` and
    ``label_column``. Test images are those of the split ``test``, else of ``validation``; a data set
    without either gives ``test_fraction`` of each class, drawn by ``seed``. Streams over domains
    read one more column, ``domain`` or what ``domain_column`` names.

    Raises:
        ConfigError: no name, a key that means nothing here, or no ``datasets``.
        StreamError: a data set that cannot be loaded or has no images or labels.
    """
    used = ("place", "test_fraction", "image_column", "label_column", "domains", "domain_column")
    refuse_options(config, *used)
    if config.place is None:
        raise ConfigError("data=huggingface names no data set. Type data=hf:NAME.")
    where = config.place
    splits = _load(where)
    train, test = (chosen_split(splits, split)[0] for split in ("train", "test"))
    if test is not train:
        why = f"the data set '{where}' says which images are for testing. Leave test_fraction out."
        refuse_test_fraction(config, why)
    domain = None
    if config.over_domains:
        columns = list(train.features)
        domain = columns[find_domain_column(columns, config, f"The data set '{where}'")]
    image, label = _image_column(train, config, where), _label_column(train, config, where, domain)
    names = ordered_values(train, label, where)
    areas = () if domain is None else ordered_values(train, domain, where)
    sets, areas_of, skipped = [], [], list[str]()
    for split, rows in (("train", train), ("test", test)):
        labels = _numbers(rows, label, names, where)
        domain_of = np.zeros_like(labels)
        if domain is not None:
            domain_of = _numbers(rows, domain, areas, where)
        groups = labels * max(1, len(areas)) + domain_of
        kept = np.ones(len(labels), dtype=bool)
        if test is train:
            held_out = _held_out(groups, config.test_fraction, seed)
            kept = held_out if split == "test" else ~held_out
        positions = np.flatnonzero(kept)
        positions = positions[capped(groups[positions], config, split, seed)]
        called = [f"{where}[{split}][{position}]" for position in positions]
        images = DatasetImages(rows, image, positions, labels[positions], called)
        if config.skip_unreadable:
            images, left, faults = images.readable()
            positions = positions[left]
            skipped += faults
        sets.append(images)
        areas_of.append(domain_of[positions])
    domains = Domains(areas, *areas_of) if areas else None
    return Source("huggingface", names, sets[0], sets[1], tuple(skipped), domains)


def _load(place: str) -> dict[str, Any]:
    """Return the splits of a data set by name."""
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise ConfigError(
            "Data sets of Hugging Face need its library. Type: pip install 'perdure[hf]'"
        ) from error
    folder = expanded(place)
    try:
        if folder.is_dir() and is_saved(folder):
            splits = datasets.load_from_disk(str(folder))
        else:
            splits = datasets.load_dataset(place)
    except Exception as error:  # of any kind: hub, network, formats
        raise StreamError(
            f"The data set '{place}' cannot be loaded ({str(error).partition(chr(10))[0]}). Give a "
            "hub name, as data=hf:cifar100, or the folder where save_to_disk left it."
        ) from error
    return dict(splits) if isinstance(splits, dict) else {"train": splits}


def _of_kind(rows: Any, kind: str) -> list[str]:
    return [name for name, feature in rows.features.items() if type(feature).__name__ == kind]


def _image_column(rows: Any, config: StreamConfig, place: str) -> str:
    named, where = config.image_column, f"The data set '{place}'"
    columns: list[str] = list(rows.features)
    images = _of_kind(rows, "Image") or [name for name in columns if name.lower() in IMAGES]
    if named is None and not images:
        raise StreamError(f"{where} has no column of images. It has: {listed(columns, 20)}.")
    return columns[find_column(columns, images, named, "image_column", where)]


def _label_column(rows: Any, config: StreamConfig, place: str, domain: str | None = None) -> str:
    named, where = config.label_column, f"The data set '{place}'"
    classes = [name for name in _of_kind(rows, "ClassLabel") if name != domain]
    if named is None and len(classes) > 1:
        raise StreamError(
            f"{where} has several columns of classes: {', '.join(classes)}. Name one, as "
            f"label_column={classes[0]}"
        )
    usual = [*classes, *LABELS, "labels"]
    columns: list[str] = list(rows.features)
    return columns[find_column(columns, usual, named, "label_column", where)]


def ordered_values(rows: Any, column: str, where: str) -> tuple[str, ...]:
    """Return the names of a split's classes or domains: in its own order where it declares one.

    Raises:
        StreamError: a value that names nothing, or two declared names that are one.
    """
    declared = _declared(rows, column, where)
    if declared is None:
        return ordered_names(_row_names(rows, column, where))
    twice = [name for name, times in Counter(declared).items() if times > 1]
    if twice:
        raise StreamError(
            f"The data set '{where}' has two classes called '{twice[0]}'. Rename one of them."
        )
    return tuple(declared)


def _declared(rows: Any, column: str, where: str) -> list[str] | None:
    """Names behind the numbers of a column of classes; None where values stand for themselves."""
    names = getattr(rows.features[column], "names", None)
    if not names:
        return None
    return [class_name(name, f"class {i} of '{where}'") for i, name in enumerate(names)]


def _row_names(rows: Any, column: str, where: str) -> list[str]:
    """Return the name of every row's class or domain, by which splits understand each other."""
    declared, values = _declared(rows, column, where), rows[column]
    if declared is None:
        return class_names(values, lambda row: f"row {row} of '{where}', column '{column}'")
    for row, value in enumerate(values):
        if not isinstance(value, int) or not 0 <= value < len(declared):
            raise StreamError(
                f"Row {row} of '{where}' has {value!r} in column '{column}', which is none of its "
                f"classes, numbered 0 … {len(declared) - 1}: {listed(declared)}."
            )
    return [declared[value] for value in values]


def _numbers(rows: Any, column: str, names: Sequence[str], where: str) -> NDArray[np.int64]:
    """Return the position among ``names`` of every row's class or domain.

    Raises:
        StreamError: a class that is not among them.
    """
    known = {name: place for place, name in enumerate(names)}
    named = _row_names(rows, column, where)
    strange = next((name for name in named if name not in known), None)
    if strange is not None:
        raise StreamError(
            f"'{where}' has '{strange}' in column '{column}', which its training images lack. Known: "
            f"{listed(names)}."
        )
    return np.array([known[name] for name in named], dtype=np.int64)


def _held_out(labels: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Return a mask of the held-out share of each class, drawn by the seed."""
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(positions))), len(positions) - 1)
        order = permutation(len(positions), seed, "held out", int(label))
        mask[positions[order[:count]]] = True
    return mask


def split_of(place: str, split: str) -> tuple[Any, bool]:
    """Load one split of a data set, by its hub name or from its folder; see `chosen_split`.

    Raises:
        ConfigError: there is no ``datasets``.
        StreamError: a data set that cannot be loaded.
    """
    return chosen_split(_load(place), split)


def chosen_split(splits: Any, split: str) -> tuple[Any, bool]:
    """Choose the training or test split among several by name; a single one is both.

    Returns:
        Its rows, and whether there are splits for both.
    """
    train = splits.get("train", next(iter(splits.values())))
    test = next((splits[name] for name in _TESTS if name in splits), train)
    return (train if split == "train" else test), test is not train


def dataset_pictures(rows: Any, config: StreamConfig, where: str) -> DatasetImages:
    """Hold the images of a data set, without its labels.

    Raises:
        StreamError: it has no images.
    """
    positions = np.arange(len(rows))
    called = [f"{where}[{position}]" for position in positions]
    column = _image_column(rows, config, where)
    return DatasetImages(rows, column, positions, np.zeros_like(positions), called)


def dataset_images(
    rows: Any, config: StreamConfig, where: str
) -> tuple[DatasetImages, tuple[str, ...], tuple[str, ...], bool]:
    """Hold the images of a data set, labelled by position among its classes.

    Returns:
        The images, names of the classes, unreadable images left out where they may be, and whether
        labels are numbers that stand for themselves.

    Raises:
        StreamError: it has no images or labels.
    """
    images, label = dataset_pictures(rows, config, where), _label_column(rows, config, where)
    names = ordered_values(rows, label, where)
    images.labels = _numbers(rows, label, names, where)
    numbered = _declared(rows, label, where) is None and are_numbers(rows[label])
    if not config.skip_unreadable:
        return images, names, (), numbered
    others, _, faults = images.readable()
    return others, names, faults, numbered
