"""Keys of a configuration in words: type, default and meaning, read from their declarations."""

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
class KeyDescription:
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


def describe_keys(*configs: type[Any]) -> list[KeyDescription]:
    """Describe the fields of configuration classes, inherited ones first."""
    return [
        KeyDescription(
            field.name,
            type_in_words(typing.get_type_hints(config)[field.name]),
            None if field.default is dataclasses.MISSING else field.default,
            next(filter(None, (_meanings(base).get(field.name) for base in config.__mro__)), ""),
        )
        for config in configs
        for field in dataclasses.fields(config)
    ]


def _meanings(config: type[Any]) -> dict[str, str]:
    """Return what the ``Attributes:`` section of a class's own docstring says of each name."""
    text = inspect.cleandoc(config.__dict__.get("__doc__") or "")
    meanings: dict[str, str] = {}
    name = ""
    for line in text.partition("Attributes:\n")[2].splitlines():
        if not line.startswith("    "):
            break
        match = _ATTRIBUTE.fullmatch(line)
        if match:
            name = match[1]
            meanings[name] = match[2].strip()
        elif name:
            meanings[name] += " " + line.strip()
    return {name: about.replace("``", "") for name, about in meanings.items()}


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
