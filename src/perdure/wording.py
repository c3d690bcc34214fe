"""Wording of counts, lists, shares and foreign names in messages and tables."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_FORMULA = re.compile(r"[=+\-@]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE)


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun.

    Args:
        number: the number; thousands are set apart.
        one: the noun of one thing.
        many: that of several; with an s by default.

    Examples:
        >>> counted(1, "task"), counted(2000, "task"), counted(0, "class", "classes")
        ('1 task', '2,000 tasks', '0 classes')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def listed(items: Sequence[str], most: int = 5) -> str:
    """Return the first items joined by commas, safe to show, and how many more there are.

    Examples:
        >>> listed(["ant", "bee", "cow"], most=2)
        'ant, bee and 1 more'
    """
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(printable, items[:most])) + more


def per_cent(share: float | None, digits: int = 1) -> str:
    """Return a fraction in per cent; a dash where it is not known.

    Examples:
        >>> per_cent(0.1234), per_cent(1.0, 0), per_cent(None)
        ('12.3 %', '100 %', '–')
    """
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return a text that is safe to show: control characters and halves of characters escaped.

    Args:
        text: may hold names that others chose, of classes and files.
        lines: whether line breaks stay.

    Examples:
        >>> printable("café \x1b[31m\x9b")
        'café \\x1b[31m\\x9b'
    """
    if text.isprintable():
        return text
    return "".join(one if _is_shown(one, lines) else _escaped(one) for one in text)


def _is_shown(one: str, lines: bool) -> bool:
    return one.isprintable() or unicodedata.category(one) == "Zs" or (lines and one == "\n")


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode("ascii")


def csv_cell(value: object) -> object:
    r"""Return what a cell of a CSV file holds: texts are safe in a terminal and a spreadsheet.

    A text that a spreadsheet would take for a formula begins with an apostrophe.

    Examples:
        >>> csv_cell("=1+1"), csv_cell("-1"), csv_cell("a\nb"), csv_cell(0.5)
        ("'=1+1", '-1', 'a\\nb', 0.5)
    """
    if value is None or isinstance(value, int | float):
        return value
    text = printable(str(value))
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
