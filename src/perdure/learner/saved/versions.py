"""Kept versions of a saved model: what it was before each change, a file each; undo.

A version is a zip of the model's files, ``versions/000007.zip``, written whole before the change that
it is from. So a change that is killed leaves the old model and a version equal to it, which is passed
over; one that is killed later leaves the new model and the version before it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.atomic import alone, atomic_write, make_folder, sweep
from perdure.errors import CheckpointError
from perdure.learner.history import History, Lesson
from perdure.learner.saved import format1
from perdure.learner.saved.contents import Contents, read_contents, read_description
from perdure.learner.saved.files import digest_of, read_bytes, read_file, replace_files
from perdure.learner.saved.format import (
    CARD,
    CLASSES,
    CONFIG,
    FORMAT,
    WEIGHTS,
    Classes,
    build,
    encode,
    parse,
    seal,
    unseal,
)

FOLDER = "versions"
KEPT = 5
"""Versions that are kept unless told otherwise."""
MOST_BYTES = 250_000_000
"""Bytes that all versions of a model may take; the oldest go first."""
_NAME = re.compile(r"(\d{6,})\.zip")
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Version:
    """A kept version.

    Attributes:
        path: its file.
        contents: the model as it was.
        pointer: bytes of its ``config.json``.
        files: bytes of its other files.
        replaced: when it was replaced, in seconds since 1970.
    """

    path: Path
    contents: Contents
    pointer: bytes
    files: dict[str, bytes]
    replaced: float


def read_versions(folder: Path) -> list[Version]:
    """Read the kept versions of a model, oldest first; those that no change followed are left out.

    Raises:
        CheckpointError: one is damaged.
    """
    versions = [read_version(path) for path in paths(folder)]
    now, kept = _pointer(folder), list[Version]()
    for version in reversed(versions):
        if version.pointer != now:
            kept.insert(0, version)
            now = version.pointer
    return kept


def undoable(folder: Path) -> list[Version]:
    """Kept versions that `undo` may go back to: those without a class that was forgotten since.

    Raises:
        CheckpointError: a version or the model is damaged.
    """
    now = read_contents(folder)
    classes, history = now.classes, now.description.history
    return [one for one in read_versions(folder) if not still_held(one.contents, classes, history)]


def still_held(version: Contents, classes: Classes, history: History) -> dict[str, int]:
    """Classes that a version predicts though a model that grew from it has forgotten them: labels.

    None where the other grew from something else: other tasks or other lessons came first.

    Args:
        version: what is kept.
        classes: of the other model.
        history: of the same.
    """
    if not grew_from(version, classes, history):
        return {}
    before = version.classes
    gone = sorted(set(classes.forgotten) - set(before.forgotten))
    return {before.classes[label]: label for label in gone if label < len(before.classes)}


def grew_from(version: Contents, classes: Classes, history: History) -> bool:
    """Whether a model with these classes and this history may be a later one of a version.

    It has its tasks and lessons first, as far as renaming, merging and forgetting leave them alone.
    """
    tasks, lessons = version.classes.tasks, version.description.history.lessons
    first = history.lessons[: len(lessons)]
    return classes.tasks[: len(tasks)] == tasks and [*map(_told, first)] == [*map(_told, lessons)]


def _told(lesson: Lesson) -> tuple[Any, ...]:
    """What tells one lesson from another, whatever its classes are called by now."""
    images = sum(lesson.images.values()), lesson.held_out, lesson.left_out, lesson.negatives
    return *images, lesson.accuracy, lesson.untempered_error


def keep(folder: Path, pointer: bytes, classes: Classes, history: History) -> None:
    """Keep the model in a folder, which this pointer is about to replace; inside `alone`.

    A model that is damaged, and so is repaired by the change, is not kept, nor one with a class that
    the change forgets.

    Args:
        folder: of the model.
        pointer: content of the ``config.json`` to come.
        classes: of the model to come.
        history: of the same.

    Raises:
        OutputError: the version cannot be written.
    """
    try:
        contents = read_contents(folder)
    except CheckpointError:
        return
    now, names = _encoded(contents)
    newest = paths(folder)[-1:]
    if now == pointer or any(_is(p, now) for p in newest):
        return
    if still_held(contents, classes, history):
        return
    place = make_folder(folder / FOLDER)
    number = sum(int(path.stem) for path in newest) + 1
    card = folder / CARD
    text = card.read_bytes() if card.exists() else b""
    files = {WEIGHTS: contents.weights, CLASSES: names, CARD: text}
    write(place / f"{number:06}.zip", now, files)


def put(folder: Path, pointer: bytes, files: Mapping[str, bytes]) -> None:
    """Put a model in the place of the one in a folder, of whatever format; inside `alone`.

    Raises:
        OutputError: it cannot be written; the model that was there is whole.
    """
    try:
        old = read_description(folder).files
    except CheckpointError:  # there is none to be kept
        old = {}
    replace_files(folder, (CONFIG, pointer), files, old, retired=(format1.CONFIG,))


def write(path: Path, pointer: bytes, files: Mapping[str, bytes]) -> None:
    """Write a version.

    Raises:
        OutputError: it cannot be written.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in {CONFIG: pointer, **files}.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    atomic_write(path, packed.getvalue())


