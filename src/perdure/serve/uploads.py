"""Uploads: images of a request, with or without labels; kept in memory, checked before all else."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import json
import os
import shutil
import tempfile
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import anyio.to_thread
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from perdure.atomic import atomic_write, lives, make_folder
from perdure.class_names import class_name
from perdure.errors import PerdureError, StreamError, UnreadableImageError
from perdure.serve.limits import Limits
from perdure.serve.problems import Problem
from perdure.streams.decoding import EncodedImage, image_size
from perdure.streams.fetch.unpacking import unpack
from perdure.streams.images.find_images import walk
from perdure.streams.images.left_out import LeftOut
from perdure.streams.sources.folder import class_files, image_root, parts
from perdure.streams.sources.resolve import holds_shards, is_saved
from perdure.wording import counted, listed, printable

_UNPACKED = "perdure-lesson-"
"""How temporary folders begin that zips are unpacked to; the number of the process follows."""
ONE_OF_EACH = (
    "Send multipart/form-data with files and a field labels for each of them (or one for all), or one "
    "zip with a folder per class; or JSON with images of data and label."
)


class _InMemory(MultiPartParser):
    """Parser of forms that writes no upload to the disk."""

    spool_max_size = 2**62

    async def parse(self) -> FormData:
        """Parse the form; files of one that is not whole are closed."""
        try:
            return await super().parse()
        except BaseException:
            for file in self._files_to_close_on_error:
                file.close()
            raise


@dataclass
class Labelled:
    """Labelled images of a request.

    Attributes:
        data: as for ``learn``: images, or a folder.
        labels: a label for each image; None where the folder has them.
        images: how many there are; None for a folder of the server.
    """

    data: Any
    labels: list[str] | None
    images: int | None
    _place: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    def keep(self, folder: Path) -> None:
        """Write the images into a folder per class, each under its checksum.

        Raises:
            OutputError: they cannot be written.
        """
        for name, content, ending in self._contents():
            place = make_folder(folder / as_folder(name))
            atomic_write(place / f"{sha256(content).hexdigest()[:16]}{ending}", content)

    def _contents(self) -> list[tuple[str, bytes, str]]:
        if self.labels is not None:
            pairs = zip(self.labels, self.data, strict=True)
            return [(name, one.content, _ending(one.name)) for name, one in pairs]
        if self._place is None:  # a folder of the server is where it is
            return []
        return [
            (name, path.read_bytes(), _ending(path.name))
            for name, paths in _in_classes(self.data).items()
            for path in paths
            if isinstance(path, Path)
        ]

    def close(self) -> None:
        """Remove what was unpacked."""
        if self._place is not None:
            self._place.cleanup()


def as_folder(name: str) -> str:
    """Return the name of a class as that of a folder: one part, not hidden, not too long.

    Examples:
        >>> as_folder("../etc"), as_folder("cat")
        ('_._etc-f7f9121f', 'cat')
    """
    one = "".join("_" if unicodedata.category(c) == "Cc" or c in "/\\" else c for c in name)
    one = f"_{one[1:]}" if one.startswith(".") else one
    one = one.encode()[:200].decode(errors="ignore")
    # What was changed is told apart: two classes must not fall into one folder.
    return one if one == name else f"{one}-{sha256(name.encode()).hexdigest()[:8]}"


def _ending(name: str) -> str:
    ending = PurePosixPath(name).suffix.lower()
    return ending if ending[1:].isalnum() and len(ending) < 6 else ".jpg"  # noqa: PLR2004


async def read_pictures(request: Request, limits: Limits) -> list[EncodedImage]:
    """Read the images of a request that is to be predicted.

    Raises:
        Problem: it brings none, or more than is allowed.
    """
    if _kind(request) == "application/json":
        entries = _entries(await _json(request), limits.predicted)
        images = [_encoded(one, place) for place, one in enumerate(entries)]
    else:
        images, _ = await _form(request, limits.predicted)
    if not images:
        raise Problem(422, "There is no image. Send files, or JSON with images.")
    return images


async def read_labelled(
    request: Request, limits: Limits, most: int, photos: Path | None
) -> Labelled:
    """Read the labelled images of a request.

    Args:
        request: it.
        limits: of it.
        most: images that it may bring.
        photos: folder of the server whose folders may be named; None for none.

    Raises:
        Problem: it brings none or too many, or what is no label.
    """
    if _kind(request) == "application/json":
        content = await _json(request)
        if "folder" in content:
            return Labelled(_allowed(content["folder"], photos), None, None)
        entries = _entries(content, most)
        images = [_encoded(one, place) for place, one in enumerate(entries)]
        labels = [one.get("label") if isinstance(one, Mapping) else None for one in entries]
    else:
        images, labels = await _form(request, most)
        if len(images) == 1 and zipfile.is_zipfile(io.BytesIO(images[0].content)):
            return await anyio.to_thread.run_sync(_unpacked, images[0], limits, most)
        labels = labels * len(images) if len(labels) == 1 else labels
    if not images:
        raise Problem(422, f"There is no image. {ONE_OF_EACH}")
    if len(labels) != len(images) or None in labels:
        given = counted(sum(label is not None for label in labels), "label")
        have = "came with" if len(images) != 1 else "comes with"
        raise Problem(
            422,
            f"{counted(len(images), 'image')} {have} {given}, one each is needed. {ONE_OF_EACH}",
        )
    names = [
        checked_name(label, f"'{one}'", limits) for label, one in zip(labels, images, strict=True)
    ]
    return Labelled(images, names, len(images))


def checked_name(label: Any, where: str, limits: Limits) -> str:
    """Return the one spelling of a class's name.

    Raises:
        Problem: it is too long, or has control characters.
        StreamError: it is none.
    """
    name = class_name(label, printable(where), "name")
    if len(name) > limits.name_characters:
        raise Problem(
            422,
            f"The name '{printable(name[:20])}…' has {len(name):,} characters. Allowed are "
            f"{limits.name_characters}.",
        )
    if any(unicodedata.category(one) == "Cc" for one in name):
        raise Problem(422, f"The name '{printable(name)}' has control characters. Leave them out.")
    return name


def fault_of(image: EncodedImage, limits: Limits) -> str:
    """Return what is wrong with an image: too large, or not to be read; nothing is decoded."""
    if len(image.content) > limits.image_bytes:
        most = limits.image_bytes // 10**6
        return f"the file has {len(image.content) / 1e6:,.0f} MB; allowed are {most} MB"
    try:
        width, height = image_size(image)
    except UnreadableImageError as error:
        return str(error).removeprefix(f"{image}: ")
    if width * height > limits.image_pixels:
        return f"{width} x {height} pixels; allowed are {limits.image_pixels / 1e6:.0f} million"
    return ""


def refuse_unreadable(images: Sequence[EncodedImage], limits: Limits) -> None:
    """Refuse images of which some cannot be used.

    Raises:
        Problem: these are named.
    """
    faults = [f"{image}: {fault}" for image in images if (fault := fault_of(image, limits))]
    if faults:
        raise Problem(
            422,
            f"{counted(len(faults), 'image')} of {len(images)} cannot be used, and nothing was "
            f"learned: {listed(faults, 5)}. Leave them out.",
        )


# ------------------------------------------------------------------------------------------ parts


def _kind(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "multipart/form-data"):
        raise Problem(415, f"'{printable(kind)}' is not understood. {ONE_OF_EACH}")
    return kind


async def _json(request: Request) -> dict[str, Any]:
    try:
        content = json.loads(await request.body())
        if not isinstance(content, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"The request is no JSON object ({printable(str(error))}).") from None
    return content


async def _form(request: Request, most: int) -> tuple[list[EncodedImage], list[Any]]:
    """The files and labels of a form."""
    parser = _InMemory(
        request.headers, request.stream(), max_files=most, max_fields=most, max_part_size=2**16
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        many = "Too many" in error.message
        detail = f"A request may have {most:,} images." if many else f"No form: {error.message}"
        raise Problem(413 if many else 400, detail) from None
    except (KeyError, ValueError) as error:  # a boundary that is missing or damaged
        raise Problem(400, f"The form cannot be read ({printable(str(error))}).") from None
    try:
        files = [await _uploaded(part) for part in form.getlist("files")]
        return files, list(form.getlist("labels"))
    finally:
        await form.close()


async def _uploaded(part: Any) -> EncodedImage:
    if not isinstance(part, UploadFile):
        raise Problem(422, "A part called files is no file. Give each a filename.")
    return EncodedImage(printable(part.filename or "image")[:200], await part.read())


def _entries(content: Mapping[str, Any], most: int) -> list[Any]:
    entries = content.get("images")
    if not isinstance(entries, list):
        raise Problem(422, 'The JSON has no list images, as {"images": [{"data": "BASE64"}]}.')
    if len(entries) > most:
        raise Problem(413, f"A request may have {most:,} images, and this has {len(entries):,}.")
    return entries


def _encoded(entry: Any, place: int) -> EncodedImage:
    one = entry if isinstance(entry, Mapping) else {"data": entry}
    name, data = one.get("name") or f"image {place}", one.get("data")
    try:
        if not isinstance(data, str):
            raise ValueError("no text")
        content = base64.b64decode(
            data.partition(",")[2] if data[:5] == "data:" else data, validate=True
        )
    except (binascii.Error, ValueError):
        raise Problem(422, f"The data of {printable(str(name))[:200]} is no base64.") from None
    return EncodedImage(printable(str(name))[:200], content)


def _allowed(given: Any, photos: Path | None) -> Path:
    if photos is None:
        raise Problem(
            403,
            "Folders of the server may not be named. Start it with --photos DIR to allow those in it.",
        )
    folder = (photos / str(given)).resolve()
    if not folder.is_relative_to(photos.resolve()) or not folder.is_dir():
        raise Problem(422, f"There is no folder '{printable(str(given))}' in '{photos.name}'.")
    return folder


def sweep_unpacked() -> None:
    """Remove what zips were unpacked to by servers that were killed: nobody's photographs stay."""
    for place in Path(tempfile.gettempdir()).glob(f"{_UNPACKED}*"):
        process = place.name.removeprefix(_UNPACKED).partition("-")[0]
        if process.isdecimal() and not lives(int(process)):
            shutil.rmtree(place, ignore_errors=True)


