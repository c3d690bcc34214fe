"""What a configuration's keys are: type, default and meaning, read from the code that defines them."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

_ATTRIBUTE = re.compile(r"    (\w+): (.*)")


@dataclass(frozen=True)
class Option:
    """A key that can be set.

    Attributes:
        name: the key.
        type: its type in words.
        default: its default.
        about: its meaning.
    """

    name: str
    type: str
    default: Any
    about: str


def options_of(config: type[Any]) -> list[Option]:
    """Return the fields of a configuration class, inherited ones first."""
    hints = typing.get_type_hints(config)
    about: dict[str, str] = {}
    for base in reversed(config.__mro__):
        about.update(described_attributes(base))
    return [
        Option(
            field.name,
            type_in_words(hints[field.name]),
            None if field.default is dataclasses.MISSING else field.default,
            about.get(field.name, ""),
        )
        for field in dataclasses.fields(config)
    ]


def described_attributes(kind: type[Any]) -> dict[str, str]:
    """Return what the ``Attributes:`` section of a class's own docstring says of each name."""
    text = inspect.cleandoc(kind.__dict__.get("__doc__") or "")
    _, _, section = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if not line.startswith("    "):
            break
        match = _ATTRIBUTE.fullmatch(line)
        if match:
            name = match[1]
            found[name] = match[2].strip()
        elif name:
            found[name] += " " + line.strip()
    return {name: about.replace("``", "") for name, about in found.items()}


def type_in_words(hint: Any) -> str:
    """Name a type as one would say it.

    Examples:
        >>> type_in_words(tuple[int, ...]), type_in_words(int | None)
        ('list of integers', 'integer | none')
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return type_in_words(arguments[0])
    if origin is Literal:
        return " | ".join(str(value) for value in arguments)
    if origin is tuple:
        return f"list of {type_in_words(arguments[0])}s"
    if origin in (types.UnionType, typing.Union):
        return " | ".join(type_in_words(argument) for argument in arguments)
    names: dict[Any, str] = {int: "integer", float: "number", str: "text", bool: "true | false"}
    names[type(None)] = "none"
    return names.get(hint, str(hint))