def prune(folder: Path, most: int) -> None:
    """Remove the oldest versions until there are at most this many, of `MOST_BYTES` together."""
    total = 0
    for count, path in enumerate(reversed(paths(folder)), start=1):
        total += path.stat().st_size
        if count > most or total > MOST_BYTES:
            path.unlink()
    _tidy(folder / FOLDER)


def undo(folder: Path) -> Contents:
    """Go back to the newest kept version; whenever this is interrupted, the folder holds one of both.

    Returns:
        The model as it is now.

    Raises:
        CheckpointError: no version is kept, or it is damaged.
        OutputError: the folder cannot be written.
    """
    with alone(folder, "saving a model"):
        versions = undoable(folder)
        if not versions:
            raise CheckpointError(nothing_to_undo(read_contents(folder)))
        target = versions[-1]
        put(folder, target.pointer, target.files)
        for path in paths(folder):
            if int(path.stem) >= int(target.path.stem):
                path.unlink()
        _tidy(folder / FOLDER)
    return dataclasses.replace(target.contents, folder=folder)


def nothing_to_undo(contents: Contents) -> str:
    """Say why there is nothing to undo, and what to do instead."""
    if len(contents.description.history.lessons) == 1 and not contents.classes.forgotten:
        return (
            f"There is nothing to undo: the first lesson made the model in '{contents.folder}', and "
            "there is none before it. Teach what was wrong anew in another folder, or remove this one "
            "and start again."
        )
    return (
        f"There is nothing to undo: no version of '{contents.folder}' before this one is kept. Kept "
        f"are the last {KEPT} unless told otherwise, of {MOST_BYTES // 10**6} MB together; forgetting "
        "a class cannot be undone."
    )


def paths(folder: Path) -> list[Path]:
    """Files of the versions, oldest first."""
    place = folder / FOLDER
    found = place.iterdir() if place.is_dir() else ()
    return sorted((p for p in found if _NAME.fullmatch(p.name)), key=lambda path: int(path.stem))


def _pointer(folder: Path) -> bytes:
    """The pointer of a folder's model as a version holds it; empty where it is damaged."""
    try:
        path = folder / CONFIG
        return path.read_bytes() if path.exists() else _encoded(read_contents(folder))[0]
    except (OSError, CheckpointError):
        return b""


def _encoded(contents: Contents) -> tuple[bytes, bytes]:
    """The ``config.json`` and ``classes.json`` of a model; of an old format, those of the present."""
    about, folder = contents.description, contents.folder
    if about.format == FORMAT:
        return read_bytes(folder / CONFIG), read_file(folder, CLASSES, about.files[CLASSES])
    classes = encode(dataclasses.asdict(contents.classes))
    files = {CLASSES: digest_of(classes), WEIGHTS: digest_of(contents.weights)}
    return seal(dataclasses.replace(about, format=FORMAT, files=files)), classes


def _is(path: Path, pointer: bytes) -> bool:
    try:
        return read_version(path).pointer == pointer
    except CheckpointError:
        return False


def read_version(path: Path) -> Version:
    """Read a version, every byte verified.

    Raises:
        CheckpointError: it is damaged.
    """
    advice = f"Remove it, and undo goes back to the version before: rm '{path}'"
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path))) as archive:
            pointer, classes, weights, card = (
                archive.read(name) for name in (CONFIG, CLASSES, WEIGHTS, CARD)
            )
    except (zipfile.BadZipFile, KeyError, EOFError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"'{path}' is damaged ({error}). {advice}") from None
    description = unseal(path, pointer)
    digests = {CLASSES: digest_of(classes), WEIGHTS: digest_of(weights)}
    if description.files != digests:
        raise CheckpointError(f"'{path}' is damaged: a checksum differs. {advice}")
    contents = Contents(path, description, build(Classes, path, parse(path, classes)), weights)
    files = {WEIGHTS: weights, CLASSES: classes, CARD: card}
    return Version(path, contents, pointer, files, path.stat().st_mtime)


def _tidy(place: Path) -> None:
    """Remove what killed processes left, and the folder where it is empty."""
    sweep(place)
    with contextlib.suppress(OSError):
        place.rmdir()