def _in_classes(folder: Path) -> Mapping[str, Sequence[Any]]:
    """Images that a lesson takes from a folder, by class."""
    left_out = LeftOut()
    root = image_root(folder)
    return class_files(parts(root, left_out).get("train", root), left_out)


def _refuse_in(folder: Path, limits: Limits) -> None:
    """Refuse images of an unpacked folder that are too large; broken ones are told when read."""
    refuse_other_kinds(folder)
    with contextlib.suppress(StreamError):  # no class at all is told when it is read
        for name, files in _in_classes(folder).items():
            checked_name(name, f"the folder of {counted(len(files), 'image')}", limits)
    for one in walk(folder):
        path = Path(str(one.path))
        image = EncodedImage(str(path.relative_to(folder)), path.read_bytes())
        with contextlib.suppress(UnreadableImageError):
            image_size(image)
            if fault := fault_of(image, limits):
                raise Problem(422, f"{image}: {fault}. Leave it out.")


def refuse_other_kinds(folder: Path) -> None:
    """Refuse shards and saved data sets, whose images are no files that could be looked at."""
    with contextlib.suppress(OSError):  # a folder that may not be read is told by who reads it
        if holds_shards(folder) or is_saved(folder):
            raise Problem(422, "Shards and saved data sets are not taken. Give a folder per class.")


