"""Tally of a run's evaluations: counts per head, a row after each, as a checkpoint keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from perdure.metrics import COUNTED, Counts

_COUNTS = "counts."
"""Begins the names of counts among the tensors of a checkpoint."""
_WIDTHS = (np.uint8, np.int16, np.int32, np.int64)


@dataclass
class _Rows:
    """Rows of one head: of each table, one per evaluation, and the newest evaluation whole."""

    tables: dict[str, list[Int64[np.ndarray, "_"]]]
    newest: Counts


@dataclass
class Tally:
    """Tally of evaluations by head.

    Rows stand for themselves until the end: adding one costs what it holds, and not the square of
    the number of tasks.
    """

    _rows: dict[str, _Rows] = field(default_factory=dict)

    def add(self, head: str, evaluation: Counts) -> None:
        """Add the counts of one evaluation of a head, made after a later task than those before."""
        rows = self._rows.setdefault(head, _Rows({name: [] for name in COUNTED}, evaluation))
        for name, table in rows.tables.items():
            table.append(getattr(evaluation, name)[-1])
        rows.newest = evaluation

    def counts(self) -> dict[str, Counts]:
        """Return the counts of all evaluations, per head."""
        return {head: _joined(rows) for head, rows in self._rows.items()}

    def state(self) -> dict[str, Tensor]:
        """Return tensors from which `taken_from` makes the tally again; integers as small as fit."""
        return {
            f"{_COUNTS}{head}.{name}": torch.from_numpy(_narrowed(values))
            for head, rows in self._rows.items()
            for name, values in {
                "lengths": np.array([len(row) for row in rows.tables["correct"]]),
                **{name: np.concatenate(table) for name, table in rows.tables.items()},
                "total": rows.newest.total[-1],
                "confused": rows.newest.confused,
                "classes": np.array([rows.newest.classes, rows.newest.repeats]),
            }.items()
        }

    @classmethod
    def taken_from(cls, tensors: dict[str, Tensor]) -> Tally:
        """Take a tally out of the tensors of a checkpoint.

        Raises:
            KeyError: a tensor of it is missing.
            ValueError: its tensors do not fit together.
        """
        found: dict[str, dict[str, np.ndarray]] = {}
        for key in [key for key in tensors if key.startswith(_COUNTS)]:
            head, _, name = key.removeprefix(_COUNTS).rpartition(".")
            found.setdefault(head, {})[name] = tensors.pop(key).numpy().astype(np.int64)
        tally = cls({head: _read(parts) for head, parts in found.items()})
        tally.counts()
        return tally


def _read(parts: dict[str, np.ndarray]) -> _Rows:
    ends = parts["lengths"].cumsum()
    tables = {name: np.split(parts[name], ends)[:-1] for name in COUNTED}
    classes, repeats = parts["classes"].tolist()
    newest = Counts(
        after=parts["lengths"][-1:] - 1,
        **{name: table[-1][None] for name, table in tables.items()},
        total=parts["total"][None],
        confused=parts["confused"],
        classes=classes,
        repeats=bool(repeats),
    )
    return _Rows(tables, newest)


def _joined(rows: _Rows) -> Counts:
    newest = rows.newest
    after = np.array([len(row) - 1 for row in rows.tables["correct"]])
    learned = np.arange(newest.tasks) <= after[:, None]

    def square(table: list[Int64[np.ndarray, "_"]]) -> Int64[np.ndarray, "r t"]:
        filled = np.zeros(learned.shape, np.int64)
        filled[learned] = np.concatenate(table)
        return filled

    return Counts(
        after,
        **{name: square(table) for name, table in rows.tables.items()},
        total=learned * newest.total,
        confused=newest.confused,
        classes=newest.classes,
        repeats=newest.repeats,
    )


def _narrowed(values: Int64[np.ndarray, "..."]) -> np.ndarray:
    """Return the values in the smallest type that holds them and that tensors have."""
    most = values.max(initial=0)
    return values.astype(next(width for width in _WIDTHS if most <= np.iinfo(width).max))
