"""Figure of what methods cost: time and operations, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from perdure.reports.figures.axes import COLOURS, INK
from perdure.reports.figures.render import write_png

PANELS = (
    ("train_ms_per_image", "training, ms per image", 1.0),
    ("inference_ms_per_image", "inference, ms per image", 1.0),
    ("train_flops_per_image", "training, GFLOP per image", 1e-9),
    ("step_ratio_task100", "step at task 100 / at task 2", 1.0),
)


def draw_cost(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG with a bar per row of `cost_report` in every panel."""
    labels = [_label(row, rows) for row in rows]
    figure = Figure(figsize=(11, 1.2 + 0.28 * len(rows)), dpi=120, layout="constrained")
    for place, (key, title, factor) in enumerate(PANELS):
        axes = figure.add_subplot(1, len(PANELS), place + 1)
        values = [factor * row[key] for row in rows]
        bars = axes.barh(range(len(rows)), values, color=COLOURS[0])
        axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=2, fontsize=7)
        axes.set_yticks(range(len(rows)), labels if place == 0 else [""] * len(rows), fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.2)
        axes.set_title(title, fontsize=9, color=INK)
        axes.tick_params(axis="x", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    write_png(figure, path)


def _label(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The method, with whatever else differs between the rows."""
    more = [str(row[k]) for k in ("backbone", "batch_size") if len({r[k] for r in rows}) > 1]
    return " · ".join([row["method"], *more])
