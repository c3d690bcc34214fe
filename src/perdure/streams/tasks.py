"""Task sizes: ``Bm-Incn``, or written out."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

from perdure.errors import ConfigError, StreamError

_PROTOCOL = re.compile(r"B(\d+)-Inc(\d+)", re.IGNORECASE)
_SIZES = re.compile(r"\d+(?:\+\d+)*")


def task_sizes(spec: str | Sequence[int], classes: int) -> tuple[int, ...]:
    """Return the number of classes of each task.

    Args:
        spec: ``"Bm-Incn"`` (m classes first, or n where m is 0, then n per task; the last task
            takes what is left and may be smaller), or explicit sizes that add up to ``classes``,
            as ``"4+2+2+2"`` or ``[4, 2, 2, 2]``.
        classes: number of classes in the data set.

    Raises:
        ConfigError: the spec cannot be read.
        StreamError: its sizes do not fit the number of classes.

    Examples:
        >>> task_sizes("B4-Inc2", 10)
        (4, 2, 2, 2)
        >>> task_sizes("B0-Inc4", 10)
        (4, 4, 2)
        >>> task_sizes("6+4", 10)
        (6, 4)
    """
    if not isinstance(spec, str):
        return _explicit_sizes(list(spec), classes)
    text = spec.strip()
    if match := _PROTOCOL.fullmatch(text):
        return _protocol_sizes(text, int(match[1]), int(match[2]), classes)
    if _SIZES.fullmatch(text):
        return _explicit_sizes([int(size) for size in text.split("+")], classes)
    raise ConfigError(
        f"Cannot read tasks={spec}. Allowed: 'Bm-Incn' (m classes first, then n per task) or "
        f"sizes that add up to {classes}. For example: {_suggestion(classes)}."
    )


def _suggestion(classes: int) -> str:
    return f"tasks=B0-Inc{max(1, classes // 5)}"


def _protocol_sizes(text: str, first: int, step: int, classes: int) -> tuple[int, ...]:
    left, reason = classes - first, ""
    if step < 1:
        reason = "a task needs at least one class, so n starts at 1"
    elif left < 1:
        reason = f"m = {first} leaves nothing for a second task: m is at most {classes - 1}"
    elif step > left:
        reason = f"n = {step} is more than the {left} classes left: n is at most {left}"
    if reason:
        raise StreamError(
            f"tasks={text} does not fit {classes} classes: {reason}. "
            f"For example: {_suggestion(classes)}."
        )
    sizes = [first] if first else []
    sizes += [step] * (left // step)
    if left % step:
        sizes.append(left % step)
    return tuple(sizes)


def _explicit_sizes(sizes: list[int], classes: int) -> tuple[int, ...]:
    try:
        sizes = [operator.index(size) for size in sizes]
    except TypeError as error:
        raise ConfigError(
            f"Cannot read tasks={sizes}. Allowed: whole numbers that add up to {classes}. "
            f"For example: {_suggestion(classes)}."
        ) from error
    total, least = sum(sizes), min(sizes, default=0)
    if least < 1 or total != classes:
        text = "+".join(map(str, sizes))
        reason = f"the sizes add up to {total}, and must add up to {classes}"
        if sizes and least < 1:
            reason = "every task needs at least one class"
        fits = least >= 1 and total < classes
        example = f"tasks={text}+{classes - total}" if fits else _suggestion(classes)
        raise StreamError(
            f"tasks={text} does not fit {classes} classes: {reason}. For example: {example}."
        )
    return tuple(sizes)
