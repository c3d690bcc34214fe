"""Labelled images from what is handed in: a folder, a table, a data set, or images with labels."""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch.utils.data
from numpy.typing import NDArray

from perdure.errors import StreamError
from perdure.learner.pictures import PictureImages, as_pictures
from perdure.streams import ImageSet, StreamConfig, load_source, resolve
from perdure.streams.images.file_sets import LabelledFiles, checked_images
from perdure.streams.sources.folder import class_files, has_test_folder, image_root, labelled
from perdure.streams.sources.huggingface import chosen_split, dataset_images, split_of
from perdure.streams.sources.table import IMAGES, LABELS, find_column, table_files

Side = Literal["train", "test"]

FORMS = (
    "a folder with a folder per class, a table (CSV, TSV, Parquet) of path and label, hf:NAME, a "
    "pandas DataFrame, a data set of Hugging Face, a torch Dataset of (image, label), or images "
    "and labels"
)
_PAIR = 2


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with the names of their classes.

    Attributes:
        images: labelled by position in ``names``.
        names: names of the classes that have an image, in the order in which they are learned.
        skipped: ``"path: reason"`` per unreadable image that was left out.

    Raises:
        StreamError: there is no image.
    """

    images: ImageSet
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.images):
            more = f" All {len(self.skipped)} were unreadable." if self.skipped else ""
            raise StreamError(f"There is no image to take.{more} Give at least one per class.")

    def counts(self, mask: NDArray[np.bool_] | None = None) -> dict[str, int]:
        """Number of images per class; with a mask, of those it chooses."""
        labels = self.images.labels if mask is None else self.images.labels[mask]
        counts = np.bincount(labels, minlength=len(self.names)).tolist()
        return dict(zip(self.names, counts, strict=True))


def gather(data: Any, labels: Any, side: Side, config: StreamConfig, seed: int) -> LabelledImages:
    """Collect labelled images of any of the `FORMS`, every one of them checked.

    Args:
        data: see `FORMS`.
        labels: names of the classes, where ``data`` is images alone.
        side: which part is meant where the data know training and test images.
        config: columns, and what happens to unreadable images.
        seed: of drawn images.

    Raises:
        UnknownNameError: a text that names nothing.
        StreamError: data of no known form, or images or labels that cannot be used.
        UnreadableImageError: images that cannot be decoded, all of them listed.
    """
    if labels is None and isinstance(data, tuple) and len(data) == _PAIR:
        data, labels = data
    if labels is not None:
        return _pairs(as_pictures(data), _label_names(labels), config)
    if isinstance(data, str | Path):
        return _named(str(data), side, config, seed)
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return _frame(data, config)
    if type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "__len__"):
        rows = chosen_split(data, side) if isinstance(data, dict) else data
        return _present(*dataset_images(rows, config, "handed in"))
    if isinstance(data, torch.utils.data.Dataset) and hasattr(data, "__len__"):
        return _torch_dataset(data, config)
    raise StreamError(
        f"{type(data).__name__} is nothing to take labelled images from. Allowed: {FORMS}, as "
        "learn(images, labels)."
    )


def _named(data: str, side: Side, config: StreamConfig, seed: int) -> LabelledImages:
    """A folder, a table, a data set by name, or a known stream."""
    config = replace(config, data=resolve(data))
    if config.source == "folder":
        root = image_root(config.place)
        files = class_files(root / side if has_test_folder(root) else root)
        images, skipped = checked_images(labelled(files), config.skip_unreadable)
        return _present(images, tuple(files), skipped)
    if config.source == "table":
        paths, names = table_files(config, side)
        return _pairs(list(paths), names, config)
    if config.source == "huggingface" and config.place is not None:
        return _present(*dataset_images(split_of(config.place, side), config, config.place))
    loaded = load_source(replace(config, image_column=None, label_column=None), seed)
    return _present(loaded.train if side == "train" else loaded.test, loaded.class_names)


def _frame(frame: Any, config: StreamConfig) -> LabelledImages:
    columns = [str(column) for column in frame.columns]
    where = "The DataFrame"
    image = find_column(columns, IMAGES, config.image_column, "image_column", where)
    label = find_column(columns, LABELS, config.label_column, "label_column", where)
    return _pairs(as_pictures(frame[image]), _label_names(frame[label]), config)


def _pairs(pictures: Sequence[Any], names: Sequence[str], config: StreamConfig) -> LabelledImages:
    """Images with the name of the class of each."""
    if len(pictures) != len(names):
        raise StreamError(
            f"{len(names)} labels were given for {len(pictures)} images. Give one label per image."
        )
    classes, labels = _numbered(names)
    if pictures and all(isinstance(picture, str | Path) for picture in pictures):
        paths = [Path(picture).expanduser() for picture in pictures]
        images, skipped = checked_images(LabelledFiles(paths, labels), config.skip_unreadable)
        return _present(images, classes, skipped)
    called = [
        str(picture) if isinstance(picture, str | Path) else f"image {place}"
        for place, picture in enumerate(pictures)
    ]
    return _present(PictureImages(pictures, labels, called), classes)


def _label_names(labels: Any) -> list[str]:
    """Names of classes from texts or whole numbers.

    Raises:
        StreamError: anything else, or both.
    """
    if isinstance(labels, str | bytes | dict) or not isinstance(labels, Iterable):
        raise StreamError(
            f"Labels come as a list with one per image, and this is {type(labels).__name__}."
        )
    values = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    names = [_label_name(value, place) for place, value in enumerate(values)]
    if len({isinstance(value, str) for value in values}) > 1:
        raise StreamError(
            "Some labels are texts and some are numbers, and 1 and '1' would be the same class. Give "
            "texts, or whole numbers."
        )
    return names


def _label_name(value: Any, place: int) -> str:
    whole = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if whole and math.isfinite(value) and value == int(value):
        return str(int(value))
    name = value.strip() if isinstance(value, str) else ""
    if not name:
        raise StreamError(
            f"The label of image {place} is {value!r}. A label is a text or a whole number."
        )
    return name


class _DatasetPictures(ImageSet):
    """The images of a torch Dataset, taken from it when they are asked for."""

    def __init__(self, dataset: Any, labels: NDArray[np.int64], names: Sequence[str]) -> None:
        super().__init__(labels, names)
        self._dataset = dataset

    def image(self, index: int) -> Any:
        """Return one image, upright, in mode RGB."""
        one = PictureImages([self._dataset[index][0]], self.labels[:1], [self.names[index]])
        return one.image(0)


def _torch_dataset(dataset: Any, config: StreamConfig) -> LabelledImages:
    labels = getattr(dataset, "targets", None)
    if labels is None or len(labels) != len(dataset):
        labels = [_item_label(dataset[place], place) for place in range(len(dataset))]
    values = [value.item() if hasattr(value, "item") else value for value in labels]
    named = getattr(dataset, "classes", None)
    called = [f"{type(dataset).__name__}[{place}]" for place in range(len(values))]
    if named is None or any(isinstance(value, str) for value in values):
        names, positions = _numbered(_label_names(values))
    else:
        names, positions = _positions(values, [str(name) for name in named])
    images = _DatasetPictures(dataset, positions, called)
    if len(images):
        images.image(0)  # a transform to tensors is noticed before anything is learned
    return _present(images, names)


def _numbered(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Each name once, by the alphabet or, where all are whole numbers, by value; and positions."""
    whole = all(name.removeprefix("-").isdecimal() for name in names)
    order: Callable[[str], Any] = int if whole else str
    classes = tuple(sorted(set(names), key=order))
    position = {name: place for place, name in enumerate(classes)}
    return classes, np.array([position[name] for name in names], dtype=np.int64)


def _positions(
    values: Sequence[Any], names: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    for place, value in enumerate(values):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 0 <= value < len(names):
            raise StreamError(
                f"Item {place} of the data set has the label {value!r}, but its {len(names)} classes "
                f"are numbered 0 … {len(names) - 1}."
            )
    return tuple(names), np.asarray(values, dtype=np.int64)


def _item_label(item: Any, place: int) -> Any:
    if not isinstance(item, tuple | list) or len(item) != _PAIR:
        raise StreamError(
            f"Item {place} of the data set is {type(item).__name__}, not a pair of image and label."
        )
    return item[1]


def _present(
    images: ImageSet, names: tuple[str, ...], skipped: tuple[str, ...] = ()
) -> LabelledImages:
    """Leave out classes without an image.

    Raises:
        StreamError: two classes share a name.
    """
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise StreamError(
            f"Two classes are called '{twice[0]}'. Give each class a name of its own."
        )
    used = np.unique(images.labels)
    images.labels = np.searchsorted(used, images.labels)
    return LabelledImages(images, tuple(names[label] for label in used), skipped)
