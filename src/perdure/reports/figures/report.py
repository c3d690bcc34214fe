"""Figures of a report, each small enough for a telephone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from perdure.metrics import forgetting_per_task
from perdure.reports.figures.axes import (
    FAINT,
    FONT,
    INK,
    SCALE,
    SHARES,
    SOFT,
    Curve,
    deviation,
    draw_cells,
    draw_curves,
    draw_matrix,
    dress,
    dress_bar,
    literal,
    look,
    mean_curve,
    name_axes,
    number_tasks,
    scale_by_decades,
    shared_scale,
    wrapped,
)
from perdure.reports.figures.render import printable
from perdure.reports.results.groups import Group
from perdure.reports.results.spectra import BlockSpectrum
from perdure.reports.results.time_to_accuracy import TimeToAccuracy
from perdure.reports.tables.comparison import ComparisonRow

MOST_CLASSES = 20
"""Classes up to which confusion is shown per class; beyond, per task."""
_READINGS = {
    "last_accuracy": "last accuracy",
    "within_task_accuracy": "within-task accuracy",
    "task_inference_accuracy": "task inference",
}
_WIDTH = 5.2
_BLOCKS = colormaps["viridis"]
_WEAKEST = 1e-9  # eigenvalues over the largest one, below which the axis ends
_LETTER = 0.065  # inches
_LONGEST = {"label": 120, "line": 60, "half a line": 30, "class": 12}
"""Letters."""


def named_curve(joined: Group) -> Curve:
    """Return what is drawn of a group, with a label that fits a figure."""
    return dataclasses.replace(mean_curve(joined), label=_named(joined.label))


def accuracy_figure(curves: Sequence[Curve]) -> Figure:
    """Draw the accuracy over all classes seen, as tasks arrive, with a legend below."""
    figure, ax = _with_legend(curves)
    draw_curves(ax, curves)
    name_axes(ax, "tasks learned", "accuracy, %")
    return figure


def forgetting_figure(groups: Sequence[Group]) -> Figure | None:
    """Draw how much each task lost; None where that is unknown for all."""
    curves = [_forgetting_curve(joined) for joined in groups]
    if all(np.isnan(curve.curve).all() for curve in curves):
        return None
    figure, ax = _with_legend(curves, mean=True)
    draw_curves(ax, curves, bounds=(-101.0, 101.0))
    ax.axhline(0, color=FAINT, linewidth=1, zorder=0)
    name_axes(ax, "task", "forgotten, points")
    return figure


def matrix_figures(curves: Sequence[Curve]) -> list[Figure]:
    """Draw the accuracy matrix of each group; all have one scale."""
    norm = shared_scale(curves)
    figures = []
    for curve in curves:
        size = float(np.clip(1.1 + 0.21 * len(curve.matrix), 2.4, 4.2))
        figure, ax = _square(size, curve.label)
        draw_matrix(ax, curve, norm, size)
        name_axes(ax, y="task learned")
        _colour_bar(figure, ax, ScalarMappable(norm, SCALE), "accuracy on the task, %")
        figures.append(figure)
    return figures


def readings_figure(rows: Sequence[ComparisonRow]) -> Figure | None:
    """Draw what features allow beside what heads make of it; None where nothing is known."""
    if all(row.values[metric].mean is None for row in rows for metric in _READINGS):
        return None
    labels = [fill(_named(row.group.label), _LONGEST["half a line"]) for row in rows]
    lines = max(label.count("\n") + 1 for label in labels)
    height = 1.1 + max(0.42, 0.16 * lines) * len(rows)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    ax = figure.add_subplot()
    dress(ax)
    heights = np.arange(len(rows))
    for place, (metric, name) in enumerate(_READINGS.items()):
        colour, marker = look(place)
        spreads = [row.values[metric] for row in rows]
        means = [math.nan if one.mean is None else 100 * one.mean for one in spreads]
        ax.errorbar(
            means,
            heights + 0.16 * (place - 1),
            xerr=[100 * (one.std or 0.0) for one in spreads],
            fmt=marker,
            color=colour,
            markersize=5.5,
            label=name,
        )
    ax.set_yticks(heights, labels)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(-2, 102)
    ax.grid(axis="x", color=FAINT, linewidth=0.6)
    name_axes(ax, "%")
    _legend(figure, *ax.get_legend_handles_labels(), columns=3)
    return figure


def confusion_figure(joined: Group) -> Figure | None:
    """Draw the confusion of a group's first seed after the last task; None where unknown.

    Rows are true, columns predicted classes or, beyond `MOST_CLASSES`, tasks; cells are per cent of
    their row.
    """
    entry = joined.entries[0]
    if not entry.get("confusion"):
        return None
    counts = np.array(entry["confusion"], np.float64)
    names, sizes = entry.get("class_names"), entry.get("task_sizes")
    if len(counts) > MOST_CLASSES and sizes and sum(sizes) == len(counts):
        starts = np.cumsum([0, *sizes[:-1]])
        counts = np.add.reduceat(np.add.reduceat(counts, starts, axis=0), starts, axis=1)
        names, what = None, "task"
    else:
        what = "class"
    shown = [_named(name, _LONGEST["class"]) for name in names or ()]
    shown = shown if len(shown) <= MOST_CLASSES else []
    longest = max(map(len, shown), default=0)
    size = float(np.clip(0.27 * len(counts), 2.4, 4.2))
    figure, ax = _square(size, _named(joined.label), longest * _LETTER)
    images = counts.sum(1, keepdims=True)
    shares = np.full_like(counts, np.nan)
    np.divide(100 * counts, images, out=shares, where=images > 0)
    norm = Normalize(0, 100)
    draw_cells(ax, shares, norm, size, hidden=counts == 0, scale=SHARES)
    if shown:
        ax.set_xticks(range(len(shown)), shown, rotation=90 if longest > 2 else 0)  # noqa: PLR2004
        ax.set_yticks(range(len(shown)), shown)
    else:
        number_tasks(ax, len(counts))
    name_axes(ax, f"predicted {what}", f"true {what}")
    _colour_bar(figure, ax, ScalarMappable(norm, SHARES), f"of the images of the {what}, %")
    return figure


def spectrum_figure(spectra: Sequence[BlockSpectrum], title: str) -> Figure:
    """Draw the spectra of one side, a line per block, with a dot where its null space begins."""
    figure = Figure(figsize=(_WIDTH, 3.2), layout="constrained")
    ax = figure.add_subplot()
    dress(ax)
    norm = Normalize(0, max(1, *(one.block for one in spectra)))
    for one in spectra:
        colour = _BLOCKS(0.15 + 0.75 * norm(one.block))
        places = np.arange(1, len(one.values) + 1)
        values = np.maximum(one.values, _WEAKEST)
        ax.plot(places, values, color=colour, linewidth=1.3)
        first = len(values) - one.nullity
        ax.plot(places[first : first + 1], values[first : first + 1], "o", color=colour)
    ax.set_title(fill(_named(title), _LONGEST["line"]), fontsize=FONT, color=INK)
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(lambda value, _: f"1e{math.log10(value):.0f}")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    name_axes(ax, "eigenvalue, largest first", "over the largest")
    handles = [
        Line2D([], [], color=_BLOCKS(0.15 + 0.75 * norm(one.block)), linewidth=1.3)
        for one in spectra
    ]
    _legend(figure, handles, [f"block {one.block}" for one in spectra], columns=6)
    return figure


def time_figures(lines: Sequence[TimeToAccuracy]) -> list[Figure]:
    """Draw last accuracy against seconds, a figure for each head, with a point per number of epochs."""
    heads = dict.fromkeys(one.head for one in lines)
    return [_time_figure(head, [one for one in lines if one.head == head]) for head in heads]


def _time_figure(head: str, lines: Sequence[TimeToAccuracy]) -> Figure:
    frozen = lines[0].frozen
    labels = [fill(_named(one.label), _LONGEST["line"]) for one in lines]
    height = 3.3 + 0.2 * sum(label.count("\n") + 1 for label in labels)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    ax = figure.add_subplot()
    dress(ax)
    ax.axhline(100 * frozen.accuracy, color=SOFT, linewidth=1, linestyle="--")
    still = f"{_named(lines[0].frozen_label)}, frozen features"
    ax.plot(frozen.seconds, 100 * frozen.accuracy, "o", color=SOFT, label=still)
    epochs = {budget.epochs for one in lines for budget in one.budgets}
    for place, (one, label) in enumerate(zip(lines, labels, strict=True)):
        colour, marker = look(place)
        points = [(budget.seconds, 100 * budget.accuracy) for budget in one.budgets]
        ax.plot(*zip(*points, strict=True), color=colour, marker=marker, label=label)
        for budget, point in zip(one.budgets, points, strict=True) if len(epochs) > 1 else ():
            ax.annotate(
                f"{budget.epochs}",
                point,
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=FONT - 1,
                color=colour,
            )
    ax.set_title(fill(_named(head), _LONGEST["line"]), fontsize=FONT, color=INK)
    scale_by_decades(ax, [b.seconds for one in lines for b in (*one.budgets, frozen)])
    ax.margins(y=0.1)
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    name_axes(ax, "seconds of the whole run", "last accuracy, %")
    _legend(figure, *ax.get_legend_handles_labels(), columns=1)
    return figure


def _forgetting_curve(joined: Group) -> Curve:
    matrices = [np.array(entry["accuracy_matrix"], np.float64) for entry in joined.entries]
    lost = np.array([forgetting_per_task(matrix) for matrix in matrices])
    return dataclasses.replace(
        named_curve(joined), curve=100 * lost.mean(0), deviation=100 * deviation(lost)
    )


def _with_legend(curves: Sequence[Curve], mean: bool = False) -> tuple[Figure, Axes]:
    """Return a figure with a legend that says each curve's mean, or its last value."""
    handles, labels = [], []
    for place, curve in enumerate(curves):
        if np.isnan(curve.curve).all():
            continue
        colour, marker = look(place)
        value = curve.curve.mean() if mean else curve.curve[-1]
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=5.5, linewidth=1.6))
        labels.append(fill(f"{curve.label}: {value:.1f}", _LONGEST["line"]))
    columns = 1 if any(len(label) > _LONGEST["half a line"] for label in labels) else 2
    lines = sum(label.count("\n") + 1 for label in labels)
    height = 3.0 + 0.2 * math.ceil(lines / columns)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    ax = figure.add_subplot()
    _legend(figure, handles, labels, columns)
    return figure, ax


def _legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int) -> None:
    figure.legend(
        list(handles),
        list(labels),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=FONT - 0.5,
        labelcolor=INK,
        handlelength=1.6,
        columnspacing=1.4,
    )


def _square(size: float, title: str, names: float = 0.0) -> tuple[Figure, Axes]:
    """Return a figure around square axes; sizes are in inches, ``names`` of what stands beside them."""
    lines = wrapped(title, size)
    height = size + names + 1.2 + 0.15 * (lines.count("\n") + 1)
    figure = Figure(figsize=(size + names + 0.75, height), layout="constrained")
    ax = figure.add_subplot()
    ax.set_title(lines, fontsize=FONT, color=INK)
    return figure, ax


def _colour_bar(figure: Figure, ax: Axes, colours: ScalarMappable, label: str) -> None:
    bar = figure.colorbar(colours, ax=ax, location="bottom", fraction=0.04, pad=0.03, aspect=30)
    dress_bar(bar, label, FONT - 1, length=2.0)


def _named(text: str, longest: int = _LONGEST["label"]) -> str:
    return literal(printable(text, longest))
