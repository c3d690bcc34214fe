"""Fetching a published data set: download, check and unpack, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from perdure.atomic import atomic_folder, atomic_write, sync_all
from perdure.cache import archives_dir, home, sha256_of
from perdure.errors import StreamError
from perdure.streams.fetch.download import Progress, is_left, obtain, remove
from perdure.streams.fetch.published import PublishedData, quoted
from perdure.streams.fetch.unpacking import is_archive, unpack

MANIFEST = "manifest.json"
"""Says, in the folder of a data set, which files it was unpacked from."""


def fetch(
    published: PublishedData,
    on_progress: Progress = lambda what, done, total: None,
    wait: bool = False,
) -> Path:
    """Download, check and unpack a published data set, unless it is at hand.

    Files that lie in `archives_dir` already are taken from there, and stay; those that are
    downloaded are removed when they are unpacked, also where a killed process left them. The folder
    of the data set appears in one step.

    Args:
        published: which one; it must have files to fetch.
        on_progress: receives a line before each step that takes long.
        wait: for another process that fetches it, in place of an error.

    Returns:
        The folder that holds it.

    Raises:
        StreamError: a file cannot be downloaded, is damaged or not to be trusted, or something
            else is in the way.
        ChecksumError: a file is not the one that its publisher describes.
        OutputError: the cache cannot be written.
    """
    folder, place = published.located(), home() / "data" / "archives"
    if folder is not None and not any(is_left(place / file.name) for file in published.files):
        return folder
    archives = archives_dir()
    with _alone(published, archives, wait):
        folder = published.located() or _fetch(published, archives, on_progress)
        for file in published.files:
            remove(archives / file.name)
    return folder


@contextmanager
def _alone(published: PublishedData, archives: Path, wait: bool) -> Iterator[None]:
    """Hold a lock against a second process that writes the same files."""
    lock = FileLock(archives / f".{published.name}.lock")
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise StreamError(
            f"Another process is fetching '{published.name}'. Wait for it, then type again: "
            f"perdure data fetch {published.name}"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _fetch(published: PublishedData, archives: Path, on_progress: Progress) -> Path:
    folder = published.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StreamError(
            f"'{folder}' exists, but does not hold {quoted(published.missing(folder))}. Put "
            f"that in, or move it away and type again: perdure data fetch {published.name}"
        )
    obtained = [obtain(published, file, archives, on_progress) for file in published.files]
    with atomic_folder(folder, f"{published.title} could not be unpacked") as work:
        manifest = {
            "benchmark": published.name,
            "publisher": published.publisher,
            "from": [_lay_out(path, work, on_progress) for path in obtained],
        }
        _check_content(published, work, archives)
        atomic_write(work / MANIFEST, json.dumps(manifest, indent=1).encode())
        sync_all()
    return folder


def _lay_out(path: Path, work: Path, on_progress: Progress) -> dict[str, Any]:
    """Unpack or copy a published file, and return what the manifest says of it."""
    size = path.stat().st_size
    on_progress(f"checking {path.name}", 0, size)
    about = {"file": path.name, "bytes": size, "sha256": sha256_of(path)}
    if not is_archive(path.name):
        shutil.copyfile(path, work / path.name)
        return {**about, "files": 1}
    count = unpack(path, work, lambda done: on_progress(f"unpacking {path.name}", done, size))
    return {**about, "files": count}


def _check_content(published: PublishedData, work: Path, archives: Path) -> None:
    missing = published.missing(work)
    if missing:
        files = ", ".join(f"'{archives / file.name}'" for file in published.files)
        raise StreamError(
            f"There is no {quoted(missing)} in what was unpacked, so this is not {published.title} "
            f"as it is published. Remove {files} and type again: perdure data fetch "
            f"{published.name}"
        )
