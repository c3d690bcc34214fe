"""Figure of the study on photographs: accuracy over tasks, against seconds, against stored bytes."""

from __future__ import annotations

from collections.abc import Mapping
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
    deviation,
    draw_curves,
    dress,
    look,
    name_axes,
    scale_by_decades,
)
from perdure.reports.figures.render import write_png

Rows = Mapping[str, list[tuple[float, Mapping[str, Any]]]]
"""Of every row, per class order: seconds of the run and the figures of the head that is compared."""


def draw(rows: Rows, title: str, path: Path) -> None:
    """Draw a stream's rows and write the PNG."""
    figure = Figure(figsize=(13.0, 4.6), dpi=110)
    over, against, stored = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    curves = []
    for row, cells in rows.items():
        values = 100 * np.array([head["curve"] for _, head in cells])
        nothing = np.full((values.shape[1],) * 2, np.nan)
        curves.append(Curve(row, nothing, values.mean(0), deviation(values)))
    draw_curves(over, curves)
    name_axes(over, "tasks learned", "accuracy over classes seen, %")
    seconds = {row: float(np.mean([taken for taken, _ in cells])) for row, cells in rows.items()}
    sizes = {
        row: float(np.mean([head["state_bytes"] for _, head in cells])) / 1e6
        for row, cells in rows.items()
    }
    lasts = [float(curve.curve[-1]) for curve in curves]
    _draw_points(against, list(seconds.values()), lasts)
    name_axes(against, "seconds of the whole run", "last accuracy, %")
    _draw_points(stored, list(sizes.values()), lasts)
    name_axes(stored, "MB of state", "last accuracy, %")
    figure.suptitle(title, x=0.01, ha="left", fontsize=FONT + 2, color=INK)
    looks = [look(place) for place in range(len(curves))]
    handles = [
        over.plot([], [], color=colour, marker=marker, markersize=5.5)[0]
        for colour, marker in looks
    ]
    labels = [f"{curve.label}   {curve.curve[-1]:.1f}" for curve in curves]
    columns = 4
    lines = -(-len(labels) // columns)
    figure.legend(
        handles, labels, loc="lower left", ncols=columns, frameon=False, fontsize=FONT - 0.5
    )
    figure.tight_layout(rect=(0, 0.05 + 0.045 * lines, 1, 0.98))
    write_png(figure, path)


def _draw_points(ax: Axes, values: list[float], lasts: list[float]) -> None:
    dress(ax)
    ax.grid(color=FAINT, linewidth=0.6)
    for place, (value, last) in enumerate(zip(values, lasts, strict=True)):
        colour, marker = look(place)
        ax.plot(value, last, color=colour, marker=marker, markersize=7)
    scale_by_decades(ax, values)
