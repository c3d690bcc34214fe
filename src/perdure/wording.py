"""Wording of counts, lists and shares in messages and tables."""

from __future__ import annotations

from collections.abc import Sequence


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
    """Return the first items joined by commas, and how many more there are.

    Examples:
        >>> listed(["ant", "bee", "cow"], most=2)
        'ant, bee and 1 more'
    """
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def per_cent(share: float | None, digits: int = 1) -> str:
    """Return a fraction in per cent; a dash where it is not known.

    Examples:
        >>> per_cent(0.1234), per_cent(1.0, 0), per_cent(None)
        ('12.3 %', '100 %', '–')
    """
    return "–" if share is None else f"{100 * share:.{digits}f} %"
