"""What an entry of ``results.json`` must look like, checked when one is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

TEXT = ("method", "head", "stream", "backbone")
"""Keys that every entry has, with a text that is not empty."""

FRACTIONS = (
    "last_accuracy",
    "last_accuracy_task_mean",
    "average_incremental_accuracy",
    "forgetting_reference",
    "plasticity",
    "within_task_accuracy",
    "task_inference_accuracy",
    "selection_share_in_use",
    "selection_entropy",
    "selection_task_information",
)
"""Keys with a number in [0, 1] or null."""

DIFFERENCES = ("forgetting", "backward_transfer")
"""Keys with a number in [−1, 1] or null."""

COSTS = ("trainable_parameters", "state_bytes")
"""Keys of ``cost`` with a number from 0 or null."""

REQUIRED = (*TEXT, "seed", "accuracy_matrix", "last_accuracy")


def find_fault(content: Any) -> str | None:
    """Tell what is wrong with the content of a ``results.json``; None when nothing is.

    Keys that are not known are left alone, so that results of a newer version can still be read.

    Args:
        content: what the JSON says.

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
    for keys, is_allowed, allowed in _RULES:
        for key in keys:
            if not is_allowed(entry.get(key)):
                return f"'{key}' is {_say(entry[key])}; allowed: {allowed}"
    return (
        _matrix_fault(entry["accuracy_matrix"])
        or _lists_fault(entry)
        or _cost_fault(entry.get("cost"))
    )


def _matrix_fault(matrix: Any) -> str | None:
    if not isinstance(matrix, list) or not matrix:
        return f"'accuracy_matrix' is {_say(matrix)}; allowed: one list per task"
    for after, row in enumerate(matrix, start=1):
        where = f"row {after} of 'accuracy_matrix'"
        if not isinstance(row, list) or len(row) != len(matrix):
            return f"{where} is {_say(row)}; allowed: a list of {len(matrix)}, one per task"
        for on, value in enumerate(row, start=1):
            if on > after and value is not None:
                return f"{where} has {_say(value)} for task {on}, not yet learned; allowed: null"
            if not _is_within(value, 0.0, 1.0):
                return f"{where} has {_say(value)} for task {on}; allowed: 0 to 1, or null"
    return None


def _lists_fault(entry: Mapping[str, Any]) -> str | None:
    tasks = len(entry["accuracy_matrix"])
    curve, images = entry.get("accuracy_curve"), entry.get("test_counts")
    if curve is not None and not (
        _is_list(curve, tasks) and all(_is_within(value, 0.0, 1.0) for value in curve)
    ):
        return f"'accuracy_curve' is {_say(curve)}; allowed: {tasks} values of 0 to 1, or null"
    if images is not None and not (
        _is_list(images, tasks) and all(_is_whole(value) and value >= 0 for value in images)
    ):
        return f"'test_counts' is {_say(images)}; allowed: {tasks} whole numbers from 0"
    sizes, names = entry.get("task_sizes"), entry.get("class_names")
    if sizes is not None and not (
        _is_list(sizes, tasks) and all(_is_whole(size) and size >= 1 for size in sizes)
    ):
        return f"'task_sizes' is {_say(sizes)}; allowed: {tasks} whole numbers from 1"
    if names is not None and not (isinstance(names, list) and all(map(_is_text, names))):
        return f"'class_names' is {_say(names)}; allowed: a list of names"
    return _confusion_fault(entry)


def _confusion_fault(entry: Mapping[str, Any]) -> str | None:
    confusion = entry.get("confusion")
    if confusion is not None and not (
        isinstance(confusion, list)
        and all(_is_list(row, len(confusion)) for row in confusion)
        and all(_is_whole(value) and value >= 0 for row in confusion for value in row)
    ):
        return "'confusion' is not a square of whole numbers from 0"
    names = entry.get("class_names")
    if confusion and names is not None and len(confusion) != len(names):
        return f"'confusion' has {len(confusion)} rows; allowed: {len(names)}, one per class name"
    return None


def _cost_fault(cost: Any) -> str | None:
    if cost is None:
        return None
    if not isinstance(cost, Mapping):
        return f"'cost' is {_say(cost)}; allowed: an object"
    for key in COSTS:
        if not _is_within(cost.get(key), 0.0, math.inf):
            return f"'{key}' of 'cost' is {_say(cost[key])}; allowed: a number from 0, or null"
    return None


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_text_or_null(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_flag_or_null(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_within(value: Any, low: float, high: float) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


_RULES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (TEXT, _is_name, "a name"),
    (("preset",), _is_text_or_null, "a name or null"),
    (("seed",), _is_whole, "a whole number"),
    (("sees_old_images",), _is_flag_or_null, "true or false"),
    (FRACTIONS, partial(_is_within, low=0.0, high=1.0), "0 to 1, or null"),
    (DIFFERENCES, partial(_is_within, low=-1.0, high=1.0), "-1 to 1, or null"),
    (("seconds",), partial(_is_within, low=0.0, high=math.inf), "a number from 0, or null"),
)


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
