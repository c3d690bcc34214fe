"""Tables and pictures of the study on photographs, from the figures that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from photo_cells import (
    COMPARED,
    FOLLOWING,
    ORDERS,
    ROSTER,
    ROWS,
    STREAMS,
    TITLES,
    TWO,
    Cell,
    Figures,
    recipe_of,
)
from photo_figures import draw
from results import DOCUMENT

PAIR = 2
"""Rows up to which a picture would say no more than the table."""
MIN_ORDERS = 2
"""Class orders from which a difference has an interval."""
COLUMNS = {
    "trained head": ("linear", "language"),
    "stale": ("gaussian",),
    "stale, loo": ("gaussian(shrinkage=loo)",),
    "follows": ("gaussian(drift=linear)",),
    "follows, loo": ("gaussian(drift=linear,shrinkage=loo)",),
    "debiased": ("gaussian(drift=linear,drift_debias=1.0,shrinkage=loo)",),
    "mixed, loo": ("gaussian(drift=mixed,shrinkage=loo)",),
    "ridge": ("ridge",),
    "ridge, follows": ("ridge(drift=linear)",),
}
"""Column of a table and the heads that stand there."""
FROZEN = {
    "lda": "the backbone's",
    "finetune, first task only": "tuned on the first task",
    "lda, six layers": "of the last six blocks",
}
"""Rows whose features do not move, in words."""
RIVALS = {
    "nearest mean": "ncm",
    "Gaussian (SLDA)": "gaussian",
    "Gaussian, loo": "gaussian(shrinkage=loo)",
    "Gaussian, loo, pooled": "gaussian(mean_shrinkage=3.0,shrinkage=loo)",
    "ridge (LayUP)": "ridge",
    "ridge, random ReLU features (RanPAC)": "ridge(lift=relu,lift_width=5000)",
    "Gaussian, random cosine features (RanDumb)": "gaussian(lift=cosine,lift_width=2000)",
}
"""Heads on such features, and the method that has them there."""
DEBIASED = {
    "follows": "gaussian(drift=linear,shrinkage=loo)",
    "half debiased": "gaussian(drift=linear,drift_debias=0.5,shrinkage=loo)",
    "debiased": "gaussian(drift=linear,drift_debias=1.0,shrinkage=loo)",
    "mixed": "gaussian(drift=mixed,shrinkage=loo)",
    "mixed, debiased": "gaussian(drift=mixed,drift_debias=1.0,shrinkage=loo)",
}
"""Heads of the table on debiasing."""


def tables(held: Figures) -> dict[str, str]:
    """Sections of all streams of which cells are there, and the table on debiasing, by marker."""
    parts = []
    for stream in STREAMS:
        rows = compared(rows_of(held, stream))
        if rows:
            parts += [f"### {TITLES[stream]}", "", *_main(rows), "", *_paired(rows), ""]
            if len(rows) > PAIR:
                parts += [f"![{TITLES[stream]}: accuracy]({_picture(stream).name})", ""]
    return {
        "photos": "\n".join(parts),
        "compared": "\n".join(_compared(held)),
        "frozen": "\n".join(_frozen(held)),
        "debias": "\n".join(_debiased(held)),
    }


def _compared(held: Figures) -> list[str]:
    """Last accuracy of the first comparison by stream, and the mean over streams that have all rows."""
    streams = {stream: rows_of(held, stream) for stream in STREAMS if ROWS.get(stream) != TWO}
    whole = [name for name, rows in streams.items() if set(COMPARED) <= set(rows)]
    lines = [f"| method | {' | '.join(streams)} | mean of {', '.join(whole)} |"]
    lines.append("| :-- |" + " --: |" * (1 + len(streams)))
    for row in COMPARED:
        lasts = {
            name: float(np.mean([_last(cell) for cell in rows[row].values()]))
            for name, rows in streams.items()
            if row in rows
        }
        shown = [f"{lasts[name]:.1f}" if name in lasts else "–" for name in streams]
        mean = np.mean([lasts[name] for name in whole]) if whole else np.nan
        lines.append(f"| `{row}` | {' | '.join(shown)} | {mean:.1f} |")
    return lines


def _frozen(held: Figures) -> list[str]:
    """Last accuracy and forgetting of every head on features that do not move."""
    lines = [f"| stream, features | orders | {' | '.join(RIVALS)} |"]
    lines.append("| :-- | --: |" + " --: |" * len(RIVALS))
    for stream in STREAMS:
        rows = rows_of(held, stream)
        for row, name in FROZEN.items():
            if row in rows:
                scores = [_score(rows[row], (head,)) for head in RIVALS.values()]
                lines.append(f"| {stream}, {name} | {len(rows[row])} | {' | '.join(scores)} |")
    return lines


def _debiased(held: Figures) -> list[str]:
    """Last and average accuracy and forgetting of rows and orders that have all of these heads."""
    lines = [f"| stream, method | orders | {' | '.join(DEBIASED)} |"]
    lines.append("| :-- | --: |" + " --: |" * len(DEBIASED))
    for stream in STREAMS:
        for row, cells in rows_of(held, stream).items():
            whole = {o: c for o, c in cells.items() if set(DEBIASED.values()) <= set(c["heads"])}
            if whole:
                scores = [_score(whole, (head,), average=True) for head in DEBIASED.values()]
                name = f"{stream}, `{row}`"
                lines.append(f"| {name} | {len(whole)} | {' | '.join(scores)} |")
    return lines


def pictures(held: Figures) -> None:
    """Draw the first comparison of every stream of which more than two rows are there."""
    for stream in STREAMS:
        found = compared(rows_of(held, stream))
        rows = {row: found[row] for row in COMPARED if row in found}
        if len(rows) > PAIR:
            drawn = {
                row: (least_seconds(cells), [c["heads"][compared_head(c)] for c in cells.values()])
                for row, cells in rows.items()
            }
            draw(drawn, TITLES[stream], _picture(stream))


def _picture(stream: str) -> Path:
    return DOCUMENT.with_name(f"photos-{stream}.png")


def rows_of(held: Figures, stream: str) -> dict[str, dict[int, dict[str, Any]]]:
    """Cells of a stream by row and class order, of rows that have any."""
    rows = {row: orders_of(held, stream, row) for row in ROSTER}
    return {row: cells for row, cells in rows.items() if cells}


def compared(rows: Mapping[str, Mapping[int, Any]]) -> dict[str, Mapping[int, Any]]:
    """Rows that have the head by which rows are compared."""
    return {
        row: cells
        for row, cells in rows.items()
        if all(set(FOLLOWING) & set(cell["heads"]) for cell in cells.values())
    }


def orders_of(held: Figures, stream: str, row: str) -> dict[int, dict[str, Any]]:
    """Figures of a row's cells by class order; those of another recipe are left out."""
    found = {}
    for order in ORDERS[stream]:
        cell = Cell(stream, row, order, Path())
        figures_of = held.get(str(cell))
        if figures_of and recipe_of(figures_of) == cell.recipe:
            found[order] = figures_of
    return found