def _unpacked(image: EncodedImage, limits: Limits, most: int) -> Labelled:
    try:
        with zipfile.ZipFile(io.BytesIO(image.content)) as archive:
            files = [one for one in archive.infolist() if not one.is_dir()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Problem(422, f"The zip '{image}' is damaged ({error}).") from None
    size = sum(one.file_size for one in files)
    if len(files) > most or size > limits.unpacked_bytes:
        raise Problem(
            413,
            f"The zip '{image}' holds {len(files):,} files of {size / 1e6:,.0f} MB. Allowed are "
            f"{most:,} files of {limits.unpacked_bytes // 10**6:,} MB together.",
        )
    sweep_unpacked()
    place = tempfile.TemporaryDirectory(prefix=f"{_UNPACKED}{os.getpid()}-")
    try:
        packed, folder = Path(place.name) / "upload.zip", Path(place.name) / "photos"
        packed.write_bytes(image.content)
        folder.mkdir()
        unpack(packed, folder, lambda done: None)
        packed.unlink()
        _refuse_in(folder, limits)
    except BaseException as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(place.name)
        place.cleanup()
        if isinstance(error, PerdureError):  # where it was unpacked is nobody's business
            raise Problem(422, str(error).replace(str(packed), str(image))) from None
        raise
    return Labelled(folder, None, len(files), place)
