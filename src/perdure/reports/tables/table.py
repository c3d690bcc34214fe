"""Results side by side: a table for the terminal, for GitHub and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from perdure.metrics import METRICS, Spread, spread
from perdure.reports.results.groups import SETTING, Entry, Group, group
from perdure.reports.tables.text_table import Cell, Sheet, plain

MISSING = "–"
_UNITS = ((3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes:
        group: the results behind it.
        values: per metric of ``metrics.METRICS`` (fractions) and for ``seconds``, its spread.
    """

    group: Group
    values: Mapping[str, Spread]


class _Column(NamedTuple):
    """A key of ``Row.values`` with what `Metric` says of it."""

    key: str
    title: str
    narrow: str
    better: str


def _columns(every: bool = False) -> list[_Column]:
    """The metrics that fit a terminal, or every one; and the time."""
    known = [_Column(key, one.title, one.narrow, one.better) for key, one in METRICS.items()]
    more = [column for column in known if every and not column.narrow]
    shown = [column for column in known if column.narrow]
    return [*shown, *more, _Column("seconds", "time", "time", "lower")]


def compare(entries: Sequence[Entry]) -> list[Row]:
    """Return one row per method and head, seeds joined, in order of arrival.

    Args:
        entries: results as in ``results.json``; a metric that is absent or None is unknown.
    """
    return [
        Row(joined, {name: spread_over(joined.entries, name) for name in (*METRICS, "seconds")})
        for joined in group(entries)
    ]


def as_rich(rows: Sequence[Row], title: str | None = None) -> Table:
    """Return the comparison for the terminal; the best value of each column is bold."""
    table = Table(
        title=title,
        title_justify="left",
        caption=_note(rows) or None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
    )
    names, columns = _names(rows), _columns()
    for name in names:
        table.add_column(name, no_wrap=name in ("method", "head"), overflow="fold")
    for column in columns:
        table.add_column(column.narrow, justify="right", overflow="fold")
    for row in rows:
        cells = [Text(name) for name in _naming(row, names)]
        for column in columns:
            style = "bold" if _is_best(row, rows, column) else ""
            # Without the space a narrow terminal breaks the line before the sign, not after it.
            cells.append(Text(_show(row, column).replace("± ", "±"), style=style))
        table.add_row(*cells)
    return table


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the comparison as a GitHub table, one line per row, ending in a newline."""
    return _as_sheet(rows, _columns()).markdown()


def every_metric(rows: Sequence[Row]) -> Sheet:
    """Return the comparison with all of ``metrics.METRICS``; the best of each column is marked."""
    return _as_sheet(rows, _columns(every=True))


def name_columns(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the columns that tell the rows of a comparison apart: heads, and texts per row."""
    names = _names(rows)
    return names, [_naming(row, names) for row in rows]


def as_records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the comparison for JSON: fractions and seconds, not per cent.

    Each record holds ``method``, ``head``, what `groups.SETTING` names, ``seeds`` and, per metric of
    ``metrics.METRICS`` and for ``seconds``, ``{"mean": …, "std": …, "n": …}``.
    """
    return [
        {
            "method": row.group.method,
            "head": row.group.head,
            **row.group.setting,
            "seeds": list(row.group.seeds),
            **{name: value._asdict() for name, value in row.values.items()},
        }
        for row in rows
    ]


def spread_over(entries: Sequence[Entry], name: str) -> Spread:
    """Return mean and deviation of a figure over results; one that is absent or None is unknown."""
    values = [entry.get(name) for entry in entries]
    return spread([None if value is None else float(value) for value in values])


def _as_sheet(rows: Sequence[Row], columns: Sequence[_Column]) -> Sheet:
    heads, named = name_columns(rows)
    lines = [
        [*plain(names), *(Cell(_show(row, c), _is_best(row, rows, c)) for c in columns)]
        for row, names in zip(rows, named, strict=True)
    ]
    align = "l" * len(heads) + "r" * len(columns)
    return Sheet([*heads, *(c.title for c in columns)], lines, align, _note(rows))


def _names(rows: Sequence[Row]) -> list[str]:
    varying = rows[0].group.varying if rows else ()
    several = ["seeds"] if any(len(row.group.entries) > 1 for row in rows) else []
    return ["method", "head", *(key for key in SETTING if key in varying), *several]


def _naming(row: Row, names: Sequence[str]) -> list[str]:
    repeat = f" #{row.group.repeat}" if row.group.repeat > 1 else ""
    known = {
        "method": row.group.method + repeat,
        "head": row.group.head,
        **{key: value or MISSING for key, value in row.group.setting.items()},
        "seeds": str(len(row.group.entries)),
    }
    return [known[name] for name in names]


def _note(rows: Sequence[Row]) -> str:
    notes = []
    if any(len(row.group.entries) > 1 for row in rows):
        notes.append("Mean ± standard deviation over seeds.")
    bounds = dict.fromkeys(row.group.method for row in rows if row.group.sees_old_images)
    if bounds:
        notes.append(f"Upper bound, sees old images: {', '.join(bounds)}.")
    return " ".join(notes)


def _is_best(row: Row, rows: Sequence[Row], column: _Column) -> bool:
    """Tell whether no other row shows a better value, where rows differ at all; bounds stand apart."""
    if row.group.sees_old_images:
        return False
    rivals = [other for other in rows if not other.group.sees_old_images]
    shown = [_rounded(other.values[column.key].mean, column) for other in rivals]
    known = [value for value in shown if value is not None]
    best = (max if column.better == "higher" else min)(known, default=None)
    return len(set(known)) > 1 and best == _rounded(row.values[column.key].mean, column)


def _rounded(mean: float | None, column: _Column) -> float | None:
    if mean is None:
        return None
    # Adding zero turns −0.0 into 0.0.
    return round(mean, 1) if column.key == "seconds" else round(100 * mean, 2) + 0.0


def _show(row: Row, column: _Column) -> str:
    value = row.values[column.key]
    shown = _rounded(value.mean, column)
    if value.mean is None or shown is None:
        return MISSING
    if column.key != "seconds":
        return f"{shown:.2f}" + ("" if value.std is None else f" ± {100 * value.std:.2f}")
    size, unit = next((size, unit) for size, unit in _UNITS if value.mean >= 2 * size or size == 1)
    deviation = "" if value.std is None else f" ± {value.std / size:.1f}"
    return f"{value.mean / size:.1f}{deviation} {unit}"
