"""Format of ``config.json`` and ``classes.json``, with the checksums that the former holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from perdure.cache import expanded
from perdure.errors import CheckpointError
from perdure.learner.history import History
from perdure.learner.saved.files import digest_of

FORMAT = 2
CONFIG, CLASSES, WEIGHTS, CARD = "config.json", "classes.json", "weights.safetensors", "README.md"
_BLANK = "0" * 64
T = TypeVar("T")


@dataclass(frozen=True)
class BackboneReference:
    """The frozen backbone, which is no part of the folder.

    Attributes:
        name: name for `create_backbone`.
        sha256: of every weight, see `FrozenBackbone.digest`.
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class Description:
    """Content of ``config.json``.

    Attributes:
        format: version of the folder.
        perdure: version that wrote it.
        backbone: backbone that the model predicts with.
        inference_only: whether what only learning reads was left out.
        config: every key of the configuration.
        preset: where the configuration came from.
        history: lessons, temperatures and forgotten classes.
        files: sha256 of the folder's other files.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    format: int
    perdure: str
    backbone: BackboneReference
    inference_only: bool
    config: dict[str, Any]
    preset: str | None
    history: History
    files: dict[str, str]


@dataclass(frozen=True)
class Classes:
    """Content of ``classes.json``.

    Attributes:
        classes: names in order of arrival; a class's label is its position.
        tasks: labels that each task brought.
        forgotten: labels that were removed again.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    classes: tuple[str, ...]
    tasks: tuple[tuple[int, ...], ...]
    forgotten: tuple[int, ...] = ()


def encode(content: Mapping[str, Any]) -> bytes:
    """Write a JSON object, the same bytes for the same content."""
    # A name from an undecodable path holds halves of surrogates: the escapes are JSON's own.
    text = json.dumps(content, indent=1, ensure_ascii=False)
    return f"{text}\n".encode(errors="backslashreplace")


def seal(description: Description) -> bytes:
    """Write ``config.json``; its last key is the checksum of the file with zeros in its place."""
    values = dataclasses.asdict(description)
    before, _, after = encode({**values, "sha256": _BLANK}).rpartition(_BLANK.encode())
    digest = digest_of(before + _BLANK.encode() + after)
    return before + digest.encode() + after


def unseal(path: Path, data: bytes) -> Description:
    """Read ``config.json`` from its content; the path is for errors.

    Raises:
        CheckpointError: it is damaged, of a newer format, or no description of a model.
    """
    values = parse(path, data)
    number = values.get("format")
    if not isinstance(number, int):
        raise CheckpointError(
            f"'{path}' is not of a model of perdure: it names no format. Name a folder that "
            "perdure has saved."
        )
    if number > FORMAT:
        raise newer(path, number)
    digest = str(values.pop("sha256", "?"))
    before, _, after = data.rpartition(digest.encode(errors="replace"))
    if digest_of(before + _BLANK.encode() + after) != digest:
        raise CheckpointError(
            f"'{path}' is damaged: it was changed after it was written. Take the model's folder "
            "from a backup, or save the model again."
        )
    if isinstance(values.get("history"), dict):
        # Of temperatures that did not go by the spread of scores: the next lesson begins a new sum.
        values["history"].pop("losses", None)
    return build(Description, path, values)


def newer(path: Path, number: int) -> CheckpointError:
    """Build the error for a format of the future."""
    return CheckpointError(
        f"'{path}' is of format {number}; this version of perdure reads formats 1 to {FORMAT}. "
        "Type: pip install --upgrade perdure"
    )


def parse(path: Path, data: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: it is none.
    """
    try:
        values = json.loads(data.decode())
        if not isinstance(values, dict):
            raise ValueError("no JSON object")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"'{path}' is damaged ({error}). Take the model's folder from a backup, or save the "
            "model again."
        ) from None
    return values


def build(kind: type[T], path: Path, values: Mapping[str, Any]) -> T:
    """Check the values of a file and build what they describe.

    Raises:
        CheckpointError: a key is missing, not known, or has another kind of value.
    """
    try:
        built: T = TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise CheckpointError(
            f"'{path}' holds what this version of perdure does not know ({'; '.join(faults[:3])}). "
            "Type: pip install --upgrade perdure"
        ) from None
    return built


def without_place(value: Any) -> Any:
    """The name of a file without the folders of this machine; other values as they are."""
    if not isinstance(value, str):
        return value
    path = expanded(value)
    return path.name if path.is_absolute() or path.is_file() else value
