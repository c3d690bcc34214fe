"""Comparison of results: a table for the terminal, for GitHub and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from perdure.metrics import METRICS, Spread, spread
from perdure.reports.results.groups import SETTING, Entry, Group, group
from perdure.reports.tables.text_table import MISSING, Cell, TextTable
from perdure.wording import printable

NAMES = ("method", "head")
"""Columns that every comparison begins with."""
_UNITS = ((3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class ComparisonRow:
    """One line of the comparison.

    Attributes:
        group: the results behind it.
        values: per metric of ``metrics.METRICS`` (fractions) and for ``seconds``, its spread.
    """

    group: Group
    values: Mapping[str, Spread]


class _Column(NamedTuple):
    """A key of ``ComparisonRow.values`` with what `Metric` says of it."""

    key: str
    title: str
    narrow: str
    better: str


def compare(entries: Sequence[Entry]) -> list[ComparisonRow]:
    """Return one row per method and head, seeds joined, in order of arrival.

    A metric that is absent from an entry of ``results.json``, or None, is unknown.
    """
    keys = (*METRICS, "seconds")
    return [
        ComparisonRow(joined, {key: spread_over(joined.entries, key) for key in keys})
        for joined in group(entries)
    ]


def as_rich(rows: Sequence[ComparisonRow], title: str | None = None) -> Table:
    """Return the comparison for the terminal; the best value of each column is bold."""
    content = as_text_table(rows)
    table = Table(
        title=title,
        title_justify="left",
        caption=content.note or None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
    )
    narrow = {column.title: column.narrow for column in _columns()}
    for head in content.heads:
        side: JustifyMethod = "right" if head in narrow else "left"
        table.add_column(
            narrow.get(head, head), justify=side, no_wrap=head in NAMES, overflow="fold"
        )
    for row in content.rows:
        # Without the space a narrow terminal breaks the line before the sign, not after it.
        table.add_row(
            *(Text(printable(c.text).replace("± ", "±"), "bold" if c.best else "") for c in row)
        )
    return table


def as_text_table(rows: Sequence[ComparisonRow], *, every: bool = False) -> TextTable:
    """Return the comparison for files and pages; the best value of each column is marked.

    With every metric, or only with those that fit a terminal.
    """
    (heads, named), columns = name_columns(rows), _columns(every)
    lines = [
        [*map(Cell, names), *(_cell(row, rows, column) for column in columns)]
        for row, names in zip(rows, named, strict=True)
    ]
    align = "l" * len(heads) + "r" * len(columns)
    return TextTable([*heads, *(column.title for column in columns)], lines, align, _note(rows))


def as_records(rows: Sequence[ComparisonRow]) -> list[dict[str, Any]]:
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


def name_columns(rows: Sequence[ComparisonRow]) -> tuple[list[str], list[list[str]]]:
    """Return the columns that tell the rows of a comparison apart: heads, and texts per row."""
    varying = rows[0].group.varying if rows else ()
    several = ["seeds"] if any(len(row.group.entries) > 1 for row in rows) else []
    heads = [*NAMES, *(key for key in SETTING if key in varying), *several]
    named = []
    for row in rows:
        repeat = f" #{row.group.repeat}" if row.group.repeat > 1 else ""
        known = {
            "method": row.group.method + repeat,
            "head": row.group.head,
            **{key: value or MISSING for key, value in row.group.setting.items()},
            "seeds": str(len(row.group.entries)),
        }
        named.append([known[head] for head in heads])
    return heads, named


def spread_over(entries: Sequence[Entry], name: str) -> Spread:
    """Return mean and deviation of a figure over results; one that is absent or None is unknown."""
    values = [entry.get(name) for entry in entries]
    return spread([None if value is None else float(value) for value in values])


def _columns(every: bool = False) -> list[_Column]:
    """The metrics that fit a terminal, or every one; and the time."""
    known = [_Column(key, one.title, one.narrow, one.better) for key, one in METRICS.items()]
    more = [column for column in known if every and not column.narrow]
    shown = [column for column in known if column.narrow]
    return [*shown, *more, _Column("seconds", "time", "time", "lower")]


def _note(rows: Sequence[ComparisonRow]) -> str:
    notes = []
    if any(len(row.group.entries) > 1 for row in rows):
        notes.append("Mean ± standard deviation over seeds.")
    bounds = dict.fromkeys(row.group.method for row in rows if row.group.sees_old_images)
    if bounds:
        notes.append(f"Upper bound, sees old images: {', '.join(bounds)}.")
    chosen: dict[str, list[str]] = {}
    for row in rows:
        how = row.group.entries[0].get("chosen_on")
        if how and row.group.method not in chosen.setdefault(how, []):
            chosen[how].append(row.group.method)
    if chosen.keys() - {"nothing"}:
        said = (f"{how.replace('_', ' ')} ({', '.join(of)})" for how, of in chosen.items())
        notes.append(f"Settings were chosen by or on: {'; '.join(said)}.")
    return " ".join(notes)


def _cell(row: ComparisonRow, rows: Sequence[ComparisonRow], column: _Column) -> Cell:
    """A value, the best where no other row shows a better one and rows differ; bounds stand apart."""
    shown = _rounded(row, column)
    rivals = [_rounded(other, column) for other in rows if not other.group.sees_old_images]
    known = {value for value in rivals if value is not None}
    best = (max if column.better == "higher" else min)(known, default=None)
    is_best = len(known) > 1 and shown == best and not row.group.sees_old_images
    return Cell(_text(row.values[column.key], shown, column), is_best)


def _rounded(row: ComparisonRow, column: _Column) -> float | None:
    mean = row.values[column.key].mean
    if mean is None:
        return None
    # Adding zero turns −0.0 into 0.0.
    return round(mean, 1) if column.key == "seconds" else round(100 * mean, 2) + 0.0


def _text(value: Spread, shown: float | None, column: _Column) -> str:
    if value.mean is None:
        return MISSING
    if column.key != "seconds":
        return f"{shown:.2f}" + ("" if value.std is None else f" ± {100 * value.std:.2f}")
    size, unit = next((size, unit) for size, unit in _UNITS if value.mean >= 2 * size or size == 1)
    deviation = "" if value.std is None else f" ± {value.std / size:.1f}"
    return f"{value.mean / size:.1f}{deviation} {unit}"
