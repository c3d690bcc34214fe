"""Contents of a saved model's folder, every byte verified: configuration, classes, sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors

from perdure.engine.config import Config, make_config
from perdure.errors import CheckpointError, ConfigError
from perdure.learner.saved import format1
from perdure.learner.saved.files import read_bytes, read_file
from perdure.learner.saved.format import (
    CLASSES,
    CONFIG,
    WEIGHTS,
    Classes,
    Description,
    build,
    parse,
    unseal,
)

KILO = 1000
T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """Bytes of a model's tensors.

    Attributes:
        prediction: bytes that prediction reads.
        learning: bytes that only learning on reads; 0 where it was left out, or where there is nothing.
    """

    prediction: int
    learning: int

    @classmethod
    def of(cls, config: Config, tensors: Mapping[str, int]) -> Sizes:
        """Sum up the bytes of tensors, by name, of a model of this configuration."""
        learning = sum(tensors[name] for name in config.learning_only(tensors))
        return cls(sum(tensors.values()) - learning, learning)

    def __str__(self) -> str:
        return (
            f"{_amount(self.prediction + self.learning)} ({_amount(self.prediction)} to predict, "
            f"{_amount(self.learning)} more to learn on)"
        )


@dataclass(frozen=True)
class Contents:
    """A saved model as its folder holds it.

    Attributes:
        folder: where it lies.
        description: content of ``config.json``.
        classes: content of ``classes.json``.
        weights: content of ``weights.safetensors``.
    """

    folder: Path
    description: Description
    classes: Classes
    weights: bytes

    @property
    def known(self) -> tuple[str, ...]:
        """Names of the classes that it predicts, in order of arrival."""
        return self._names(forgotten=False)

    @property
    def forgotten(self) -> tuple[str, ...]:
        """Names of the classes that were removed again."""
        return self._names(forgotten=True)

    def _names(self, forgotten: bool) -> tuple[str, ...]:
        arrived, gone = enumerate(self.classes.classes), self.classes.forgotten
        return tuple(dict.fromkeys(name for k, name in arrived if (k in gone) == forgotten))

    @property
    def sizes(self) -> Sizes:
        """Bytes of its tensors.

        Raises:
            CheckpointError: weights or configuration cannot be used.
        """
        tensors = self.tensors(safetensors.deserialize)
        return Sizes.of(self.config(), {name: len(entry["data"]) for name, entry in tensors})

    def config(self, **changes: Any) -> Config:
        """The configuration that it was learned under, with these keys changed.

        What the last lesson left out because it could not be read is no rule for what follows.

        Raises:
            CheckpointError: it cannot be used.
        """
        about = self.description
        try:
            keys = {**about.config, "skip_unreadable": False, **changes}
            return make_config(keys, about.preset)
        except ConfigError as error:
            raise CheckpointError(
                f"The configuration in '{_pointer(self.folder)}' cannot be used: {error} A method "
                "of your own must be imported before its model is loaded."
            ) from error

    def tensors(self, decode: Callable[[bytes], T]) -> T:
        """The weights, decoded.

        Raises:
            CheckpointError: they are no safetensors file.
        """
        try:
            return decode(self.weights)
        except safetensors.SafetensorError as error:
            path = self.folder / WEIGHTS
            raise CheckpointError(f"'{path}' is no safetensors file ({error}).") from None


def is_model(folder: Path) -> bool:
    """Tell whether a folder holds a saved model, of whatever format."""
    return any((folder / name).is_file() for name in (CONFIG, format1.CONFIG))


def read_description(folder: Path) -> Description:
    """Read the description alone.

    Raises:
        CheckpointError: it is missing or damaged, or the format is newer.
    """
    return _read_pointer(folder)[0]


def read_contents(folder: Path | str) -> Contents:
    """Read and verify all files; once more where another process has saved in the meantime.

    Raises:
        CheckpointError: a file is missing or damaged, or the format is newer.
    """
    folder = Path(folder)
    path = _pointer(folder)
    before = read_bytes(path)
    try:
        description, classes = _read_pointer(folder)
        if classes is None:
            data = read_file(folder, CLASSES, description.files[CLASSES])
            classes = build(Classes, folder / CLASSES, parse(folder / CLASSES, data))
        weights = read_file(folder, WEIGHTS, description.files[WEIGHTS])
        return Contents(folder, description, classes, weights)
    except CheckpointError:
        if read_bytes(_pointer(folder)) == before:
            raise
        return read_contents(folder)


def _read_pointer(folder: Path) -> tuple[Description, Classes | None]:
    """The description; with the classes where an old format held them in the same file."""
    path = _pointer(folder)
    if path.name == format1.CONFIG:
        return format1.read_first(folder)
    description = unseal(path, read_bytes(path))
    if description.files.keys() != {CLASSES, WEIGHTS}:
        raise CheckpointError(f"'{path}' describes other files than {CLASSES} and {WEIGHTS}.")
    return description, None


def _pointer(folder: Path) -> Path:
    """The file that describes the others."""
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder '{folder}'. Name the folder of a saved model.")
    old = folder / format1.CONFIG
    return old if old.exists() and not (folder / CONFIG).exists() else folder / CONFIG


def _amount(count: int) -> str:
    """Bytes for people, in powers of 1000.

    >>> _amount(999), _amount(1_500), _amount(70_700_000)
    ('999 bytes', '1.5 kB', '70.7 MB')
    """
    if count < KILO:
        return f"{count} bytes"
    return f"{count / KILO:.1f} kB" if count < KILO**2 else f"{count / KILO**2:.1f} MB"
