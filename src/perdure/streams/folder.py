"""Your own images: one folder per class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.errors import ConfigError, StreamError, UnreadableImageError, did_you_mean
from perdure.randomness import derived_seed
from perdure.streams.decoding import SUFFIXES, decode, image_size
from perdure.streams.images import FileImages, unreadable_images
from perdure.streams.protocol import listed
from perdure.streams.sources import SOURCES, Source, SourceOptions, capped, refuse_options

Files = Mapping[str, Sequence[Path]]
"""Image files by class name, both in alphabetical order."""

LAYOUT = "PATH/train/CLASS/*.jpg with PATH/test/CLASS/*.jpg, or PATH/CLASS/*.jpg"


@SOURCES.register("folder")
def load_folder(options: SourceOptions) -> Source:
    """Load images from one folder per class.

    ``PATH/train/CLASS/*`` and ``PATH/test/CLASS/*``, or ``PATH/CLASS/*`` of which
    ``test_fraction`` per class (at least one image) is held out for testing: which images, is
    decided by the names of class and file alone. Labels follow the alphabet. Hidden files, and
    files that are not called like an image, are ignored.

    Every image that will be used is checked here: decoded to its end, and kept, where all of them
    fit in ``memory_budget``; otherwise only its header is read now (with ``skip_unreadable``
    it is decoded once, to know whether it must be left out) and the rest when it is needed.

    Raises:
        ConfigError: no path, or an option that means nothing here.
        StreamError: folders that are missing, empty or do not match.
        UnreadableImageError: images that cannot be decoded, all of them listed.
    """
    refuse_options("folder", options, "synthetic_classes", "synthetic_size")
    root = _root(options.path)
    train, test = _split_files(root, options)
    class_names = tuple(train)
    labels = {name: label for label, name in enumerate(class_names)}
    train_paths, train_labels = _chosen(
        train, labels, options.images_per_class, options.seed, "train"
    )
    test_paths, test_labels = _chosen(test, labels, options.test_images_per_class, 0, "test")
    pixels, skipped = _verified([*train_paths, *test_paths], options)
    sets = [
        _image_set(paths, split_labels, pixels, skipped, options)
        for paths, split_labels in ((train_paths, train_labels), (test_paths, test_labels))
    ]
    faults = tuple(f"{path}: {reason}" for path, reason in skipped.items())
    return Source("folder", class_names, sets[0], sets[1], faults)


def _root(path: Path | None) -> Path:
    if path is None:
        raise ConfigError(f"Source 'folder' needs path=FOLDER, the folder that holds {LAYOUT}.")
    root = path.expanduser()
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
    return sorted(path.name for path in _visible(folder) if path.is_dir())


def _visible(folder: Path) -> list[Path]:
    """Return what a folder holds, hidden files and folders apart."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise StreamError(
            f"The folder '{folder}' cannot be read: {error.strerror}. Give yourself the right to "
            "read it, or name another path."
        ) from error


def _split_files(root: Path, options: SourceOptions) -> tuple[Files, Files]:
    """Return the training and the test files of every class."""
    has = {split: bool(_folder_names(root / split)) for split in ("train", "test")}
    if has["train"] and has["test"]:
        if options.test_fraction != SourceOptions.test_fraction:
            raise ConfigError(
                f"test_fraction={options.test_fraction} has no use: '{root}' has a test folder. "
                "Leave test_fraction out, or name the train folder alone in path."
            )
        train, test = _class_files(root / "train"), _class_files(root / "test")
        _check_same_classes(root, train, test)
        return train, test
    for split, other in (("train", "test"), ("test", "train")):
        if has[split]:
            raise StreamError(
                f"'{root}' has class folders in '{split}' but none in '{other}'. Add "
                f"'{root / other}/CLASS/*', or type path='{root / split}' to hold out a share "
                "of each class."
            )
    files = _class_files(root)
    test = {name: _held_out(name, paths, options.test_fraction) for name, paths in files.items()}
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


def _class_files(folder: Path) -> Files:
    names = _folder_names(folder)
    if not names:
        raise StreamError(f"'{folder}' holds no class folder. Expected: {LAYOUT}.")
    files = {name: _image_files(folder / name) for name in names}
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
    return sorted(
        path for path in _visible(folder) if path.suffix.lower() in SUFFIXES and path.is_file()
    )


def _held_out(name: str, paths: Sequence[Path], fraction: float) -> list[Path]:
    """Return the test files of a class: those with the smallest hashes of their names."""
    if len(paths) == 1:
        raise StreamError(
            f"The class '{name}' has one image ('{paths[0]}'), and needs two: one to train and one "
            "to hold out for testing. Add images, or remove the class."
        )
    count = min(max(1, math.floor(fraction * len(paths) + 0.5)), len(paths) - 1)
    by_hash = sorted(paths, key=lambda path: derived_seed(0, "held out", name, path.name))
    return sorted(by_hash[:count])


def _chosen(
    files: Files, labels: Mapping[str, int], most: int | None, seed: int, split: str
) -> tuple[list[Path], NDArray[np.int64]]:
    """Return the files and labels that are left under the cap."""
    paths = [path for of_class in files.values() for path in of_class]
    every = np.array([labels[name] for name, of_class in files.items() for _ in of_class], np.int64)
    kept = capped(every, most, seed, split)
    return [paths[index] for index in kept], every[kept]


def _verified(
    paths: Sequence[Path], options: SourceOptions
) -> tuple[dict[Path, NDArray[np.uint8]] | None, dict[Path, str]]:
    """Check every file.

    Returns:
        The pixels by file, or None where they do not fit in memory; the faulty files and why.

    Raises:
        UnreadableImageError: there are faulty files, and they may not be skipped.
    """
    faults: dict[Path, str] = {}
    decoded_bytes = 0
    for path in paths:
        try:
            width, height = image_size(path)
            decoded_bytes += 3 * width * height
        except UnreadableImageError as error:
            faults[path] = str(error).removeprefix(f"{path}: ")
    keep = decoded_bytes <= options.memory_budget
    pixels: dict[Path, NDArray[np.uint8]] = {}
    if keep or options.skip_unreadable:
        for path in paths:
            if path in faults:
                continue
            try:
                image = decode(path)
            except UnreadableImageError as error:
                faults[path] = str(error).removeprefix(f"{path}: ")
                continue
            if keep:
                pixels[path] = np.asarray(image)
    if faults and not options.skip_unreadable:
        raise unreadable_images([f"{path}: {reason}" for path, reason in faults.items()])
    return (pixels if keep else None), faults


def _image_set(
    paths: Sequence[Path],
    labels: NDArray[np.int64],
    pixels: Mapping[Path, NDArray[np.uint8]] | None,
    skipped: Mapping[Path, str],
    options: SourceOptions,
) -> FileImages:
    kept = [index for index, path in enumerate(paths) if path not in skipped]
    return FileImages(
        [paths[index] for index in kept],
        labels[kept],
        None if pixels is None else [pixels[paths[index]] for index in kept],
        options.memory_budget,
    )
