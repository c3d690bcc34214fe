"""Samples of shards: an image with its class and split, as WebDataset and Parquet have them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from perdure.class_names import class_name, declared_name
from perdure.errors import StreamError
from perdure.streams.config import StreamConfig
from perdure.streams.decoding import EncodedImage
from perdure.streams.images.find_images import is_hidden, is_image_name
from perdure.streams.shards import parquets, tars
from perdure.streams.sources.table import IMAGES, LABELS, SPLITS, find_column
from perdure.streams.sources.table_file import image_of_cell, names_of_datasets
from perdure.wording import listed

_SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
}


@dataclass(frozen=True)
class Sample:
    """An image of a shard.

    Attributes:
        name: what it is called there: a path, or the number of its row.
        offset: where its content begins; None where it has no place of its own in the shard.
        content: bytes of the image's file.
        label: name of its class.
        split: ``train``, ``test``, ``validation``, or empty where nothing says.
    """

    name: str
    offset: int | None
    content: bytes
    label: str
    split: str


def split_named(name: str) -> str:
    """Return the split that a name tells, or an empty text.

    Examples:
        >>> split_named("imagenet-train-0001.tar"), split_named("val"), split_named("trainer.tar")
        ('train', 'validation', '')
    """
    words = re.split(r"[\W_]+", name.lower())
    return next((_SPLIT_OF[word] for word in words if word in _SPLIT_OF), "")


def samples(shard: Path, config: StreamConfig) -> Iterator[Sample]:
    """Read the images of a shard with their classes, in order; one is in memory at a time.

    Args:
        shard: a tar or a Parquet file.
        config: names columns: of Parquet, or in a tar's JSON files.

    Raises:
        StreamError: the shard is damaged or cut short, or an image has no class.
    """
    split = split_named(shard.name) or _SPLIT_OF.get(shard.parent.name.lower(), "")
    return (_in_tar if tars.is_tar(shard.name) else _in_parquet)(shard, config, split)


def _in_tar(shard: Path, config: StreamConfig, split: str) -> Iterator[Sample]:
    packed = tars.is_packed(shard.name)
    files = (one for one in tars.members(str(shard)) if not is_hidden(PurePosixPath(one.name).name))
    for key, group in itertools.groupby(files, key=lambda one: _key(one.name)):
        parts = list(group)
        images = [one for one in parts if is_image_name(one.name)]
        if not images:
            continue
        where = f"'{shard}[{key}]'"
        if len(images) > 1:
            raise StreamError(
                f"{where} has {len(images)} images: {listed([one.name for one in images])}. A sample "
                "has one; write the others under other names."
            )
        image = images[0]
        label = _label(parts, config.label_column, where)
        folders = PurePosixPath(image.name).parts[:-1]
        if label is None:
            if not folders:
                raise StreamError(
                    f"{where} has no class: neither {key}.cls nor {key}.json with a label is beside "
                    f"it, nor is it in a folder. It has: {listed([one.name for one in parts])}."
                )
            label = folders[-1]
        named = split or (split_named(folders[0]) if folders else "")
        offset = None if packed else image.offset
        yield Sample(image.name, offset, image.content, class_name(label, where), named)


def _key(name: str) -> str:
    """What the files of a sample have in common: the path up to the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _label(parts: Sequence[tars.Member], column: str | None, where: str) -> Any:
    """The class that the files beside an image state; None where none does."""
    by_ending = {one.name.rpartition("/")[2].partition(".")[2].lower(): one for one in parts}
    for ending in ("cls", column or "cls"):
        if ending in by_ending:
            return by_ending[ending].content.decode("utf-8", "replace").strip()
    if "json" not in by_ending:
        return None
    try:
        told = json.loads(by_ending["json"].content)
        return next(told[key] for key in ([column] if column else LABELS) if key in told)
    except (ValueError, TypeError, StopIteration) as error:
        raise StreamError(
            f"{where} has a JSON file without a class. It needs {column or ' or '.join(LABELS)}; name "
            "another: label_column=…"
        ) from error


def _in_parquet(shard: Path, config: StreamConfig, split: str) -> Iterator[Sample]:
    where = f"'{shard}'"
    with parquets.opened(str(shard)) as table:
        schema = table.schema_arrow
        columns = list(schema.names)
        image = find_column(columns, IMAGES, config.image_column, "image_column", where)
        label = find_column(columns, LABELS, config.label_column, "label_column", where)
        sides = [place for place, name in enumerate(columns) if name.lower() in SPLITS][:1]
        declared = names_of_datasets(schema).get(columns[label])
        wanted = [columns[place] for place in (image, label, *sides)]
        rows = parquets.cells(table, wanted, 0, table.metadata.num_rows)
        for row, (cell, value, *side) in enumerate(rows):
            here = f"row {row} of {where}"
            found = image_of_cell(cell, shard.parent, f"{shard}[{row}]", here)
            if not isinstance(found, EncodedImage):
                raise StreamError(
                    f"{where} holds paths and no images. Type data=table:{shard} to learn from them."
                )
            named = declared_name(value, declared, f"The label of {here}") if declared else value
            told = split_named(str(side[0])) if side else split
            yield Sample(str(row), None, found.content, class_name(named, here), told)
