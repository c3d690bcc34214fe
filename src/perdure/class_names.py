"""Class names: one spelling for every class, whatever reader or type it came from."""

from __future__ import annotations

import math
import numbers
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from perdure.errors import StreamError
from perdure.wording import listed, printable

_INVISIBLE = re.compile("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
"""Characters without a width: soft hyphen, zero-width spaces and joiners, marks of direction."""
_WHOLE = re.compile(r"([+-]?\d+)\.0+")
_MISSING = ("NAType", "NaTType")
"""Types of pandas' missing values."""
T = TypeVar("T")


def class_name(value: Any, where: str, what: str = "label") -> str:
    """Return the one spelling of a class's name.

    Texts are composed (Unicode NFC), without characters of no width and without white space around
    them. Whole numbers are one class however they are typed: 1, 1.0 and ``"1.0"`` are ``"1"``.

    Args:
        value: a text or a whole number, of Python's, numpy's or another library's type.
        where: what has the label, for errors, as ``image 3``.
        what: what it is, for errors.

    Raises:
        StreamError: nothing, not a number, a truth value, a fraction, several values, or a text that
            is empty or cannot be written as UTF-8.

    Example:
        >>> class_name(" cafe\u0301 ", "image 0"), class_name(2.0, "image 1"), class_name("2.0", "")
        ('café', '2', '2')
    """
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()  # a scalar of numpy or torch
    if isinstance(value, str):
        return _text(value, where, what)
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if number and math.isfinite(value) and value == int(value):
        return str(int(value))
    raise StreamError(
        f"The {what} of {where} is {_told(value)}. A {what} is a text or a whole number."
    )


def is_number(name: str) -> bool:
    """Whether a class's name is that of a whole number, which fits 64 bits.

    Example:
        >>> is_number("7"), is_number("007"), is_number(str(2**63))
        (True, False, False)
    """
    whole = re.fullmatch(r"-?\d+", name, re.ASCII) is not None
    return whole and str(int(name)) == name and -(2**63) <= int(name) < 2**63


def class_names(values: Iterable[Any], where: Callable[[int], str]) -> list[str]:
    """Return the names of labels that belong together.

    Args:
        values: all texts, or all numbers.
        where: what has the label at a position, for errors.

    Raises:
        StreamError: see `class_name`; or some are texts and some are numbers.
    """
    labels = list(values)
    names = [class_name(value, where(place)) for place, value in enumerate(labels)]
    texts = [isinstance(value, str) for value in labels]
    if any(texts) and not all(texts):
        raise StreamError(
            "Some labels are texts and some are numbers, and 1 and '1' would be the same class. Give "
            "texts, or whole numbers."
        )
    return names


def declared_name(value: Any, declared: Sequence[str], where: str) -> Any:
    """Return the name behind the number of a class; what is no number stands for itself.

    Raises:
        StreamError: none of the names belongs to the number; ``where`` says of what it is.
    """
    if isinstance(value, int) and not 0 <= value < len(declared):
        raise StreamError(
            f"{where} is {value}, which is none of its classes, numbered 0 … {len(declared) - 1}: "
            f"{listed(declared)}."
        )
    return declared[value] if isinstance(value, int) else value


def are_numbers(values: Iterable[Any]) -> bool:
    """Whether labels are numbers and not texts; so their classes come back as numbers."""
    return all(not isinstance(value, str) for value in values)


def ordered_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return each name once, by the alphabet or, where all are whole numbers, by value."""
    distinct = set(names)
    whole = all(re.fullmatch(r"-?\d+", name) for name in distinct)
    return tuple(sorted(distinct, key=lambda name: (int(name) if whole else 0, name)))


def joined_by_name(named: Mapping[str, Sequence[T]], where: str) -> dict[str, list[T]]:
    """Return what belongs to every class, by its one spelling.

    Args:
        named: by names as they were found, as those of folders.
        where: where they were found, for errors.

    Raises:
        StreamError: see `class_name`; or two spellings fall together, both of them named.
    """
    joined: dict[str, list[T]] = {}
    spelled: dict[str, str] = {}
    for name, things in named.items():
        one = class_name(name, f"'{printable(name)}' in {where}")
        if one in spelled:
            raise StreamError(
                f"{where} has the classes {spelled[one]!r} and {name!r}, which are one name spelled "
                f"in two ways ('{one}'). Put their images into one, or rename one."
            )
        spelled[one] = name
        joined[one] = list(things)
    return joined


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of names that differ in case, width or form alone.

    Example:
        >>> look_alikes(["Cat", "cat", "dog"])
        [('Cat', 'cat')]
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        folded = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        groups.setdefault(folded, []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _text(value: str, where: str, what: str) -> str:
    name = _INVISIBLE.sub("", unicodedata.normalize("NFC", value)).strip()
    if not name:
        raise StreamError(
            f"The {what} of {where} is {value!r}, an empty name. A {what} is a text or a whole number."
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise StreamError(
            f"The name of the class of {where} is no UTF-8 text: '{printable(name)}'. Rename it; on "
            "Linux, convmv -f latin1 -t utf8 --notest does so for whole folders."
        ) from None
    whole = _WHOLE.fullmatch(name)
    return str(int(whole[1])) if whole else name


def _told(value: Any) -> str:
    """A label that is none, and why."""
    not_a_number = isinstance(value, float) and math.isnan(value)
    if value is None or not_a_number or type(value).__name__ in _MISSING:
        return f"missing ({value!r})"
    if isinstance(value, bool):
        return f"the truth value {value}; give 0 and 1, or two names"
    if hasattr(value, "shape") or isinstance(value, list | tuple | set | dict):
        shown = listed([printable(str(part)) for part in list(value)[:6]], 4)
        kind = type(value).__name__
        return (
            f"a {kind} of {len(value)} values ({shown}): one image has one class here, and neither "
            "several attributes nor one-hot vectors are taken. For one-hot labels give argmax(1)"
        )
    return repr(value)
