"""Safe unpacking of zip and tar archives: nothing outside the folder, bounded size."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from perdure.errors import StreamError
from perdure.streams.shards.tars import MOST_RATIO, TARS, check_end, is_packed, tar_mode
from perdure.wording import printable

MOST_ENTRIES = 2_000_000
"""Files and folders that an archive may hold; DomainNet's largest zip has about 180,000."""
MOST_BYTES = 64 * 2**30
"""Bytes that an archive may unpack to."""

_SAYS_UTF8 = 0x800
_ENDINGS = (".zip", *TARS)
_ODD = {errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ}
"""What systems answer to a name that they cannot give."""
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    struct.error,
    OverflowError,
    RuntimeError,  # a zip that is encrypted, or packed in a way that Python does not know
)


@dataclass(frozen=True)
class _Entry:
    """A file or folder of an archive.

    Attributes:
        name: its path in the archive.
        size: bytes that it announces; no more can be read from it.
        kind: ``file``, ``folder``, or what else it is.
        open: opens its content.
        read: bytes of the archive that were read up to here.
    """

    name: str
    size: int
    kind: str
    open: Callable[[], IO[bytes] | None]
    read: int


def is_archive(name: str) -> bool:
    """Tell from its name whether a file is an archive that `unpack` reads."""
    return name.lower().endswith(_ENDINGS)


def archive_stem(name: str) -> str:
    """Return the name of an archive without its ending.

    Examples:
        >>> archive_stem("pets.tar.gz"), archive_stem("Pets.ZIP")
        ('pets', 'Pets')
    """
    ending = max((one for one in _ENDINGS if name.lower().endswith(one)), key=len)
    return name[: -len(ending)]


def unpack(archive: Path, folder: Path, on_bytes: Callable[[int], None]) -> int:
    """Unpack a zip or tar archive into a folder.

    Args:
        archive: a file whose name ends as `is_archive` wants.
        folder: an empty folder; on failure it is the caller's to remove.
        on_bytes: receives after every entry the number of bytes read of the archive.

    Returns:
        How many files were written.

    Raises:
        StreamError: the archive is damaged, unpacks to absurdly much, or has an entry that is a
            link or a device or would lie outside the folder. Entries before it are written.
        OSError: the disk is full or cannot be written.
    """
    entries = _zip_entries if archive.name.lower().endswith(".zip") else _tar_entries
    size = archive.stat().st_size
    most = min(MOST_BYTES, MOST_RATIO * size)
    root = os.path.normpath(folder)
    files = total = 0
    try:
        for count, entry in enumerate(entries(archive), start=1):
            total += entry.size
            if count > MOST_ENTRIES or total > most or entry.size < 0:
                raise StreamError(
                    f"'{archive}' may be a bomb: it unpacks to more than {MOST_ENTRIES:,} entries "
                    f"or {most:,} bytes. Fetch it again, or pack it anew."
                )
            target = Path(os.path.normpath(folder / entry.name))
            fault = "" if target.is_relative_to(root) else "would lie outside its folder"
            if fault or entry.kind not in ("file", "folder"):
                raise StreamError(
                    f"'{archive}' is not to be trusted: its entry '{printable(entry.name)}' "
                    f"{fault or f'is {entry.kind}'}. Fetch it again, or pack it anew."
                )
            files += _written(entry, target, archive)
            on_bytes(entry.read)
        on_bytes(size)
    except _DAMAGED as error:
        raise StreamError(
            f"'{archive}' is damaged or not whole ({str(error).partition(chr(10))[0]}). Remove it "
            "and fetch it again, or pack it anew."
        ) from error
    return files


def _written(entry: _Entry, target: Path, archive: Path) -> int:
    """Write an entry and return how many files that makes.

    Raises:
        StreamError: a name that no file can have here, or that another entry took.
        OSError: the disk is full or cannot be written.
    """
    try:
        return _write(entry, target)
    except (OSError, ValueError) as error:
        reason = str(error)
        if isinstance(error, OSError):
            if error.errno not in _ODD:
                raise
            reason = os.strerror(error.errno or 0)
        raise StreamError(
            f"'{archive}' has an entry that cannot be written here, '{printable(entry.name)[:80]}' "
            f"({reason}). Pack it anew under another name, each name once."
        ) from error


def _write(entry: _Entry, target: Path) -> int:
    if entry.kind == "folder":
        target.mkdir(parents=True, exist_ok=True)
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    packed = entry.open()
    assert packed is not None, "files have content"
    with packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
    return 1


def _tar_entries(archive: Path) -> Iterator[_Entry]:
    mode = tar_mode(archive.name)
    with archive.open("rb") as file, tarfile.open(fileobj=file, mode=mode) as tar:
        for member in tar:
            kind = "file" if member.isfile() else "folder" if member.isdir() else "a link or device"
            content = partial(tar.extractfile, member)
            yield _Entry(member.name, member.size, kind, content, file.tell())
        if not is_packed(archive.name):
            check_end(file, tar.offset)


def _zip_entries(archive: Path) -> Iterator[_Entry]:
    read = 0
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            # is_dir() fails on a name that is empty.
            kind = "folder" if info.filename.endswith("/") else "file"
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "a link or device"
            read += info.compress_size
            yield _Entry(_zip_name(info), info.file_size, kind, partial(packed.open, info), read)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Name of an entry; in UTF-8 where it is, though some programs do not say so."""
    if info.flag_bits & _SAYS_UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename
