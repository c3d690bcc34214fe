"""Keys of a configuration: fields of dataclasses, each with its range, default, help and role."""

from __future__ import annotations

import dataclasses
import math
import tomllib
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf
from pydantic import TypeAdapter, ValidationError

from perdure.errors import ConfigError, did_you_mean

Positive = Annotated[int, Ge(1)]
Count = Annotated[int, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
OpenFraction = Annotated[float, Gt(0), Lt(1)]


@dataclass(frozen=True)
class Roles:
    """Roles of a key; every list of keys is computed from them.

    Attributes:
        neutral: it changes no result, so a run may be resumed under another value.
        per_lesson: a classifier may change it from one lesson to the next.
        parameter: a classifier has it as a parameter of its own.
        of_runs: it means something to a run's folder alone, and nothing to a classifier.
        names_run: results have a place of their own for it, so that it is never listed among the
            options that set runs apart.
        of_some: it means something to some sources of images only.
    """

    neutral: bool = False
    per_lesson: bool = False
    parameter: bool = False
    of_runs: bool = False
    names_run: bool = False
    of_some: bool = False


_PLAIN = Roles()


def key(default: Any = dataclasses.MISSING, **roles: bool) -> Any:
    """Declare a key; its type and range are the field's annotation, its help the docstring's line.

    Args:
        default: its default; without one it must be given.
        **roles: see `Roles`.
    """
    return dataclasses.field(default=default, metadata={"roles": Roles(**roles)})


def keys_of(*parts: type[Any], role: str | None = None) -> tuple[str, ...]:
    """Return the keys of parts of a configuration, in order; those with a role where one is named.

    Examples:
        >>> @dataclass
        ... class Part:
        ...     lr: float = key(0.1)
        ...     device: str = key("cpu", neutral=True)
        >>> keys_of(Part), keys_of(Part, role="neutral")
        (('lr', 'device'), ('device',))
    """
    return tuple(
        field.name
        for part in parts
        for field in dataclasses.fields(part)
        if role is None or getattr(field.metadata.get("roles", _PLAIN), role)
    )


def defaults_of(*parts: type[Any]) -> dict[str, Any]:
    """Return the defaults of the keys that have one."""
    return {
        field.name: field.default
        for part in parts
        for field in dataclasses.fields(part)
        if field.default is not dataclasses.MISSING
    }


_OUT_OF_RANGE = "greater_than_equal greater_than less_than_equal less_than multiple_of too_short"
"""What pydantic calls values that a bound refuses."""
_BOUNDS: dict[type[Any], str] = {
    Ge: "{} or more",
    Gt: "above {}",
    Le: "at most {}",
    Lt: "below {}",
    MultipleOf: "a multiple of {}",
    MinLen: "a list of {} or more",
}


def build(part: type[Any], values: Mapping[str, Any]) -> Any:
    """Check the values of a part's keys and build it; one value stands for a list of one.

    Raises:
        ConfigError: a value that its key does not allow.
    """
    hints, validate = _checks(part)  # type: ignore[arg-type]  # mypy holds classes unhashable
    values = {
        name: (value,) if _is_list(hints[name]) and not isinstance(value, list | tuple) else value
        for name, value in values.items()
    }
    values = {
        name: as_text(value) if _is_text(hints[name], value) else value
        for name, value in values.items()
    }
    # `parse_value` reads none as None; where it is one of the words that a key allows, it is meant.
    values |= {
        name: "none"
        for name, value in values.items()
        if value is None and "none" in _words(hints[name])
    }
    try:
        return validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            raise cause from None
        name = str(first["loc"][0]) if first["loc"] else "?"
        allowed = (
            f"it must be {' and '.join(_bounds(hints.get(name)))}"
            if first["type"] in _OUT_OF_RANGE.split()
            else first["msg"]
        )
        guess = did_you_mean(str(values.get(name)), map(str, _words(hints.get(name))))
        raise ConfigError(f"{name}={values.get(name)!r}: {allowed}.{guess}") from None


def parse_value(text: str) -> Any:
    """Read a value as TOML has it, else as text; ``none`` and lists without brackets too.

    Raises:
        ConfigError: a number that is not finite.
    """
    if text in ("none", "None"):
        return None
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        lowered = text.lower()
        if lowered in ("true", "false"):
            return lowered == "true"
        parts = split_list(text)
        return Listed(parts, text) if len(parts) > 1 else text
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"'{text}' is not a finite number.")
    return value


class Listed(list[str]):
    """A list that was typed with commas alone, which some keys take as a text: a path may have them."""

    def __init__(self, parts: Iterable[str], text: str) -> None:
        super().__init__(parts)
        self.text = text


def as_text(value: Any) -> Any:
    """Return what was typed for a key that takes a text, as far as it was read for something else."""
    if isinstance(value, Listed):
        return value.text
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def split_list(text: str) -> list[str]:
    """Split ``linear,gaussian`` at its commas, except those in brackets, parentheses and quotes.

    Examples:
        >>> split_list("linear, gaussian(shrinkage=0.1)")
        ['linear', 'gaussian(shrinkage=0.1)']
    """
    parts, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == '"'
        depth += 0 if quoted else (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


@cache
def _checks(part: type[Any]) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """Return the keys' types and pydantic validators, cached: building them takes longer than using."""
    hints = typing.get_type_hints(part, include_extras=True)
    return hints, TypeAdapter(part).validate_python


def _is_list(hint: Any) -> bool:
    hint = hint.__origin__ if typing.get_origin(hint) is Annotated else hint
    return typing.get_origin(hint) is tuple


def _is_text(hint: Any, value: Any) -> bool:
    """Whether a key takes any text, and nothing that a value was read for."""
    kinds = {hint, *typing.get_args(hint)}
    lists = any(typing.get_origin(kind) is tuple for kind in kinds)
    return (
        str in kinds and not kinds & {bool, int, float} and not (lists and isinstance(value, list))
    )


def _bounds(hint: Any) -> Iterator[str]:
    """Say in words which values the bounds of a type allow."""
    for bound in getattr(hint, "__metadata__", ()):
        if type(bound) in _BOUNDS:
            yield _BOUNDS[type(bound)].format(*dataclasses.astuple(bound))
    for part in typing.get_args(hint):
        yield from _bounds(part)


def _words(hint: Any) -> Iterator[Any]:
    """The literal values that a type allows, alone or beside others."""
    for part in typing.get_args(hint):
        if typing.get_origin(hint) is Literal:
            yield part
        else:
            yield from _words(part)
