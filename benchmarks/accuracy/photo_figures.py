"""Figure of the study on photographs: accuracy over tasks, against seconds, against stored bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perdure.reports.figures.axes import (
    FAINT,
    FONT,
    INK,
    Curve,
    draw_curves,
    dress,
    look,
    name_axes,
    scale_by_decades,
)
from perdure.reports.figures.render import write_png

Rows = Mapping[str, tuple[float, list[Mapping[str, Any]]]]
"""Of every row: seconds of a run; per order the figures of the head compared."""


def draw(rows: Rows, title: str, path: Path) -> None:
    """Draw a stream's rows and write the PNG."""
    figure = Figure(figsize=(13.0, 4.6), dpi=110)
    over, against, stored = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    curves = []
    for row, (_, heads) in rows.items():
        values = 100 * np.array([head["curve"] for head in heads])
        nothing = np.full((values.shape[1],) * 2, np.nan)
        mean = values.mean(0)
        curves.append(Curve(row, nothing, mean, np.zeros_like(mean)))  # so many bands hide them
    draw_curves(over, curves)
    name_axes(over, "tasks learned", "accuracy over classes seen, %")
    sizes = [np.mean([head["state_bytes"] for head in heads]) / 1e6 for _, heads in rows.values()]
    lasts = [float(np.mean([100 * head["last"] for head in heads])) for _, heads in rows.values()]
    _draw_points(against, [seconds for seconds, _ in rows.values()], lasts)
    name_axes(against, "seconds of the whole run", "last accuracy, %")
    _draw_points(stored, [float(size) for size in sizes], lasts)
    name_axes(stored, "MB of state", "last accuracy, %")
    figure.suptitle(title, x=0.01, ha="left", fontsize=FONT + 2, color=INK)
    looks = [look(place) for place in range(len(curves))]
    handles = [
        over.plot([], [], color=colour, marker=marker, markersize=5.5)[0]
        for colour, marker in looks
    ]
    labels = [f"{row}   {last:.1f}" for row, last in zip(rows, lasts, strict=True)]
    columns = 4
    lines = -(-len(labels) // columns)
    figure.legend(
        handles, labels, loc="lower left", ncols=columns, frameon=False, fontsize=FONT - 0.5
    )
    figure.tight_layout(rect=(0, 0.05 + 0.045 * lines, 1, 0.98))
    write_png(figure, path)


def _draw_points(ax: Axes, values: Sequence[float], lasts: list[float]) -> None:
    dress(ax)
    ax.grid(color=FAINT, linewidth=0.6)
    for place, (value, last) in enumerate(zip(values, lasts, strict=True)):
        colour, marker = look(place)
        ax.plot(value, last, color=colour, marker=marker, markersize=7)
    scale_by_decades(ax, values)
