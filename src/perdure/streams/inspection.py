"""Inspection of a data set: unreadable images, duplicates, small classes, unusual formats."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perdure.cache import expanded, sha256_of
from perdure.class_names import look_alikes
from perdure.errors import ConfigError, UnknownNameError, UnreadableImageError, did_you_mean
from perdure.streams.config import StreamConfig
from perdure.streams.decoding import EncodedImage, ImageFile, examine
from perdure.streams.fetch.download import Progress
from perdure.streams.fetch.published import PUBLISHED
from perdure.streams.images.left_out import LeftOut
from perdure.streams.images.sets import ArrayImages, FileImages
from perdure.streams.sources.base import load_source
from perdure.streams.sources.folder import LAYOUT, found_files, image_root, parts
from perdure.streams.sources.resolve import TABLES
from perdure.streams.sources.table import table_rows
from perdure.wording import listed

KINDS = ("gray", "alpha", "cmyk", "turned")
"""What is counted of images that are read all the same: fields of `Stored`."""

_UNTAKEN = {
    "dangling": ("unreadable", "a link that leads nowhere"),
    "unnamed": ("left out", "an image whose name has no ending of one"),
    "loose": ("left out", "an image beside the class folders"),
}
"""What is left out of a folder and is likely to be missed: kind of fault, and what is said."""


@dataclass(frozen=True)
class Fault:
    """Fault in a data set that would spoil a run or its result.

    Attributes:
        kind: ``unreadable``, ``left out``, ``duplicate``, ``few``, ``alike``, ``extension`` or
            ``incomplete``.
        text: description, with the files' names.
    """

    kind: str
    text: str


@dataclass
class Inspection:
    """Result of an inspection.

    Attributes:
        name: the data set, folder or table.
        classes: number of classes.
        train: training images that can be read.
        test: test images that can be read; 0 where a share of each class is held out in a run.
        faults: faults in the order of the files.
        unusual: numbers of gray, alpha, CMYK and EXIF-turned images; all of them are read.
        ignored: number of files and folders that were left out.
        left_out: how many of them, by reason, one of ``left_out.REASONS``; without litter.
        told: what was left out in words, with examples.
    """

    name: str
    classes: int = 0
    train: int = 0
    test: int = 0
    faults: list[Fault] = field(default_factory=list)
    unusual: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    ignored: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    told: str = ""


@dataclass(frozen=True, eq=False)
class _Item:
    """Image of the inspected data set.

    Attributes:
        name: name in faults.
        split: ``train`` or ``test``.
        class_name: its class.
        content: its file, or its pixels.
    """

    name: str
    split: str
    class_name: str
    content: ImageFile | NDArray[np.uint8]


def inspect(
    name: str,
    least: int = 2,
    on_progress: Progress | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Inspection:
    """Inspect every image of a published data set, a folder per class, or a table.

    One image is in memory at a time.

    Args:
        name: a published data set, or a folder or table as ``data=`` takes it.
        least: smallest number of readable images per class, training and test together.
        on_progress: receives the number of images done.
        image_column: column of paths in a table; guessed where None.
        label_column: column of classes in a table; guessed where None.

    Raises:
        ConfigError: a column is named, and there is no table.
        UnknownNameError: there is no such data set, folder or table.
        StreamError: the data set is not at hand, the folder has another layout, or the table does
            not say what is needed.
    """
    if name not in PUBLISHED and not (name and expanded(name).exists()):
        raise UnknownNameError(
            f"'{name}' is neither a published data set nor a folder or table."
            f"{did_you_mean(name, PUBLISHED)} Known: {', '.join(PUBLISHED)}, every folder that "
            f"holds {LAYOUT}, and every table ({', '.join(TABLES)}) of path and label."
        )
    result = Inspection(name)
    columns = StreamConfig(image_column=image_column, label_column=label_column)
    classes, items = _listed(name, result, columns)
    splits = sorted({item.split for item in items})
    readable: Counter[tuple[str, str]] = Counter()
    seen: dict[str, _Item] = {}
    for done, item in enumerate(items, start=1):
        if _look(item, result):
            readable[item.split, item.class_name] += 1
            first = seen.setdefault(_digest(item.content), item)
            # Without a test folder, a share is held out later, and may separate the two.
            if first.split != item.split or (first is not item and len(splits) == 1):
                text = f"{first.name} ({first.split}) and {item.name} ({item.split})"
                result.faults.append(Fault("duplicate", text))
        if on_progress is not None:
            on_progress("looking at images", done, len(items))
    result.classes = len(classes)
    result.train, result.test = (
        sum(readable[split, name] for name in classes) for split in ("train", "test")
    )
    for class_name in classes:
        counts = {split: readable[split, class_name] for split in splits}
        if sum(counts.values()) < least:
            text = f"class '{class_name}': {sum(counts.values())} readable, {least} wanted"
            result.faults.append(Fault("few", text))
        elif 0 in counts.values():
            split = next(split for split, count in counts.items() if not count)
            result.faults.append(Fault("few", f"class '{class_name}': none readable in {split}"))
    for names in look_alikes(classes):
        text = (
            f"classes {listed([repr(name) for name in names])} differ in case, width or form alone"
        )
        result.faults.append(Fault("alike", text))
    return result


def _published(name: str, inspection: Inspection) -> tuple[Sequence[str], list[_Item]]:
    published = PUBLISHED[name]
    if published.files:
        published.root(None)  # some sources would fetch what is not at hand
    source = load_source(StreamConfig(data=name))
    items = []
    for split, images in (("train", source.train), ("test", source.test)):
        assert isinstance(images, (FileImages, ArrayImages))
        contents = images.paths if isinstance(images, FileImages) else images.pixels
        items += [
            _Item(image, split, source.class_names[label], content)
            for image, label, content in zip(images.names, images.labels, contents, strict=True)
        ]
    if len(items) != published.images:
        text = f"{len(items):,} images, {published.images:,} are published"
        inspection.faults.append(Fault("incomplete", text))
    return source.class_names, items


def _listed(
    name: str, inspection: Inspection, columns: StreamConfig
) -> tuple[Sequence[str], list[_Item]]:
    """All classes and images."""
    path = expanded(name)
    if name not in PUBLISHED and path.is_file() and path.suffix.lower() in TABLES:
        return _table(path, columns)
    if columns != StreamConfig():
        raise ConfigError(
            f"'{name}' is no table, so it has no columns. Leave image_column and label_column out."
        )
    return _published(name, inspection) if name in PUBLISHED else _folder(Path(name), inspection)


def _table(path: Path, columns: StreamConfig) -> tuple[Sequence[str], list[_Item]]:
    rows = table_rows(path, columns)
    # Without a column of splits all are for training: a share is held out later.
    items = [_Item(str(row.path), row.split or "train", row.label, row.path) for row in rows]
    return sorted({row.label for row in rows}), items


def _folder(path: Path, inspection: Inspection) -> tuple[Sequence[str], list[_Item]]:
    root, left_out = image_root(path), LeftOut()
    classes: set[str] = set()
    items = []
    for split, folder in parts(root, left_out).items():
        for class_name, files in found_files(folder, left_out).items():
            classes.add(class_name)
            items += [_Item(str(file), split, class_name, file) for file in files]
    for reason, (kind, text) in _UNTAKEN.items():
        inspection.faults += [
            Fault(kind, f"{file}: {text}") for file in sorted(left_out.paths[reason])
        ]
    inspection.left_out = {reason: len(paths) for reason, paths in left_out.paths.items() if paths}
    inspection.ignored = left_out.litter + sum(inspection.left_out.values())
    inspection.told = left_out.told(root, path)
    return sorted(classes), items


def _look(item: _Item, inspection: Inspection) -> bool:
    """Record faults and unusual properties of an image; returns whether it can be read."""
    if isinstance(item.content, np.ndarray):
        return True
    try:
        stored = examine(item.content)
    except UnreadableImageError as error:
        inspection.faults.append(Fault("unreadable", str(error)))
        return False
    for kind in KINDS:
        inspection.unusual[kind] += getattr(stored, kind)
    # Several pictures in one file, as telephones write them, are a JPEG to everybody else.
    content = "JPEG" if stored.format == "MPO" else stored.format
    if isinstance(item.content, EncodedImage):
        return True
    if Image.registered_extensions().get(item.content.suffix.lower()) != content:
        inspection.faults.append(Fault("extension", f"{item.name}: its content is {content}"))
    return True


def _digest(content: ImageFile | NDArray[np.uint8]) -> str:
    if isinstance(content, Path):
        return sha256_of(content)
    held = content.content if isinstance(content, EncodedImage) else content.tobytes()
    return hashlib.sha256(held).hexdigest()
