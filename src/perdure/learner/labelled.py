"""Labelled images from what is handed in: a folder, a table, a data set, or images with labels."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch.utils.data
from numpy.typing import NDArray

from perdure.cache import expanded
from perdure.class_names import are_numbers, class_name, class_names, ordered_names
from perdure.errors import StreamError, UnreadableImageError, first_line
from perdure.learner.pictures import PictureImages, as_pictures, checked_pictures
from perdure.streams import ImageSet, StreamConfig, load_source, resolve
from perdure.streams.decoding import EncodedImage
from perdure.streams.images.file_sets import LabelledFiles, checked_images
from perdure.streams.images.left_out import LeftOut
from perdure.streams.images.sets import unreadable_images
from perdure.streams.sources.folder import class_files, image_root, labelled, parts
from perdure.streams.sources.huggingface import chosen_split, dataset_images, split_of
from perdure.streams.sources.shards import labelled_shards
from perdure.streams.sources.table import IMAGES, LABELS, find_column, table_files
from perdure.streams.sources.table_file import image_of_cell

Side = Literal["train", "test"]

NONE = "none"
"""Name of a folder or label whose images are of no class, unless the model knows a class so called."""

FORMS = (
    "a folder with a folder per class, a table (CSV, TSV, Parquet) of path and label, hf:NAME, a "
    "pandas DataFrame, a data set of Hugging Face, a torch Dataset of (image, label), or images "
    "and labels"
)
_PAIR = 2
_FILES = (str, Path, EncodedImage)
_FRAME = "The DataFrame"
_ONE = np.zeros(1, dtype=np.int64)
"""Labels of an image that is checked by itself."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with the names of their classes.

    Attributes:
        images: labelled by position in ``names``.
        names: names of the classes that have an image, in the order in which they are learned.
        skipped: ``"path: reason"`` per unreadable image that was left out.
        numbered: whether the labels were numbers, not texts.
        part: which of the images these are, where the data could tell training from test images.
        left_out: what of a folder was left out, in words.

    Raises:
        StreamError: there is no image.
    """

    images: ImageSet
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    numbered: bool = False
    part: str = ""
    left_out: str = ""

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
    # A lesson brings classes, whatever the stream brought that the model was trained on.
    config = replace(config, increment="classes", domain_column=None, domains=())
    if labels is not None:
        return _pairs(as_pictures(data), _values(labels), config)
    if isinstance(data, str | Path):
        return _named(str(data), side, config, seed)
    if is_frame(data):
        return _frame(data, config)
    if is_hugging_face(data):
        rows, parted = chosen_split(data, side) if isinstance(data, dict) else (data, False)
        images = _present(*dataset_images(rows, config, "handed in"))
        return _part(images, side, parted) if isinstance(data, dict) else images
    if isinstance(data, torch.utils.data.Dataset) and hasattr(data, "__len__"):
        return _torch_dataset(data, config)
    raise StreamError(
        f"{type(data).__name__} is nothing to take labelled images from. Allowed: {FORMS}, as "
        "learn(images, labels)."
    )


def is_frame(data: Any) -> bool:
    """Tell whether something is a DataFrame of pandas."""
    return hasattr(data, "columns") and hasattr(data, "iloc")


def is_hugging_face(data: Any) -> bool:
    """Tell whether something is a data set of Hugging Face, or several by name."""
    return type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "__len__")


def _named(data: str, side: Side, config: StreamConfig, seed: int) -> LabelledImages:
    """A folder, a table, a data set by name, or a known stream."""
    config = replace(config, data=resolve(data))
    if config.source == "shards":
        found = labelled_shards(config, side)
        present = _present(found.images, found.class_names, found.skipped)
        return _part(present, side, found.parted)
    if config.source == "folder":
        root, left_out = image_root(config.place), LeftOut()
        sides = parts(root, left_out)
        files = class_files(sides.get(side, root), left_out)
        images, skipped = checked_images(labelled(files), config.skip_unreadable)
        told = left_out.told(root, config.place)
        present = replace(_present(images, tuple(files), skipped), left_out=told)
        return _part(present, side, len(sides) > 1)
    if config.source == "table":
        paths, names, parted = table_files(config, side)
        return _part(_pairs(list(paths), names, config), side, parted)
    if config.source == "huggingface" and config.place is not None:
        rows, parted = split_of(config.place, side)
        return _part(_present(*dataset_images(rows, config, config.place)), side, parted)
    loaded = load_source(replace(config, image_column=None, label_column=None), seed)
    chosen = loaded.train if side == "train" else loaded.test
    return _part(_present(chosen, loaded.class_names), side, True)


def _part(images: LabelledImages, side: Side, parted: bool) -> LabelledImages:
    """Note which of the images these are."""
    part = f"the {side} images" if parted else "all images: nothing says which are for testing"
    return replace(images, part=part)


def _frame(frame: Any, config: StreamConfig) -> LabelledImages:
    columns = [str(column) for column in frame.columns]
    label = find_column(columns, LABELS, config.label_column, "label_column", _FRAME)
    return _pairs(frame_pictures(frame, config), _values(frame.iloc[:, label]), config)


def frame_pictures(frame: Any, config: StreamConfig) -> list[Any]:
    """Pictures of a DataFrame, one per row.

    Raises:
        StreamError: it has no column of images.
    """
    columns = [str(column) for column in frame.columns]
    image = find_column(columns, IMAGES, config.image_column, "image_column", _FRAME)
    return [
        image_of_cell(cell, Path(), f"row {row}", f"row {row} of the DataFrame")
        if isinstance(cell, str | Path | bytes | bytearray | memoryview | dict)
        else cell
        for row, cell in enumerate(frame.iloc[:, image])
    ]


def _pairs(pictures: Sequence[Any], values: Sequence[Any], config: StreamConfig) -> LabelledImages:
    """Images with the label of each."""
    if len(pictures) != len(values):
        raise StreamError(
            f"{len(values)} labels were given for {len(pictures)} images. Give one label per image."
        )
    classes, labels = _numbered(class_names(values, "image {}".format))
    whole = bool(values) and are_numbers(values)
    if pictures and all(isinstance(picture, _FILES) for picture in pictures):
        paths = [one if isinstance(one, EncodedImage) else expanded(one) for one in pictures]
        images, skipped = checked_images(LabelledFiles(paths, labels), config.skip_unreadable)
        return _present(images, classes, skipped, whole)
    called = [
        str(picture) if isinstance(picture, _FILES) else f"image {place}"
        for place, picture in enumerate(pictures)
    ]
    some, skipped = checked_pictures(pictures, labels, called, config.skip_unreadable)
    return _present(some, classes, skipped, whole)


def _values(labels: Any) -> list[Any]:
    """Labels as a list.

    Raises:
        StreamError: they are no list.
    """
    if isinstance(labels, str | bytes | dict) or not isinstance(labels, Iterable):
        raise StreamError(
            f"Labels come as a list with one per image, and this is {type(labels).__name__}."
        )
    return labels.tolist() if hasattr(labels, "tolist") else list(labels)


class DatasetPictures(ImageSet):
    """Images of some items of a torch Dataset, taken from it when they are asked for.

    Args:
        dataset: the torch Dataset.
        places: positions of the items.
        labels: label of each.
    """

    def __init__(self, dataset: Any, places: Sequence[int], labels: NDArray[np.int64]) -> None:
        super().__init__(labels, [_item_name(dataset, place) for place in places])
        self._dataset, self._places = dataset, places

    def image(self, index: int) -> Any:
        """Return one image, upright, in mode RGB.

        Raises:
            UnreadableImageError: the item cannot be had, or is no image.
        """
        try:
            item = self._dataset[self._places[index]]
        except Exception as error:  # of any kind: a data set is somebody's program
            raise unreadable_images([f"{self.names[index]}: {first_line(error)}"]) from error
        picture = item[0] if isinstance(item, tuple | list) and item else item
        return PictureImages([picture], _ONE, [self.names[index]]).image(0)


def _torch_dataset(dataset: Any, config: StreamConfig) -> LabelledImages:
    """Images and labels as the items have them: whatever wraps, transforms or overrides them.

    Every item is decoded once, so that a damaged one is known before anything is learned.
    """
    values, kept, faults = [], [], []
    for place in range(len(dataset)):
        name = _item_name(dataset, place)
        try:
            item = dataset[place]
        except Exception as error:  # of any kind: a data set is somebody's program
            faults.append(f"{name}: {first_line(error)}")
            continue
        label = _item_label(item, place)
        try:
            PictureImages([item[0]], _ONE, [name]).image(0)
        except UnreadableImageError as error:
            faults.append(str(error))
            continue
        values.append(_item_class(label, dataset, place))
        kept.append(place)
    if faults and not config.skip_unreadable:
        raise unreadable_images(faults)
    labels = class_names(values, lambda row: f"item {kept[row]} of the data set")
    declared = getattr(dataset, "classes", None)
    names, positions = _numbered(labels, () if declared is None else _synonyms(declared))
    images = DatasetPictures(dataset, kept, positions)
    return _present(images, names, tuple(faults), bool(values) and are_numbers(values))


def _item_name(dataset: Any, place: int) -> str:
    return f"{type(dataset).__name__}[{place}]"


def _item_class(label: Any, dataset: Any, place: int) -> Any:
    """The label of an item by the name that its own data set gives the number, where it does."""
    names = _classes_at(dataset, place)
    if hasattr(label, "item") and getattr(label, "ndim", 1) == 0:
        label = label.item()
    if names is None or not isinstance(label, int) or isinstance(label, bool):
        return label
    if not 0 <= label < len(names):
        raise StreamError(
            f"Item {place} of the data set has the label {label!r}, but its {len(names)} classes "
            f"are numbered 0 … {len(names) - 1}."
        )
    return names[label]


def _classes_at(dataset: Any, place: int) -> list[str] | None:
    """Names of the classes of the innermost data set that an item comes from; None for none."""
    named = getattr(dataset, "classes", None)
    if named is not None:
        return _synonyms(named)
    if isinstance(dataset, torch.utils.data.ConcatDataset):
        part = bisect.bisect_right(dataset.cumulative_sizes, place)
        before = dataset.cumulative_sizes[part - 1] if part else 0
        return _classes_at(dataset.datasets[part], place - before)
    if isinstance(dataset, torch.utils.data.Subset):
        return _classes_at(dataset.dataset, dataset.indices[place])
    inner = getattr(dataset, "dataset", None)
    return None if inner is None else _classes_at(inner, place)


def _synonyms(named: Sequence[Any]) -> list[str]:
    """One name per class: of several synonyms the first, or all where two classes begin alike.

    Raises:
        StreamError: two classes have the same.
    """
    several = [name if isinstance(name, tuple | list) else (name,) for name in named]
    firsts = Counter(str(names[0]) for names in several if names)
    chosen = [
        str(names[0]) if names and firsts[str(names[0])] == 1 else ", ".join(map(str, names))
        for names in several
    ]
    _refuse_twice(chosen)
    return [class_name(name, f"class {number}") for number, name in enumerate(chosen)]


def _numbered(
    names: Sequence[str], declared: Sequence[str] = ()
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Each name once, in the declared order or else by name, and the position of every image's."""
    present = set(names)
    classes = tuple(name for name in declared if name in present)
    if len(classes) < len(present):
        classes = ordered_names(present)
    position = {name: place for place, name in enumerate(classes)}
    return classes, np.array([position[name] for name in names], dtype=np.int64)


def _item_label(item: Any, place: int) -> Any:
    if not isinstance(item, tuple | list) or len(item) != _PAIR:
        raise StreamError(
            f"Item {place} of the data set is {type(item).__name__}, not a pair of image and label."
        )
    return item[1]


def _present(
    images: ImageSet, names: Sequence[str], skipped: tuple[str, ...] = (), numbered: bool = False
) -> LabelledImages:
    """Leave out classes without an image.

    Raises:
        StreamError: two classes share a name.
    """
    _refuse_twice(names)
    used = np.unique(images.labels)
    images.labels = np.searchsorted(used, images.labels)
    return LabelledImages(images, tuple(names[label] for label in used), skipped, numbered)


def _refuse_twice(names: Sequence[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise StreamError(
                f"Two classes are called '{name}'. Give each class a name of its own."
            )
