"""Opening of shards and images by path or by URL, as ``s3://bucket/photos-0001.tar``."""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perdure.errors import ConfigError, PerdureError, StreamError


def is_url(place: str) -> bool:
    """Tell whether a place is a URL and not a path.

    Examples:
        >>> is_url("s3://bucket/photos"), is_url("photos/cat.jpg")
        (True, False)
    """
    return "://" in place


def file_system(place: str) -> tuple[Any, str]:
    """Return the file system of a path or URL by fsspec, and the place in it.

    Raises:
        ConfigError: fsspec, or what it needs for this kind of URL, is not installed.
        StreamError: the place cannot be reached.
    """
    with reaching(place):
        try:
            core = importlib.import_module("fsspec.core")
            found: tuple[Any, str] = core.url_to_fs(place)
        except ImportError as error:
            kind = place.partition("://")[0]
            raise ConfigError(
                f"'{place}' cannot be read: {kind}:// needs another package ({error}). Type: pip "
                "install 'perdure[ray]', and what fsspec names for it, as s3fs for s3:// or gcsfs for "
                "gs://."
            ) from error
        except ValueError as error:
            raise ConfigError(f"'{place}' cannot be read: {error}.") from error
    return found


@contextmanager
def reaching(place: str) -> Iterator[None]:
    """Name the path or URL that cannot be read, whatever its file system raises.

    Raises:
        StreamError: something failed within; perdure's own errors pass.
    """
    try:
        yield
    except PerdureError:
        raise
    except Exception as error:  # of any kind: credentials, network, file systems of others
        raise StreamError(f"'{place}' cannot be read: {reason_of(error)}.") from error


def reason_of(error: Exception) -> str:
    """Return what an error says in a line; many file systems name what is not there, and no more."""
    told = getattr(error, "strerror", None)
    if told is None and isinstance(error, FileNotFoundError):
        return os.strerror(errno.ENOENT)
    return told or str(error).partition("\n")[0] or type(error).__name__


def open_place(place: str) -> Any:
    """Open a file by path or URL, to read bytes of it anywhere.

    Raises:
        ConfigError: as `file_system`.
        StreamError: it does not exist or cannot be read.
    """
    with reaching(place):
        if not is_url(place):
            return Path(place).open("rb")
        system, path = file_system(place)
        return system.open(path, "rb")
