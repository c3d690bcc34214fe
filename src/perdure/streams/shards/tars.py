"""Tar shards, as WebDataset writes them: files in order, each whole."""

from __future__ import annotations

import math
import os
import tarfile
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from perdure.errors import StreamError
from perdure.streams.shards.opening import open_place

TARS = (".tar", ".tar.gz", ".tgz")
"""What the names of tar shards end in."""
MOST_RATIO = 50
"""Bytes that a byte of an archive may unpack to; photographs hardly shrink at all."""


class Member(NamedTuple):
    """File of a tar.

    Attributes:
        name: its path there.
        offset: where its content begins; what it means in a compressed tar is that of the tar.
        content: its bytes.
    """

    name: str
    offset: int
    content: bytes


def is_tar(name: str) -> bool:
    """Tell from its name whether a file is a tar shard.

    Examples:
        >>> is_tar("train-0001.TAR"), is_tar("photos.zip")
        (True, False)
    """
    return name.lower().endswith(TARS)


def is_packed(name: str) -> bool:
    """Tell from its name whether a tar is compressed, so that nothing in it has a place of its own."""
    return is_tar(name) and not name.lower().endswith(".tar")


def tar_mode(name: str) -> Literal["r:", "r:gz"]:
    """Return the mode in which tarfile opens a tar of this name."""
    return "r:gz" if is_packed(name) else "r:"


def check_end(file: Any, end: int) -> None:
    """Refuse a tar that is cut short within a header, which tarfile takes for the end.

    Args:
        file: open, of whatever file system; not compressed: gzip finds that out by itself.
        end: where tarfile has found the end.

    Raises:
        ReadError: the block of zeros that ends a tar is not there.
    """
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its end is missing")


def _size(file: Any) -> float:
    """Bytes of an open file; infinite where a server does not let its end be looked for."""
    try:
        size = float(file.seek(0, os.SEEK_END))
    except (OSError, ValueError):
        return math.inf
    file.seek(0)
    return size


def members(place: str) -> Iterator[Member]:
    """Read the files of a tar one after another; one is in memory at a time.

    Args:
        place: its path or URL.

    Raises:
        ConfigError: a URL that needs another package.
        StreamError: it cannot be read, or is damaged or cut short; files before are given.
    """
    from perdure.streams.images.find_images import is_image_name  # noqa: PLC0415  imports numpy

    packed = is_packed(place)
    with open_place(place) as file:
        try:
            left = MOST_RATIO * _size(file) if packed else math.inf
            with tarfile.open(fileobj=file, mode=tar_mode(place)) as tar:
                for member in tar:
                    # A link has no content of its own, and a sparse file not in one piece.
                    linked = member.islnk() or member.issym() or member.issparse()
                    if linked and is_image_name(member.name):
                        raise tarfile.ReadError(
                            f"'{member.name}' is a link or sparse: pack with --dereference and "
                            "--hard-dereference, without --sparse"
                        )
                    left -= member.size
                    if left < 0:
                        raise tarfile.ReadError(
                            f"it unpacks to more than {MOST_RATIO} times its size"
                        )
                    if member.isfile():
                        inside = tar.extractfile(member)
                        content = b"" if inside is None else inside.read()
                        if len(content) != member.size:
                            raise tarfile.ReadError("its end is missing")
                        yield Member(member.name, member.offset_data, content)
                    vars(tar)["members"] = []  # else it keeps a record of every file
                end = tar.offset
                while packed and tar.fileobj.read(tarfile.RECORDSIZE):
                    pass  # to its checksum
            if not packed:
                check_end(file, end)
        except Exception as error:  # of any kind: file systems of others
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise StreamError(
                f"'{place}' is damaged or not whole ({reason}). Fetch it again, or pack it anew."
            ) from error
