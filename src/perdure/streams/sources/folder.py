"""Images in one folder per class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from perdure.class_names import joined_by_name
from perdure.errors import ConfigError, StreamError, did_you_mean
from perdure.randomness import derived_seed
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig
from perdure.streams.decoding import SUFFIXES
from perdure.streams.images.file_sets import LabelledFiles, file_source
from perdure.streams.images.find_images import is_hidden, walk
from perdure.streams.sources.base import Source, refuse_options
from perdure.wording import listed

Files = Mapping[str, Sequence[Path]]
"""Image files by class name, both in alphabetical order."""

LAYOUT = "FOLDER/train/CLASS/*.jpg with FOLDER/test/CLASS/*.jpg, or FOLDER/CLASS/*.jpg"


@SOURCES.register("folder")
def load_folder(config: StreamConfig, seed: int) -> Source:
    """Load images from one folder per class.

    ``FOLDER/train/CLASS/*`` and ``FOLDER/test/CLASS/*``, or ``FOLDER/CLASS/*`` of which
    ``test_fraction`` per class (at least one image) is held out for testing: which images, is
    decided by the names of class and file alone. Labels follow the alphabet. Images in folders
    within a class folder are of that class. Hidden files, ``__MACOSX``, and files that are not
    called like an image, are ignored.

    Every image that will be used is checked first: decoded to its end where all of them fit in
    the memory budget, by its header otherwise.

    Raises:
        ConfigError: no folder, or a key that means nothing here.
        StreamError: folders that are missing, empty or do not match.
        UnreadableImageError: images that cannot be decoded, all of them listed.
    """
    refuse_options(config, "place", "test_fraction")
    root = image_root(config.place)
    train, test = _split_files(root, config)
    return file_source("folder", tuple(train), labelled(train), labelled(test), config, seed)


def image_root(place: str | Path | None) -> Path:
    """Return the folder that holds the images, or a folder of them for training and testing each.

    Raises:
        ConfigError: none was named.
        StreamError: it is no folder.
    """
    if place is None:
        raise ConfigError(f"data=folder names no folder. Type data=FOLDER, which holds {LAYOUT}.")
    root = Path(place).expanduser()
    if not root.exists():
        near = did_you_mean(root.name, _folder_names(root.parent))
        raise StreamError(f"The folder '{root}' does not exist.{near} It must hold {LAYOUT}.")
    if not root.is_dir():
        raise StreamError(f"'{root}' is a file, not a folder. Name the folder that holds {LAYOUT}.")
    return root


def _folder_names(folder: Path) -> list[str]:
    """Return the names of the visible folders in a folder, in alphabetical order."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in visible(folder) if path.is_dir())


def visible(folder: Path) -> list[Path]:
    """Return the content of a folder without hidden files and folders.

    Raises:
        StreamError: it cannot be read.
    """
    try:
        return [path for path in folder.iterdir() if not is_hidden(path.name)]
    except OSError as error:
        raise StreamError(
            f"The folder '{folder}' cannot be read: {error.strerror}. Give yourself the right to "
            "read it, or name another folder."
        ) from error


def _split_files(root: Path, config: StreamConfig) -> tuple[Files, Files]:
    """Return the training and the test files of every class."""
    if not has_test_folder(root):
        return hold_out(class_files(root), config.test_fraction)
    if config.test_fraction != StreamConfig.test_fraction:
        raise ConfigError(
            f"test_fraction={config.test_fraction} has no use: '{root}' has a test folder. "
            "Leave test_fraction out, or name the train folder alone in data."
        )
    train, test = class_files(root / "train"), class_files(root / "test")
    _check_same_classes(root, train, test)
    return train, test


def has_test_folder(root: Path) -> bool:
    """Tell whether a folder has a train and a test folder instead of class folders.

    Raises:
        StreamError: it holds class folders in one of the two only.
    """
    has = {split: bool(_folder_names(root / split)) for split in ("train", "test")}
    for split, other in (("train", "test"), ("test", "train")):
        if has[split] and not has[other]:
            raise StreamError(
                f"'{root}' has class folders in '{split}' but none in '{other}'. Add "
                f"'{root / other}/CLASS/*', or type data='{root / split}' to hold out a share "
                "of each class."
            )
    return has["train"]


def hold_out(files: Files, fraction: float, where: str = "") -> tuple[Files, Files]:
    """Split the files of each class into training and test files.

    Which ones, is decided by the names of class and file alone.

    Raises:
        StreamError: a class has a single image.
    """
    test = {name: _held_out(name, paths, fraction, where) for name, paths in files.items()}
    train = {}
    for name, paths in files.items():
        out = set(test[name])
        train[name] = [path for path in paths if path not in out]
    return train, test


def _check_same_classes(root: Path, train: Files, test: Files) -> None:
    for extra, split, other, known in (
        (set(test) - set(train), "test", "train", train),
        (set(train) - set(test), "train", "test", test),
    ):
        if extra:
            name = min(extra)
            more = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
            raise StreamError(
                f"The class '{name}'{more} is in '{root / split}' but not in '{root / other}'."
                f"{did_you_mean(name, known)} Both must have the same class folders: add "
                f"'{root / other / name}', or remove '{root / split / name}'."
            )


def class_folders(folder: Path) -> list[str]:
    """Return the names of the classes in a folder.

    Raises:
        StreamError: there is none.
    """
    names = _folder_names(folder)
    if not names:
        raise StreamError(f"'{folder}' holds no class folder. Expected: {LAYOUT}.")
    return names


def class_files(folder: Path) -> Files:
    """Return the image files in every folder of a folder.

    Raises:
        StreamError: there is no folder, or one without an image.
    """
    names = class_folders(folder)
    found = {name: _image_files(folder / name) for name in names}
    files = joined_by_name(found, f"'{folder}'")
    empty = [name for name, paths in files.items() if not paths]
    if len(empty) == len(names):
        raise StreamError(
            f"No image file in the {len(names)} folders of '{folder}'. Expected: {LAYOUT}, with "
            f"files ending in {', '.join(sorted(SUFFIXES))}."
        )
    if empty:
        where = listed([f"'{folder / name}'" for name in empty])
        raise StreamError(
            f"No image file in the class folder {where}. Put images straight into it, or remove it."
        )
    return files


def _image_files(folder: Path) -> list[Path]:
    """Return the image files in a folder and below it.

    Raises:
        StreamError: a folder that cannot be listed.
    """
    files = []
    for path, fault in walk(folder):
        if fault:
            raise StreamError(f"'{path}': {fault}. Give yourself the right to read it.")
        if path.is_file():
            files.append(path)
    return sorted(files)


def _held_out(name: str, paths: Sequence[Path], fraction: float, where: str) -> list[Path]:
    """Return the test files of a class: those with the smallest hashes of their names."""
    if len(paths) == 1:
        raise StreamError(
            f"The class '{name}'{where} has one image ('{paths[0]}'), and needs two: one to train "
            "and one to hold out for testing. Add images, or remove the class."
        )
    count = min(max(1, math.floor(fraction * len(paths) + 0.5)), len(paths) - 1)
    by_hash = sorted(paths, key=lambda path: derived_seed(0, "held out", name, path.name))
    return sorted(by_hash[:count])


def labelled(files: Files) -> LabelledFiles:
    """Label the files of every class by its place in the alphabet."""
    paths = [path for of_class in files.values() for path in of_class]
    counts = [len(of_class) for of_class in files.values()]
    return LabelledFiles(paths, np.repeat(np.arange(len(files), dtype=np.int64), counts))
