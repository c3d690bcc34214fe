"""Splits of VPT-NSP²'s released program: gzipped lists, a line per image."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from perdure.streams.images.file_sets import LabelledFiles, refuse_missing


def read_split(name: str) -> list[str]:
    """Return the lines of a split.

    Examples:
        >>> read_split("imagenet_r_val")[0]
        'n01910747/tattoo_75.jpg'
    """
    file = resources.files("perdure.streams.sources.splits") / f"{name}.txt.gz"
    return gzip.decompress(file.read_bytes()).decode().splitlines()


def split_files(source: str, root: Path, lines: Sequence[tuple[str, int]]) -> LabelledFiles:
    """Return the files that a split lists.

    Raises:
        StreamError: some of them are not there.
    """
    paths = [root / path for path, _ in lines]
    refuse_missing(source, paths)
    return LabelledFiles(paths, np.array([label for _, label in lines], np.int64))
