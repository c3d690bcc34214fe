"""Opening of shards and images by path or by URL, as ``s3://bucket/photos-0001.tar``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from perdure.errors import ConfigError, StreamError


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
    try:
        core = importlib.import_module("fsspec.core")
        found: tuple[Any, str] = core.url_to_fs(place)
    except ImportError as error:
        kind = place.partition("://")[0]
        raise ConfigError(
            f"'{place}' cannot be read: {kind}:// needs another package ({error}). Type: pip install "
            "'perdure[ray]', and what fsspec names for it, as s3fs for s3:// or gcsfs for gs://."
        ) from error
    except ValueError as error:
        raise ConfigError(f"'{place}' cannot be read: {error}.") from error
    except Exception as error:  # of any kind: credentials, network
        raise unreachable(place, error) from error
    return found


def unreachable(place: str, error: Exception) -> StreamError:
    """Build the error for a path or URL that cannot be read."""
    reason = (
        getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
    )
    return StreamError(f"'{place}' cannot be read: {reason}.")


def open_place(place: str) -> Any:
    """Open a file by path or URL, to read bytes of it anywhere.

    Raises:
        ConfigError: as `file_system`.
        StreamError: it does not exist or cannot be read.
    """
    try:
        if not is_url(place):
            return Path(place).open("rb")
        system, path = file_system(place)
        return system.open(path, "rb")
    except (ConfigError, StreamError):
        raise
    except Exception as error:  # of any kind: file systems of others
        raise unreachable(place, error) from error
