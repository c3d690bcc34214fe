"""List of published data sets: their files, publishers and folders."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from perdure.cache import expanded, home
from perdure.errors import StreamError

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
"""The domains of DomainNet, a zip and a folder each."""


@dataclass(frozen=True)
class PublishedFile:
    """A file as its publisher offers it.

    Attributes:
        name: file name, also when it is put there by hand.
        url: where it is offered.
        megabytes: about how large it is.
        md5: its checksum; empty where none is known.
    """

    name: str
    url: str
    megabytes: int
    md5: str = ""


@dataclass(frozen=True)
class PublishedData:
    """A published data set.

    Attributes:
        name: name of the source that loads it.
        title: common name.
        classes: number of classes.
        images: number of images, for training and testing together.
        split: which of them are for testing.
        publisher: where it comes from.
        licence: licence, as far as known.
        files: files to fetch; empty for none.
        holds: what its folder must hold to be taken for whole; a file that is published with
            ``.gz`` may lie there so.
        elsewhere: folders of the system that may hold it as well.
        advice: another way to get it.
    """

    name: str
    title: str
    classes: int
    images: int
    split: str
    publisher: str
    licence: str
    files: tuple[PublishedFile, ...] = ()
    holds: tuple[str, ...] = ()
    elsewhere: tuple[Path, ...] = ()
    advice: str = ""

    @property
    def folder(self) -> Path:
        """Folder of its unpacked files."""
        return home() / "data" / self.name

    @property
    def megabytes(self) -> int:
        """Approximate size of the download."""
        return sum(file.megabytes for file in self.files)

    @property
    def at_hand(self) -> bool:
        """Whether its images are on this machine already."""
        return not self.files or self.located() is not None

    def located(self) -> Path | None:
        """Return the folder of its images; None where there is none, or none is needed."""
        if not self.holds:
            return None
        folders = (*self.elsewhere, self.folder)
        return next((folder for folder in folders if not self.missing(folder)), None)

    def missing(self, folder: Path) -> list[str]:
        """Return the files and folders of this data set that a folder lacks."""
        zipped = {file.name for file in self.files}
        return [
            name
            for name in self.holds
            if not (folder / name).exists()
            and not (f"{name}.gz" in zipped and (folder / f"{name}.gz").exists())
        ]

    def root(self, place: str | None) -> Path:
        """Return the folder to load from.

        Args:
            place: folder named by the user; None for the cache.

        Raises:
            StreamError: the files are not there.
        """
        if place is None:
            located = self.located()
            if located is None:
                places = " and ".join(f"'{folder}'" for folder in (*self.elsewhere, self.folder))
                raise StreamError(
                    f"{self.title} was not found in {places}. Type: perdure data fetch {self.name} "
                    f"(about {self.megabytes:,} MB), or name the folder of its files with "
                    f"data={self.name}:FOLDER."
                )
            return located
        folder = expanded(place)
        missing = self.missing(folder)
        if missing:
            above = folder.parent
            hint = f" Type data='{self.name}:{above}'." if not self.missing(above) else ""
            raise StreamError(
                f"{self.title} was not found in '{folder}': it does not hold "
                f"{quoted(missing)}.{hint} Name the folder that holds what is missing with "
                f"data={self.name}:FOLDER, or type data={self.name}: then it is '{self.folder}'."
            )
        return folder


def quoted(names: Sequence[str]) -> str:
    """Return names in quotation marks, joined by commas."""
    return ", ".join(f"'{name}'" for name in names)


def _read() -> dict[str, PublishedData]:
    text = resources.files(__package__).joinpath("published.toml").read_text("utf-8")
    read = {}
    for name, entry in tomllib.loads(text).items():
        lists = {key: tuple(entry.pop(key, ())) for key in ("files", "holds", "elsewhere")}
        files = tuple(
            PublishedFile(file["url"].rpartition("/")[2], **file) for file in lists["files"]
        )
        folders = tuple(Path(folder) for folder in lists["elsewhere"])
        read[name] = PublishedData(
            name, **entry, files=files, holds=lists["holds"], elsewhere=folders
        )
    return read


PUBLISHED = _read()
"""Published data sets, by the name of the source that loads each."""