def _main(rows: Mapping[str, Mapping[int, Any]]) -> list[str]:
    heads = [*COLUMNS, "all seen, loo", "s", "MB"]
    lines = [f"| method | orders | {' | '.join(heads)} |", "| :-- |" + " --: |" * (1 + len(heads))]
    for row, cells in rows.items():
        scores = [_score(cells, names) for names in COLUMNS.values()]
        bound = [c["heads"].get(FOLLOWING[0], {}).get("all_seen") for c in cells.values()]
        seen = f"{100 * np.mean(bound):.1f}" if all(bound) else "–"
        head = compared_head(next(iter(cells.values())))
        size = np.mean([c["heads"][head]["state_bytes"] for c in cells.values()]) / 1e6
        rest = [f"{len(cells)}", *scores, seen, f"{least_seconds(cells):.0f}", f"{size:.1f}"]
        lines.append(f"| `{row}` | {' | '.join(rest)} |")
    return lines


def hours(held: Figures) -> tuple[int, float]:
    """Number of cells, and hours of one core that their runs took."""
    taken = [
        cell["seconds"]
        for stream in STREAMS
        for cells in rows_of(held, stream).values()
        for cell in cells.values()
    ]
    return len(taken), sum(taken) / 3600


def least_seconds(cells: Mapping[int, Any]) -> float:
    """Seconds of a run: the least over class orders."""
    return min(float(cell["seconds"]) for cell in cells.values())


def _score(cells: Mapping[int, Any], names: Sequence[str], average: bool = False) -> str:
    """Last accuracy / forgetting in per cent, mean over class orders; the average between, if asked."""
    name = next((n for n in names if all(n in c["heads"] for c in cells.values())), None)
    if name is None:
        return "–"
    shown = ("last", "average", "forgetting") if average else ("last", "forgetting")
    values = [[100 * (c["heads"][name][key] or 0.0) for key in shown] for c in cells.values()]
    return " / ".join(f"{value:.1f}" for value in np.mean(values, axis=0))


def compared_head(figures_of: Mapping[str, Any]) -> str:
    """Head by which a cell is compared with others."""
    return next(head for head in FOLLOWING if head in figures_of["heads"])


def _paired(rows: Mapping[str, Mapping[int, Any]]) -> list[str]:
    """Last accuracy, mean and deviation, and its difference to `lda` over the same class orders."""
    head = ["| method | last accuracy, % | minus `lda`, points | 95 % interval |"]
    head.append("| :-- | --: | --: | --: |")
    lines = []
    base = rows.get("lda", {})
    for row, cells in rows.items():
        shared = [order for order in cells if order in base]
        if len(shared) < MIN_ORDERS:
            continue
        lasts = np.array([_last(cells[order]) for order in shared])
        shown = f"| `{row}` | {lasts.mean():.1f} ± {lasts.std(ddof=1):.1f}"
        if row == "lda":
            lines.append(f"{shown} | | |")
            continue
        gains = lasts - [_last(base[order]) for order in shared]
        mean, error = gains.mean(), gains.std(ddof=1) / len(gains) ** 0.5
        half = float(scipy.stats.t.ppf(0.975, len(gains) - 1)) * error
        lines.append(f"{shown} | {mean:+.1f} | {mean - half:+.1f} to {mean + half:+.1f} |")
    return [*head, *lines] if lines else []


def _last(figures_of: Mapping[str, Any]) -> float:
    last: float = figures_of["heads"][compared_head(figures_of)]["last"]
    return 100 * last
