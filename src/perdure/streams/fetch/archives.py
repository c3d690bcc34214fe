"""Archives of one's own photographs, unpacked once into the cache."""

from __future__ import annotations

from pathlib import Path

from perdure.atomic import make_once, sync_all
from perdure.cache import sha256_of, unpacked_dir
from perdure.streams.fetch.unpacking import archive_stem, unpack
from perdure.streams.images.find_images import is_hidden, is_image_name


def unpacked(archive: Path) -> Path:
    """Return the folder of an archive's content; it is unpacked where that was not done before.

    The folder lies in the cache and goes by the archive's checksum, so that a changed archive is
    unpacked anew. It appears in one step; what a killed process left is removed by the next. Where
    the archive holds nothing but a folder of folders, that is it.

    Raises:
        StreamError: the archive is damaged or not to be trusted.
        OutputError: the cache cannot be written.
    """

    def fill(work: Path) -> None:
        unpack(archive, work, lambda done: None)
        sync_all()

    stem = archive_stem(archive.name)
    folder = unpacked_dir() / f"{stem[:60]}-{sha256_of(archive)[:16]}"
    make_once(folder, f"'{archive}' could not be unpacked", fill)
    return _within(folder, stem)


def _within(folder: Path, stem: str) -> Path:
    """The folder of class folders, where an archive has one folder around them all."""
    outer = [path for path in folder.iterdir() if not is_hidden(path.name)]
    if len(outer) != 1 or not outer[0].is_dir():
        return folder
    inner = [path for path in outer[0].iterdir() if not is_hidden(path.name)]
    folders = [path for path in inner if path.is_dir()]
    # A single class may have folders of its own within.
    around = len(folders) > 1 or (len(folders) == 1 and outer[0].name == stem)
    return outer[0] if around and not any(is_image_name(path.name) for path in inner) else folder
