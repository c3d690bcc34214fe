"""Image files that a folder, an archive or a table stands for, without their labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from perdure.streams.config import StreamConfig
from perdure.streams.fetch.unpacking import is_archive
from perdure.streams.images.find_images import Listed, walk
from perdure.streams.images.left_out import LeftOut
from perdure.streams.sources.folder import image_root
from perdure.streams.sources.resolve import TABLES
from perdure.streams.sources.table import table_images


def is_list(path: Path) -> bool:
    """Tell whether a path is a folder, an archive or a table, and not a single image."""
    listing = path.suffix.lower() in TABLES or is_archive(path.name)
    try:
        return path.is_dir() or (listing and path.is_file())
    except OSError:  # a name that is too long, or a folder on the way that may not be entered
        return False


def images_in(
    path: Path, config: StreamConfig, left_out: LeftOut | None = None
) -> Iterator[Listed]:
    """Find the images of a folder or archive, in all folders in it, or of a table, one per line.

    Args:
        path: what `is_list`.
        config: names the column of images, where it has not a usual name.
        left_out: receives what is left out of a folder.

    Raises:
        ConfigError: a table that needs pyarrow.
        StreamError: a table that cannot be read or does not say where the images are, or an archive
            that cannot be unpacked.
    """
    if path.is_dir() or is_archive(path.name):
        root = image_root(path)
        if left_out is not None:
            left_out.root = root
        yield from walk(root, left_out)
    else:
        yield from map(Listed, table_images(path, config))
