"""Schema of an entry of ``results.json``, checked when one is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any

from annotated_types import Ge, Le, MinLen
from pydantic import TypeAdapter, ValidationError

from perdure.metrics import METRICS
from perdure.selection import FIGURES

REQUIRED = ("method", "head", "stream", "backbone", "seed", "accuracy_matrix", "last_accuracy")

_Name = Annotated[str, MinLen(1)]
_Count = Annotated[int, Ge(0)]
_Positive = Annotated[float, Ge(0)] | None
_Share = Annotated[float, Ge(0), Le(1)] | None
_KEYS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(REQUIRED[:4], (_Name, "a name")),
    "preset": (str | None, "a name or null"),
    "seed": (int, "a whole number"),
    "chosen_on": (str | None, "how settings were chosen, or null"),
    "sees_old_images": (bool | None, "true or false"),
    "seconds": (_Positive, "a number from 0, or null"),
    "accuracy_matrix": (
        Annotated[list[Any], MinLen(1)],
        "one list or null per task",
    ),
    "accuracy_curve": (list[_Share] | None, "one value of 0 to 1 or null per task, or null"),
    "test_counts": (list[_Count] | None, "one whole number from 0 per task"),
    "task_sizes": (list[Annotated[int, Ge(1)]] | None, "one whole number from 1 per task"),
    "class_names": (list[str] | None, "a list of names"),
    "confusion": (list[list[_Count]] | None, "one list of whole numbers from 0 per class"),
    "drift": (list[dict[str, Any]] | None, "one object per task that features moved in"),
    "diagnosis": (dict[str, Any] | None, "an object"),
    "cost": (dict[str, Any] | None, "an object"),
    **dict.fromkeys(FIGURES, (_Share, "0 to 1, or null")),
}
"""Per key what it may hold, as a type and in words. The metrics come on top."""

_COSTS = dict.fromkeys(
    ("trainable_parameters", "state_bytes"), (_Positive, "a number from 0, or null")
)
_LISTS = ("accuracy_curve", "test_counts", "task_sizes")


def find_fault(content: Any) -> str | None:
    """Tell what is wrong with the content of a ``results.json``; None when nothing is.

    Keys that are not known are left alone, so that results of a newer version can still be read.

    Returns:
        A clause that names the entry (from 1), the key, what it holds and what is allowed.
    """
    if not isinstance(content, list):
        return f"it holds {_say(content)} where a list of results belongs"
    for place, entry in enumerate(content, start=1):
        if not isinstance(entry, Mapping):
            return f"entry {place} is {_say(entry)} where an object belongs"
        fault = _entry_fault(entry)
        if fault:
            return f"entry {place}: {fault}"
    return None


def _entry_fault(entry: Mapping[str, Any]) -> str | None:
    absent = [key for key in REQUIRED if key not in entry]
    if absent:
        return f"the key '{absent[0]}' is missing"
    metrics = {
        key: (
            Annotated[float, Ge(one.low), Le(one.high)] | None,
            f"{one.low:g} to {one.high:g}, or null",
        )
        for key, one in METRICS.items()
    }
    return (
        _keys_fault(entry, {**_KEYS, **metrics})
        or _keys_fault(entry.get("cost") or {}, _COSTS, " of 'cost'")
        or _matrix_fault(entry["accuracy_matrix"])
        or _sizes_fault(entry)
    )


def _keys_fault(
    entry: Mapping[str, Any], keys: Mapping[str, tuple[Any, str]], of: str = ""
) -> str | None:
    for key, (kind, allowed) in keys.items():
        if key in entry and not _fits(kind, entry[key]):
            return f"'{key}'{of} is {_say(entry[key])}; allowed: {allowed}"
    return None


_adapter = cache(TypeAdapter[Any])


def _fits(kind: Any, value: Any) -> bool:
    try:
        _adapter(kind).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def _matrix_fault(matrix: Sequence[Any]) -> str | None:
    for after, row in enumerate(matrix, start=1):
        if row is None:
            continue
        where = f"row {after} of 'accuracy_matrix'"
        if not isinstance(row, list) or len(row) != len(matrix):
            return f"{where} is {_say(row)}; allowed: a list of {len(matrix)}, one per task"
        for on, value in enumerate(row, start=1):
            if on > after and value is not None:
                return f"{where} has {_say(value)} for task {on}, not yet learned; allowed: null"
            if not _fits(_Share, value):
                return f"{where} has {_say(value)} for task {on}; allowed: 0 to 1, or null"
    return None


def _sizes_fault(entry: Mapping[str, Any]) -> str | None:
    """What does not have the size of something else."""
    tasks = len(entry["accuracy_matrix"])
    for key in _LISTS:
        values = entry.get(key)
        if values is not None and len(values) != tasks:
            return f"'{key}' is {_say(values)}; allowed: {tasks}, one per task"
    confusion, names = entry.get("confusion"), entry.get("class_names")
    if confusion and {len(row) for row in confusion} != {len(confusion)}:
        return "'confusion' is not a square of whole numbers from 0"
    if confusion and names is not None and len(confusion) != len(names):
        return f"'confusion' has {len(confusion)} rows; allowed: {len(names)}, one per class name"
    return None


def _say(value: Any) -> str:
    """Return a short name for a JSON value."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"  # noqa: PLR2004
