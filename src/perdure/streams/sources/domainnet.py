"""DomainNet: all 345 classes in six domains, or VPT-NSP²'s 200, each in one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perdure.errors import StreamError
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig
from perdure.streams.fetch.published import DOMAINS, PUBLISHED
from perdure.streams.images.file_sets import LabelledFiles, file_source
from perdure.streams.sources.base import Source, refuse_options
from perdure.streams.sources.splits import read_split, split_files

Lines = Sequence[tuple[str, int]]
"""Path and label of every image of a split."""


@SOURCES.register("domainnet")
def load_domainnet(config: StreamConfig, seed: int) -> Source:
    """Load all images of DomainNet's 345 classes in the publisher's split of each of six domains.

    The split is read from the publisher's own lists, which lie beside the folders of the domains:
    ``real_train.txt``, ``real_test.txt`` and so on, a path and a label per line.

    Raises:
        ConfigError: a key that means nothing here.
        StreamError: the images or lists are not at hand, or some of them are missing or damaged.
    """
    refuse_options(config, "place", "domains")
    root = PUBLISHED["domainnet"].root(config.place)
    train, test = (
        [line for domain in DOMAINS for line in _listed(root / f"{domain}_{split}.txt")]
        for split in ("train", "test")
    )
    return _source("domainnet", root, train, test, config, seed)


@SOURCES.register("domainnet200")
def load_domainnet200(config: StreamConfig, seed: int) -> Source:
    """Load 47,532 training and 20,450 test images of 200 of DomainNet's 345 classes.

    The split and its labels are those of VPT-NSP²'s released program: every class is shown in one
    domain only (40 each in real, sketch, painting and quickdraw, 20 each in clipart and
    infograph). The domain of an image is the folder two above its file.

    Raises:
        ConfigError: a key that means nothing here.
        StreamError: the images are not at hand, or some of them are missing.
    """
    refuse_options(config, "place", "domains")
    root = PUBLISHED["domainnet200"].root(config.place)
    train, test = (
        [(path, int(label)) for path, _, label in (line.rpartition(" ") for line in lines)]
        for lines in (read_split(f"sdomain_{split}") for split in ("train", "val"))
    )
    return _source("domainnet200", root, train, test, config, seed)


def _source(
    name: str, root: Path, train: Lines, test: Lines, config: StreamConfig, seed: int
) -> Source:
    folders = {label: path.split("/")[1] for path, label in train}
    for path, label in (*train, *test):
        if folders.get(label) != path.split("/")[1]:
            raise StreamError(
                f"'{path}' has the label {label} in the lists of '{root}', which is that of "
                f"'{folders.get(label)}'. Fetch the lists again as they are published."
            )
    names = [folders[label].replace("_", " ") for label in sorted(folders)]
    sets = [_files(name, root, lines, config) for lines in (train, test)]
    return file_source(
        name, names, sets[0], sets[1], config, seed, published=True, domain_names=DOMAINS
    )


def _files(name: str, root: Path, lines: Lines, config: StreamConfig) -> LabelledFiles:
    files = split_files(name, root, lines)
    if not config.over_domains:
        return files
    domains = [DOMAINS.index(path.partition("/")[0]) for path, _ in lines]
    return LabelledFiles(files.paths, files.labels, np.array(domains, np.int64))


def _listed(path: Path) -> list[tuple[str, int]]:
    """Read one of the publisher's lists of paths and labels."""
    domain = path.name.partition("_")[0]
    files = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StreamError(f"'{path}' cannot be read: {error}. Fetch it again.") from error
    for number, line in enumerate(lines, start=1):
        file, _, label = line.rpartition(" ")
        if not (file.startswith(f"{domain}/") and file.count("/") > 1 and label.isdecimal()):
            raise StreamError(
                f"Line {number} of '{path}' is {line!r}, and must be a path in {domain}/CLASS/ and a "
                "label. Fetch the list again as it is published."
            )
        files.append((file, int(label)))
    return files
