"""The files of results that a run leaves, each written whole or not at all.

| file | content |
|---|---|
| ``results.json`` | a list of entries, one per head: settings, counts and every metric |
| ``accuracy.csv`` | one line per head, task learned and task evaluated |
| ``confusion-<head>.csv`` | images per true (down) and predicted class (across) at the end |
| ``results.md`` | the comparison as a GitHub table |

What cannot be written is an `OutputError`; the file is then as it was before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from perdure.atomic import atomic_write
from perdure.errors import OutputError
from perdure.heads.choice import file_name
from perdure.reports.results.groups import Entry
from perdure.reports.results.schema import find_fault
from perdure.reports.tables.comparison import as_text_table, compare
from perdure.reports.tables.text_table import as_csv, encode

RESULTS = "results.json"


def write_all(folder: Path | str, entries: Sequence[Entry], classes: Sequence[str]) -> None:
    """Write every file of results of one run into its folder, ``results.json`` last."""
    folder = Path(folder)
    write_accuracy(folder / "accuracy.csv", entries)
    for entry in entries:
        if entry.get("confusion") is not None:
            name = f"confusion-{file_name(entry['head'])}.csv"
            write_confusion(folder / name, entry["confusion"], classes)
    write_markdown(folder / "results.md", entries)
    write_results(folder / RESULTS, entries)


def write_results(path: Path | str, entries: Sequence[Entry]) -> None:
    """Write ``results.json``: one key per line, one line per row of a matrix.

    Numbers of NumPy are written as numbers, NaN and infinities as null, and so is a whole row of the
    accuracy matrix that was not evaluated.
    """
    text = ",\n".join(_entry_text(_plain(entry)) for entry in entries)
    atomic_write(path, f"[\n{text}\n]\n".encode() if text else b"[]\n")


def read_results(path: Path | str) -> list[dict[str, Any]]:
    """Read ``results.json`` and check every entry.

    Returns:
        The entries, with keys that this version does not know left as they are.

    Raises:
        OutputError: the file is missing, cannot be read, is damaged, or holds something else.
    """
    path = Path(path)
    if path.is_dir():
        path = path / RESULTS
    try:
        content = json.loads(path.read_bytes().decode(), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise OutputError(
            f"No results at '{path}'. Give the folder of a finished run, or its {RESULTS}."
        ) from error
    except OSError as error:
        raise OutputError(f"Cannot read '{path}': {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise OutputError(
            f"'{path}' is damaged or no {RESULTS}: {error}. "
            "Give another file, or write it again by running the evaluation again."
        ) from error
    fault = find_fault(content)
    if fault:
        raise OutputError(f"'{path}' is no {RESULTS} that perdure can read: {fault}.")
    entries: list[dict[str, Any]] = content
    for entry in entries:
        matrix = entry["accuracy_matrix"]
        entry["accuracy_matrix"] = [row or [None] * len(matrix) for row in matrix]
    return entries


def write_accuracy(path: Path | str, entries: Sequence[Entry]) -> None:
    """Write ``accuracy.csv``: head, after_task, on_task, accuracy, correct, total.

    Tasks count from 1; the accuracy is a fraction, empty for a task without test images. A row that
    was not evaluated has no lines.
    """
    lines: list[Sequence[object]] = [
        ("head", "after_task", "on_task", "accuracy", "correct", "total")
    ]
    for entry in entries:
        images = entry["test_counts"]
        for after, row in enumerate(entry["accuracy_matrix"], start=1):
            if all(accuracy is None for accuracy in row):
                continue
            for on, (accuracy, total) in enumerate(
                zip(row[:after], images[:after], strict=True), start=1
            ):
                correct = 0 if accuracy is None else round(accuracy * total)
                lines.append((entry["head"], after, on, accuracy, correct, total))
    atomic_write(path, as_csv(lines))


def write_confusion(
    path: Path | str, confusion: Sequence[Sequence[int]], classes: Sequence[str]
) -> None:
    """Write a confusion matrix: predicted classes across, true classes down, in order of arrival.

    Raises:
        ValueError: the matrix is not as large as the list of names.
    """
    sides = {len(confusion), *(len(row) for row in confusion)}
    if sides != {len(classes)}:
        raise ValueError(f"{len(classes)} class names for a matrix with sides {sorted(sides)}")
    lines = [(name, *row) for name, row in zip(classes, confusion, strict=True)]
    atomic_write(path, as_csv([("true class", *classes), *lines]))


def write_markdown(path: Path | str, entries: Sequence[Entry]) -> None:
    """Write ``results.md``, the comparison of these entries as a GitHub table."""
    atomic_write(path, encode(as_text_table(compare(entries)).markdown()))


def _entry_text(entry: Mapping[str, Any]) -> str:
    lines = [f"    {json.dumps(key)}: {_value_text(value)}" for key, value in entry.items()]
    return "  {\n" + ",\n".join(lines) + "\n  }"


def _value_text(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(row, list) for row in value):
        known = (row if any(cell is not None for cell in row) else None for row in value)
        rows = ",\n".join(f"      {json.dumps(row)}" for row in known)
        return f"[\n{rows}\n    ]"
    return json.dumps(value, allow_nan=False)


def _plain(value: Any) -> Any:
    """Return the value in the types that JSON knows."""
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
