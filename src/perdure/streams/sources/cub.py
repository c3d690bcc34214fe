"""CUB-200-2011: birds, with the publisher's split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from perdure.errors import StreamError
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig
from perdure.streams.fetch.published import PUBLISHED
from perdure.streams.images.file_sets import LabelledFiles, file_source, refuse_missing
from perdure.streams.sources.base import Source, refuse_options


@SOURCES.register("cub200")
def load_cub200(config: StreamConfig, seed: int) -> Source:
    """Load 5,994 training and 5,794 test photographs of 200 species of birds.

    Split and labels are the publisher's, from ``train_test_split.txt`` and
    ``image_class_labels.txt``.

    Raises:
        ConfigError: a key that means nothing here.
        StreamError: the files are not at hand, or do not fit each other.
    """
    refuse_options(config, "place")
    root = PUBLISHED["cub200"].root(config.place) / "CUB_200_2011"
    files, classes, training = (
        _column(root / name)
        for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt")
    )
    for name, column in (("image_class_labels", classes), ("train_test_split", training)):
        if column.keys() != files.keys():
            odd = sorted(column.keys() ^ files.keys())[0]
            raise StreamError(
                f"'{root}': images.txt and {name}.txt do not name the same images; {odd} is in one "
                f"of them only. Remove '{root.parent}' and type: perdure data fetch cub200"
            )
    numbers = sorted(set(classes.values()), key=lambda number: number.zfill(3))
    label_of = {number: label for label, number in enumerate(numbers)}
    folders = {classes[image]: file.partition("/")[0] for image, file in files.items()}
    paths = [root / "images" / file for file in files.values()]
    refuse_missing("cub200", paths)
    labels = np.array([label_of[classes[image]] for image in files], np.int64)
    for_training = np.array([training[image] == "1" for image in files])
    train, test = (
        LabelledFiles([paths[index] for index in np.flatnonzero(mask)], labels[mask])
        for mask in (for_training, ~for_training)
    )
    names = [_readable(folders[number]) for number in numbers]
    return file_source("cub200", names, train, test, config, seed, published=True)


def _column(path: Path) -> dict[str, str]:
    """Read a file of image numbers and values."""
    lines = [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    column = {image: about for image, _, about in (line.partition(" ") for line in lines)}
    if len(column) != len(lines) or not all(column.values()):
        raise StreamError(
            f"'{path}' must have a line per image: its number, a space and its value. Remove "
            f"'{path.parents[1]}' and type: perdure data fetch cub200"
        )
    return column


def _readable(folder: str) -> str:
    """Return a class name without its number and underscores.

    Examples:
        >>> _readable("001.Black_footed_Albatross")
        'Black footed Albatross'
    """
    return (folder.partition(".")[2] or folder).replace("_", " ")
