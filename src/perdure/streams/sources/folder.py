"""Images in one folder per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from perdure.cache import expanded
from perdure.class_names import joined_by_name
from perdure.errors import ConfigError, StreamError, did_you_mean
from perdure.randomness import derived_seed
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig, refuse_test_fraction
from perdure.streams.decoding import SUFFIXES, EncodedImage, ImageFile
from perdure.streams.fetch.archives import unpacked
from perdure.streams.fetch.unpacking import is_archive
from perdure.streams.images.file_sets import LabelledFiles, file_source
from perdure.streams.images.find_images import is_hidden, is_image_name, walk, why_left_out
from perdure.streams.images.left_out import LeftOut
from perdure.streams.sources.base import Source, held_out_count, refuse_options
from perdure.wording import listed

Files = Mapping[str, Sequence[ImageFile]]
"""Image files by class name, both in alphabetical order."""

LAYOUT = "FOLDER/train/CLASS/*.jpg with FOLDER/test/CLASS/*.jpg, or FOLDER/CLASS/*.jpg"


@SOURCES.register("folder")
def load_folder(config: StreamConfig, seed: int) -> Source:
    """Load images from one folder per class.

    ``FOLDER/train/CLASS/*`` and ``FOLDER/test/CLASS/*``, or ``FOLDER/CLASS/*`` of which
    ``test_fraction`` per class (at least one image) is held out for testing: which images, is
    decided by the names of class and file alone. Labels follow the alphabet. Images in folders
    within a class folder are of that class. Hidden files, links that lead nowhere, and files that
    are not called like an image, are left out, and a note says so. A zip or tar archive is taken as
    the folder that it holds.

    Every image that will be used is checked first: decoded to its end where all of them fit in
    the memory budget, by its header otherwise.

    Raises:
        ConfigError: no folder, or a key that means nothing here.
        StreamError: folders that are missing, empty or do not match.
        UnreadableImageError: images that cannot be decoded, all of them listed.
    """
    refuse_options(config, "place", "test_fraction")
    root, left_out = image_root(config.place), LeftOut()
    train, test = _split_files(root, config, left_out)
    source = file_source("folder", tuple(train), labelled(train), labelled(test), config, seed)
    told = left_out.told(root, config.place)
    return replace(source, remarks=(told,)) if told else source


def image_root(place: str | Path | None) -> Path:
    """Return the folder that holds the images, or a folder of them for training and testing each.

    Of an archive it is the folder where it was `unpacked`.

    Raises:
        ConfigError: none was named.
        StreamError: it is no folder, or an archive that cannot be unpacked.
    """
    if place is None:
        raise ConfigError(f"data=folder names no folder. Type data=FOLDER, which holds {LAYOUT}.")
    root = expanded(place)
    if not root.exists():
        near = did_you_mean(root.name, _folder_names(root.parent))
        raise StreamError(f"The folder '{root}' does not exist.{near} It must hold {LAYOUT}.")
    if root.is_file() and is_archive(root.name):
        return unpacked(root)
    if not root.is_dir():
        raise StreamError(f"'{root}' is a file, not a folder. Name the folder that holds {LAYOUT}.")
    return root


def _folder_names(folder: Path) -> list[str]:
    """Return the names of the visible folders in a folder, in alphabetical order."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in entries(folder) if _is_class_folder(path))


def _is_class_folder(path: Path) -> bool:
    return not is_hidden(path.name) and path.is_dir()


def entries(folder: Path) -> list[Path]:
    """Return the content of a folder.

    Raises:
        StreamError: it cannot be read.
    """
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise StreamError(
            f"The folder '{folder}' cannot be read: {error.strerror}. Give yourself the right to "
            "read it, or name another folder."
        ) from error


def _split_files(root: Path, config: StreamConfig, left_out: LeftOut) -> tuple[Files, Files]:
    """Return the training and the test files of every class."""
    sides = parts(root, left_out)
    if len(sides) == 1:
        return hold_out(class_files(root, left_out), config.test_fraction)
    advice = "Leave test_fraction out, or name the train folder alone in data."
    refuse_test_fraction(config, f"'{root}' has a test folder. {advice}")
    train, test = (class_files(part, left_out) for part in sides.values())
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


def parts(root: Path, left_out: LeftOut) -> dict[str, Path]:
    """Return the folders of training and of test images; one that knows no such is for training.

    Args:
        root: the folder of both.
        left_out: receives what lies beside the two.

    Raises:
        StreamError: there are class folders in one of the two only.
    """
    if not has_test_folder(root):
        return {"train": root}
    sides = {side: root / side for side in ("train", "test")}
    for path in entries(root):
        if path not in sides.values():
            left_out.add("beside" if _is_class_folder(path) else _loose(path), path)
    return sides


def class_files(folder: Path, left_out: LeftOut) -> Files:
    """Return the image files in every folder of a folder, and in all folders in those.

    Args:
        folder: a folder per class.
        left_out: receives what is left out.

    Raises:
        StreamError: there is no folder, or one without an image.
    """
    files = found_files(folder, left_out)
    empty = [name for name, paths in files.items() if not paths]
    if len(empty) == len(files):
        raise StreamError(
            f"No image file in the {len(files)} folders of '{folder}'. Expected: {LAYOUT}, with "
            f"files ending in {', '.join(sorted(SUFFIXES))}."
        )
    if empty:
        where = listed([f"'{folder / name}'" for name in empty])
        raise StreamError(
            f"No image file in the class folder {where}. Put images into it, or remove it."
        )
    return files


def found_files(folder: Path, left_out: LeftOut) -> dict[str, list[Path]]:
    """Return the image files of every class of a folder; there may be none.

    Raises:
        StreamError: there is no class folder, one that cannot be listed, or two with one name.
    """
    names = []
    for path in entries(folder):
        if _is_class_folder(path):
            names.append(path.name)
        else:
            left_out.add(_loose(path), path)
    if not names:
        raise StreamError(f"'{folder}' holds no class folder. Expected: {LAYOUT}.")
    files = {name: _image_files(folder, name, left_out) for name in sorted(names)}
    # By the one spelling: two folders of the same classes may spell them in two ways.
    return dict(sorted(joined_by_name(files, f"'{folder}'").items()))


def _loose(path: Path) -> str:
    """Why something that lies beside class folders is left out."""
    is_picture = is_image_name(path.name) and path.is_file() and not is_hidden(path.name)
    return "loose" if is_picture else why_left_out(path)


def _image_files(folder: Path, name: str, left_out: LeftOut) -> list[Path]:
    """Return the image files of a class: those in its folder and below it.

    Raises:
        StreamError: a folder that cannot be listed.
    """
    files: list[Path] = []
    for path, fault in walk(folder / name, left_out, folder):
        if fault:
            raise StreamError(f"'{path}': {fault}. Give yourself the right to read it.")
        assert isinstance(path, Path), "a folder holds files"
        if path.is_file():
            files.append(path)
        else:
            left_out.add("dangling", path)
    return sorted(files)


def _held_out(
    name: str, paths: Sequence[ImageFile], fraction: float, where: str
) -> list[ImageFile]:
    """Return the test files of a class: those with the smallest hashes of their names."""
    count = held_out_count(len(paths), fraction, f"'{name}'{where}", paths[0])
    in_order = sorted(paths, key=by_kind)  # files of one name in several folders have one hash
    by_hash = sorted(in_order, key=lambda path: derived_seed(0, "held out", name, path.name))
    return sorted(by_hash[:count], key=by_kind)


def by_kind(image: ImageFile) -> tuple[bool, Any]:
    """What images are sorted by: files first, then those in memory."""
    return isinstance(image, EncodedImage), image


def labelled(files: Files) -> LabelledFiles:
    """Label the files of every class by its place in the alphabet."""
    paths = [path for of_class in files.values() for path in of_class]
    counts = [len(of_class) for of_class in files.values()]
    return LabelledFiles(paths, np.repeat(np.arange(len(files), dtype=np.int64), counts))
