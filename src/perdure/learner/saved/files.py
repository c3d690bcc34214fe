"""Atomic replacement of several files: whenever the process is killed, all are old or all are new.

One file, the pointer, holds the sha256 of the others. A new file first waits under a name with its
own checksum, ``weights-5f0c….safetensors``; the pointer is replaced in one step once all are written,
synced and read back; then those that wait take their plain names. A reader looks for the file that
the pointer describes under both names, so every moment in between is whole too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from perdure.atomic import atomic_write, is_leftover, sweep, sync_folder
from perdure.errors import CheckpointError, OutputError

_LEFT = re.compile(r"(weights|classes|README)-[0-9a-f]{12}\.(safetensors|json|md)")
"""Files that wait; no looser, for what matches is removed."""


def digest_of(data: bytes) -> str:
    """The sha256 of some bytes, as the pointer notes it."""
    return hashlib.sha256(data).hexdigest()


def read_file(folder: Path, name: str, digest: str) -> bytes:
    """Read a file that the pointer describes, under whichever name it has.

    Raises:
        CheckpointError: it is missing, cannot be read or is not what was written.
    """
    path = _waiting(folder, name, digest)
    if not path.exists():
        path = folder / name
    data = read_bytes(path)
    if digest_of(data) != digest:
        raise CheckpointError(
            f"'{path}' is damaged: its checksum is not the one noted when it was written. Take the "
            "model's folder from a backup, or save the model again."
        )
    return data


def read_bytes(path: Path) -> bytes:
    """Read a file of a model's folder.

    Raises:
        CheckpointError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(
            f"'{path}' is missing. Copy the model's folder again, with all its files."
        ) from None
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read ({error.strerror}).") from error


def is_unfinished(folder: Path) -> bool:
    """Tell whether a folder holds nothing but what a first save leaves that is killed."""
    return all(is_leftover(path.name) or _LEFT.fullmatch(path.name) for path in folder.iterdir())


def replace_files(
    folder: Path,
    pointer: tuple[str, bytes],
    files: Mapping[str, bytes],
    old: Mapping[str, str],
    retired: tuple[str, ...] = (),
) -> None:
    """Replace the files of a folder together; only inside `perdure.atomic.alone`.

    Args:
        folder: it exists, and is locked.
        pointer: name and content of the file that holds the checksums of the others.
        files: the others.
        old: checksums of the files that the present pointer describes; empty where there is none.
        retired: names of files that an earlier format had.

    Raises:
        OutputError: a file cannot be written; what was there is whole.
        CheckpointError: what was read back differs from what was written.
    """
    _settle(folder, old)
    _sweep(folder)
    sweep(folder)
    try:
        for name, data in files.items():
            path = _waiting(folder, name, digest_of(data))
            atomic_write(path, data)
            if path.read_bytes() != data:
                raise CheckpointError(
                    f"'{path}' was written, but reads otherwise. The disk is not to be trusted: "
                    "choose another folder. The model that was there is whole."
                )
        atomic_write(folder / pointer[0], pointer[1])
    except Exception:
        with suppress(OSError):
            # Where the pointer took its place before the failure, the files that wait are the model.
            at = folder / pointer[0]
            if not at.is_file() or at.read_bytes() != pointer[1]:
                _sweep(folder)
        raise
    _settle(folder, {name: digest_of(data) for name, data in files.items()})
    for name in retired:
        (folder / name).unlink(missing_ok=True)


def _waiting(folder: Path, name: str, digest: str) -> Path:
    stem, _, suffix = name.partition(".")
    return folder / f"{stem}-{digest[:12]}.{suffix}"


def _settle(folder: Path, digests: Mapping[str, str]) -> None:
    """Give files that wait their plain names: also those of a save that was killed before it could."""
    try:
        for name, digest in digests.items():
            path = _waiting(folder, name, digest)
            if path.exists():
                path.replace(folder / name)
    except OSError as error:
        raise OutputError(
            f"'{path}' cannot be renamed to '{name}' ({error.strerror}). The model is whole, and "
            "saving it again will rename it."
        ) from error
    sync_folder(folder)


def _sweep(folder: Path) -> None:
    """Remove what a save left that was killed or failed before its pointer was written."""
    for path in folder.iterdir():
        if _LEFT.fullmatch(path.name):
            path.unlink(missing_ok=True)
