"""Image file sets: capped per class, checked, and decoded in advance where they fit in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.errors import StreamError, UnreadableImageError
from perdure.streams.config import StreamConfig
from perdure.streams.decoding import ImageFile, decode, image_size
from perdure.streams.images.sets import FileImages, unreadable_images
from perdure.streams.sources.base import Domains, Source, capped


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """Image files of one split.

    Attributes:
        paths: one file per image.
        labels: source label of each image.
        domains: domain of each image, where it was asked for.
    """

    paths: Sequence[ImageFile]
    labels: NDArray[np.int64]
    domains: NDArray[np.int64] | None = None

    @property
    def groups(self) -> NDArray[np.int64]:
        """Groups that caps hold for: classes, or classes in each domain."""
        if self.domains is None:
            return self.labels
        pairs = np.stack([self.labels, self.domains])
        return np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)

    def take(self, kept: NDArray[np.int64]) -> LabelledFiles:
        """Return the images at these positions."""
        domains = None if self.domains is None else self.domains[kept]
        return LabelledFiles([self.paths[index] for index in kept], self.labels[kept], domains)


def file_source(
    name: str,
    class_names: Sequence[str],
    train: LabelledFiles,
    test: LabelledFiles,
    config: StreamConfig,
    seed: int,
    published: bool = False,
    domain_names: Sequence[str] = (),
) -> Source:
    """Make a source of image files, capped as the configuration says.

    Every image that will be used is checked here: decoded to its end, and kept, where all of them
    fit in the memory budget; otherwise only its header is read now (with ``skip_unreadable``
    it is decoded once, to know whether it must be left out) and the rest when it is needed. The
    images of a published data set are taken for sound, and only read when they are needed.

    Args:
        name: name of the source.
        class_names: one name per source label.
        train: training images.
        test: test images; their cap does not depend on the seed.
        config: the caps, and what happens to unreadable images.
        seed: of what is drawn where training images are capped.
        published: nothing is checked now, unless unreadable images are to be left out.
        domain_names: names of the domains, where the images have them.

    Raises:
        StreamError: a class without an image.
        UnreadableImageError: images that cannot be decoded, all of them listed.
    """
    train = train.take(capped(train.groups, config, "train", seed))
    test = test.take(capped(test.groups, config, "test", seed))
    pixels: dict[ImageFile, NDArray[np.uint8]] | None = None
    skipped: dict[ImageFile, str] = {}
    if config.skip_unreadable or not published:
        pixels, skipped = _verified([*train.paths, *test.paths], config.skip_unreadable)
    train, test = (_readable(files, skipped) for files in (train, test))
    sets = [_image_set(files, pixels) for files in (train, test)]
    domains = None
    if train.domains is not None and test.domains is not None:
        domains = Domains(tuple(domain_names), train.domains, test.domains)
    return Source(name, tuple(class_names), sets[0], sets[1], tuple(skipped.values()), domains)


def refuse_missing(source: str, paths: Sequence[Path]) -> None:
    """Refuse a published data set that lacks images of its split.

    Raises:
        StreamError: one of the files is not there.
    """
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise StreamError(
            f"{len(missing):,} of {len(paths):,} images of '{source}' are missing, first "
            f"'{missing[0]}'. Move its folder away, and type: perdure data fetch {source}"
        )


def _verified(
    paths: Sequence[ImageFile], skip_unreadable: bool
) -> tuple[dict[ImageFile, NDArray[np.uint8]] | None, dict[ImageFile, str]]:
    """Check every file.

    Returns:
        The pixels by file, or None where they do not fit in memory; ``"path: reason"`` by faulty file.

    Raises:
        UnreadableImageError: there are faulty files, and they may not be skipped.
    """
    faults: dict[ImageFile, str] = {}
    decoded_bytes = 0
    for path in paths:
        try:
            width, height = image_size(path)
            decoded_bytes += 3 * width * height
        except UnreadableImageError as error:
            faults[path] = str(error)
    keep = decoded_bytes <= FileImages.memory_budget
    pixels: dict[ImageFile, NDArray[np.uint8]] = {}
    if keep or skip_unreadable:
        for path in paths:
            if path in faults:
                continue
            try:
                image = decode(path)
            except UnreadableImageError as error:
                faults[path] = str(error)
                continue
            if keep:
                pixels[path] = np.asarray(image)
    if faults and not skip_unreadable:
        raise unreadable_images(list(faults.values()))
    return (pixels if keep else None), faults


def _readable(files: LabelledFiles, skipped: Mapping[ImageFile, str]) -> LabelledFiles:
    return files.take(np.flatnonzero([path not in skipped for path in files.paths]))


def _image_set(
    files: LabelledFiles, pixels: Mapping[ImageFile, NDArray[np.uint8]] | None
) -> FileImages:
    decoded = None if pixels is None else [pixels[path] for path in files.paths]
    return FileImages(files.paths, files.labels, decoded)


def checked_images(
    files: LabelledFiles, skip_unreadable: bool
) -> tuple[FileImages, tuple[str, ...]]:
    """Check image files that belong to no source, and return them as a set.

    Returns:
        The images, and ``"path: reason"`` per image that was left out.

    Raises:
        UnreadableImageError: images that cannot be decoded, all of them listed.
    """
    pixels, skipped = _verified(files.paths, skip_unreadable)
    return _image_set(_readable(files, skipped), pixels), tuple(skipped.values())
