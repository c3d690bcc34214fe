"""Downloads of published files: resumed, checked, and kept only when whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from perdure.atomic import FULL
from perdure.errors import ChecksumError, OutputError, StreamError
from perdure.streams.fetch.published import PublishedData, PublishedFile

Progress = Callable[[str, int, int | None], None]
"""Progress callback: receives the step, how much of it is done, and of how much (None if unknown)."""

TIMEOUT = 30.0
"""Seconds without an answer after which a connection is given up."""

_BLOCK = 1 << 20
_RANGE_NOT_SATISFIABLE = 416
_PARTIAL_CONTENT = 206


def obtain(
    published: PublishedData, file: PublishedFile, folder: Path, on_progress: Progress
) -> Path:
    """Return a published file: the one in the folder, or a download.

    What an interrupted download leaves is called ``NAME.part``; the next call goes on from there.
    Beside what was downloaded whole lies a mark, ``NAME.fetched``, until `remove` takes both away:
    so that after a kill it is not taken for a file that was put there by hand.

    Args:
        published: data set of the file.
        file: which file.
        folder: where it is looked for and downloaded to.
        on_progress: receives a line before each step that takes long.

    Returns:
        Its path.

    Raises:
        StreamError: it is not there and cannot be downloaded.
        ChecksumError: it is not the file that its publisher describes.
        OutputError: the disk is full.
    """
    path = folder / file.name
    if path.is_file():
        _check(published, file, path, f"Remove '{path}'; nothing was unpacked.")
        return path
    part = path.with_name(f"{file.name}.part")
    _download(published, file, part, on_progress)
    try:
        _check(published, file, part, "It was removed.")
    except ChecksumError:
        with _told(path):
            part.unlink()
            _tag(part).unlink()
        raise
    with _told(path):
        _mark(path).touch()
        part.replace(path)
        _tag(part).unlink()
    return path


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell of a file of a download that can be neither renamed nor removed.

    Raises:
        OutputError: it is so.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"'{path}' or what was downloaded for it cannot be changed ({error.strerror}). Mend that, "
            "and type the command again: it goes on from here."
        ) from error


def is_left(path: Path) -> bool:
    """Tell whether anything of the download of a file is there."""
    part = path.with_name(f"{path.name}.part")
    return any(left.exists() for left in (part, _tag(part), _mark(path)))


def remove(path: Path) -> None:
    """Remove a file that was downloaded, and whatever a killed process left of its download.

    Raises:
        OutputError: it cannot be removed.
    """
    part = path.with_name(f"{path.name}.part")
    with _told(path):
        if _mark(path).exists():
            path.unlink(missing_ok=True)
        for left in (part, _tag(part), _mark(path)):
            left.unlink(missing_ok=True)


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.fetched")


def _check(published: PublishedData, file: PublishedFile, path: Path, removed: str) -> None:
    if not file.md5:
        return
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "md5").hexdigest()
    if digest != file.md5:
        raise ChecksumError(
            f"'{file.name}' has md5 {digest}, not {file.md5}: it is not the file that perdure "
            f"expects. {removed} Type again: perdure data fetch {published.name}\n"
            f"If it stays so, and {published.publisher} states {digest}, unpack the file yourself "
            f"into '{published.folder}'."
        )


def _download(
    published: PublishedData, file: PublishedFile, part: Path, on_progress: Progress
) -> None:
    """Download a file; interrupted transfers are resumed as long as bytes arrive."""
    while True:
        before = _size(part)
        try:
            _transfer(file, part, on_progress)
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise OutputError(
                    f"No space left for '{file.name}' (about {file.megabytes:,} MB) in "
                    f"'{part.parent}'. Free some, or set PERDURE_HOME to another folder."
                ) from error
            if _size(part) <= before:
                raise _unreachable(published, file, part, error) from error
        else:
            return


def _transfer(file: PublishedFile, part: Path, on_progress: Progress) -> None:
    """Append the missing bytes over one connection.

    Raises:
        OSError: the connection failed or ended early, or the disk is full.
        HTTPException: the answer cannot be understood.
    """
    headers = {"User-Agent": "perdure"}
    start = _size(part)
    tag = _tag(part).read_text("utf-8") if _tag(part).is_file() else ""
    if start and tag:
        # The rest of another version of the file must never be appended to this one.
        headers |= {"Range": f"bytes={start}-", "If-Range": tag}
    try:
        response: HTTPResponse = urlopen(Request(file.url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != _RANGE_NOT_SATISFIABLE:
            raise
        if error.headers["Content-Range"] != f"bytes */{start}":
            part.unlink()
            _transfer(file, part, on_progress)
        return
    with response:
        if response.status != _PARTIAL_CONTENT:
            start = 0
            _tag(part).write_text(_validator(response), "utf-8")
        length = response.headers["Content-Length"]
        total = start + int(length) if length else None
        done = start
        with part.open("ab" if start else "wb") as kept:
            while block := response.read(_BLOCK):
                kept.write(block)
                done += len(block)
                on_progress(f"fetching {file.name}", done, total)
            kept.flush()
            os.fsync(kept.fileno())
    if total is not None and done != total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


def _validator(response: HTTPResponse) -> str:
    """Return the ETag or date of the server's version of the file; empty without one."""
    etag = response.headers["ETag"] or ""
    # Weak tags may not be used for ranges.
    return str(response.headers["Last-Modified"] or "") if etag[:2] in ("", "W/") else etag


def _tag(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _unreachable(
    published: PublishedData, file: PublishedFile, part: Path, error: Exception
) -> StreamError:
    # Without its wrapping; an answer such as 404 tells more as a whole.
    reason = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
    kept = f"{_size(part):,} bytes of it are kept in '{part}'.\n" if _size(part) else ""
    wanted = [one for one in published.files if not (part.parent / one.name).exists()]
    lines = [
        f"  {one.url} (about {one.megabytes:,} MB{f', md5 {one.md5}' if one.md5 else ''})\n"
        for one in wanted
    ]
    advice = f", or type: {published.advice}" if published.advice else ""
    return StreamError(
        f"'{file.name}' of {published.title} could not be fetched "
        f"({str(reason) or type(error).__name__}).\n{kept}"
        f"Fetch elsewhere:\n{''.join(lines)}Put what you fetched into '{part.parent}', as it is"
        f"{advice}.\nThen type: perdure data fetch {published.name}"
    )
