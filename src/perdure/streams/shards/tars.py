"""Tar shards, as WebDataset writes them: files in order, each whole."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Literal, NamedTuple

from perdure.errors import StreamError
from perdure.streams.shards.opening import open_place

TARS = (".tar", ".tar.gz", ".tgz")
"""What the names of tar shards end in."""


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


def members(place: str) -> Iterator[Member]:
    """Read the files of a tar one after another; one is in memory at a time.

    Args:
        place: its path or URL.

    Raises:
        ConfigError: a URL that needs another package.
        StreamError: it cannot be read, or is damaged or cut short; files before are given.
    """
    from perdure.streams.images.find_images import is_image_name  # noqa: PLC0415  imports numpy

    mode: Literal["r:gz", "r:"] = "r:gz" if is_packed(place) else "r:"
    with open_place(place) as file:
        try:
            with tarfile.open(fileobj=file, mode=mode) as tar:
                for member in tar:
                    # A link has no content of its own, and a sparse file not in one piece.
                    linked = member.islnk() or member.issym() or member.issparse()
                    if linked and is_image_name(member.name):
                        raise tarfile.ReadError(
                            f"'{member.name}' is a link or sparse: pack with --dereference and "
                            "--hard-dereference, without --sparse"
                        )
                    if member.isfile():
                        packed = tar.extractfile(member)
                        content = b"" if packed is None else packed.read()
                        if len(content) != member.size:
                            raise tarfile.ReadError("its end is missing")
                        yield Member(member.name, member.offset_data, content)
                    vars(tar)["members"] = []  # else it keeps a record of every file
                end = tar.offset
                while mode == "r:gz" and tar.fileobj.read(tarfile.RECORDSIZE):
                    pass  # to its checksum
            if mode == "r:":
                # tarfile takes a header that is cut short for the end; gzip finds that out by itself.
                file.seek(end)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("its end is missing")
        except Exception as error:  # of any kind: file systems of others
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise StreamError(
                f"'{place}' is damaged or not whole ({reason}). Fetch it again, or pack it anew."
            ) from error
