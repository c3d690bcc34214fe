"""Axes that figures are put together from: curves over tasks, heat maps, colour bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from jaxtyping import Bool, Float64
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgba

from perdure.reports.results.groups import Entry, Group

COLOURS = (
    "#4477AA",
    "#EE6677",
    "#228833",
    "#AA3377",
    "#CCA01D",
    "#332288",
    "#44AA99",
    "#882255",
    "#777777",
)
"""After Paul Tol's "bright" and "muted" schemes: apart for the colour-blind, legible on white."""
MARKERS = "os^DvPX*<>ph"
INK, SOFT, FAINT, PAPER = "#222222", "#888888", "#DDDDDD", "#FFFFFF"
"""Text, side notes, lines in the background, and what lies under everything."""
SCALE = colormaps["YlGnBu"]
"""Colours of accuracies."""
SHARES = LinearSegmentedColormap.from_list(
    "shares",
    [(share, to_rgba(COLOURS[0], alpha)) for share, alpha in ((0, 0.06), (0.25, 0.5), (1, 1))],
)
"""Colours of shares: the less, the more of what lies under them is seen."""
FONT, POINTS = 9.0, 72
_ON_LIGHT, _ON_DARK, _UNKNOWN = "#111111", "#FEFEFE", (0.5, 0.5, 0.5, 0.11)
_SMALLEST_FONT = 4.5
_ROOM_FOR_DECIMAL = 22  # points that a cell needs to show tenths
_LUMINANCE, _HALF = (0.299, 0.587, 0.114), 0.5
_SEEN_THROUGH = 0.8  # opacity below which numbers on a cell have the colour of the text
_TICKS, _MARKED = 10, 25


@dataclass(frozen=True)
class Curve:
    """What is drawn of one group, in per cent, NaN where unknown; means over its seeds.

    Attributes:
        label: label of the group, safe to draw.
        matrix: accuracy per task learned (down) and evaluated (across).
        curve: accuracy over all classes seen, after each task.
        deviation: its standard deviation over seeds.
    """

    label: str
    matrix: Float64[np.ndarray, "t t"]
    curve: Float64[np.ndarray, "n"]
    deviation: Float64[np.ndarray, "n"]


def mean_curve(joined: Group) -> Curve:
    """Return what is drawn of a group."""
    matrices = np.array([_numbers(entry["accuracy_matrix"]) for entry in joined.entries])
    curves = np.array([_accuracies(entry) for entry in joined.entries])
    return Curve(
        literal(joined.label), 100 * matrices.mean(0), 100 * curves.mean(0), 100 * deviation(curves)
    )


def deviation(values: Float64[np.ndarray, "s n"]) -> Float64[np.ndarray, "n"]:
    """Return the standard deviation over seeds, zero for one seed."""
    return values.std(0, ddof=1) if len(values) > 1 else np.zeros_like(values[0])


def _accuracies(entry: Entry) -> Float64[np.ndarray, "t"]:
    """Return the accuracy after each task; without a curve only the last one is known."""
    curve = entry.get("accuracy_curve")
    if curve is not None:
        return _numbers(curve)
    known = np.full(len(entry["accuracy_matrix"]), np.nan)
    known[-1] = _numbers(entry.get("last_accuracy"))
    return known


def _numbers(values: object) -> Float64[np.ndarray, "..."]:
    return np.array(values, dtype=np.float64)  # None becomes NaN


def look(place: int) -> tuple[str, str]:
    """Return colour and marker of the curve at a place."""
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def draw_curves(
    ax: Axes, curves: Sequence[Curve], bounds: tuple[float, float] = (-1.0, 101.0)
) -> None:
    """Draw on empty axes a line with markers per curve, and a band of one standard deviation.

    A curve of which only the last value is known is a dashed level line with a marker at its end; past
    other evaluations that were left out a line goes straight on.
    Colour and marker follow from a curve's place; the vertical axis never leaves the bounds.
    """
    last = max(len(curve.curve) for curve in curves)
    dress(ax)
    ax.set_xticks(ticks(last))
    ax.set_xlim(1 - 0.03 * last, last + 0.03 * last)
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    for place, curve in enumerate(curves):
        _draw_curve(ax, curve, place)
    known = np.concatenate([curve.curve for curve in curves])
    known = known[~np.isnan(known)]
    if len(known):
        margin = max(2.0, 0.08 * float(np.ptp(known)))
        low, top = float(known.min()) - margin, float(known.max()) + margin
        ax.set_ylim(max(bounds[0], low), min(bounds[1], top))


def _draw_curve(ax: Axes, curve: Curve, place: int) -> None:
    colour, marker = look(place)
    style = "-" if place < len(COLOURS) else "-."
    tasks = np.arange(1, len(curve.curve) + 1)
    points = {"color": colour, "marker": marker, "markersize": 5.5}
    edge = {"markeredgewidth": 0.6, "markeredgecolor": PAPER}
    if np.isnan(curve.curve[:-1]).all() and len(tasks) > 1:
        ax.plot(tasks[[0, -1]], curve.curve[[-1, -1]], "--", color=colour, linewidth=1.2)
        ax.plot(tasks[-1:], curve.curve[-1:], linestyle="none", **points, **edge)  # type: ignore[arg-type]
        return
    known = ~np.isnan(curve.curve)
    tasks, values, spread = tasks[known], curve.curve[known], curve.deviation[known]
    ax.fill_between(tasks, values - spread, values + spread, color=colour, alpha=0.15, linewidth=0)
    marked = list(range(len(tasks) - 1, -1, -math.ceil(max(len(tasks), 1) / _MARKED)))
    ax.plot(tasks, values, style, linewidth=1.6, markevery=marked, **points, **edge)  # type: ignore[arg-type]


def shared_scale(curves: Sequence[Curve]) -> Normalize:
    """Return the scale, in per cent, that covers every cell of these matrices."""
    known = np.concatenate([curve.matrix.ravel() for curve in curves])
    known = known[~np.isnan(known)]
    low = 10 * math.floor(float(known.min()) / 10) if len(known) else 0
    high = 10 * math.ceil(float(known.max()) / 10) if len(known) else 100
    return Normalize(min(low, 90), max(high, low + 10))


def draw_matrix(ax: Axes, curve: Curve, norm: Normalize, size: float) -> None:
    """Draw the accuracy matrix of a group on empty axes with so many inches a side."""
    tasks = len(curve.matrix)
    later = np.triu(np.ones((tasks, tasks), bool), 1)
    draw_cells(ax, curve.matrix, norm, size, hidden=later)
    ax.set_title(wrapped(curve.label, size), fontsize=FONT, color=INK)
    number_tasks(ax, tasks)
    name_axes(ax, "evaluated on task")
    missing = [after for after, row in enumerate(curve.matrix) if np.isnan(row).all()]
    if missing:
        ax.text(-0.3, missing[-1], "not evaluated", fontsize=7, color=SOFT, va="center")


def draw_cells(
    ax: Axes,
    values: Float64[np.ndarray, "n n"],
    norm: Normalize,
    size: float,
    hidden: Bool[np.ndarray, "n n"],
    scale: Colormap = SCALE,
) -> None:
    """Draw a heat map on empty axes, with a number in each cell where cells have room for one.

    Args:
        ax: with ``size`` inches a side.
        values: per cell, NaN where unknown.
        norm: from values to the scale of colours.
        size: side of the axes.
        hidden: cells that are left empty.
        scale: the colours.
    """
    colours = scale(norm(np.nan_to_num(values)))
    colours[np.isnan(values)] = _UNKNOWN
    colours[hidden] = (0, 0, 0, 0)
    ax.imshow(colours, interpolation="nearest")
    dress(ax)
    cell = size * POINTS / len(values)
    digits = 1 if cell >= _ROOM_FOR_DECIMAL else 0
    font = min(FONT - 1, cell * (0.36 if digits else 0.46))
    if font < _SMALLEST_FONT:
        return
    for row, column in np.argwhere(~np.isnan(values) & ~hidden).tolist():
        text = f"{values[row, column]:.{digits}f}"
        write_in_cell(ax, (row, column), text, font, colours[row, column])


def write_in_cell(
    ax: Axes, place: tuple[int, int], text: str, font: float, cell: Float64[np.ndarray, "4"]
) -> None:
    """Write a number into the cell at a row and column, legible on the cell's colour."""
    on_light = np.dot(cell[:3], _LUMINANCE) >= _HALF
    colour = INK if cell[3] < _SEEN_THROUGH else _ON_LIGHT if on_light else _ON_DARK
    row, column = place
    ax.text(column, row, text, fontsize=font, color=colour, ha="center", va="center_baseline")


def number_tasks(ax: Axes, tasks: int) -> None:
    """Write task numbers beside a square of tasks."""
    number(ax.xaxis, tasks)
    number(ax.yaxis, tasks)


def number(axis: Axis, count: int) -> None:
    """Write numbers from 1 beside the cells along an axis, or beside some of many."""
    shown = ticks(count)
    axis.set_ticks([tick - 1 for tick in shown], [str(tick) for tick in shown])


def dress_bar(bar: Colorbar, label: str, font: float = FONT, length: float = 3.5) -> None:
    """Give a colour bar its plain look; font and length of ticks are in points."""
    bar.set_label(label, fontsize=font, color=INK)
    bar.ax.tick_params(labelsize=font - 1, color=FAINT, labelcolor=INK, length=length)
    bar.outline.set_visible(False)


def wrapped(title: str, size: float) -> str:
    """Return a title in lines that fit over axes with so many inches a side."""
    return fill(title, int(size * POINTS / (0.55 * FONT)))


def literal(text: str) -> str:
    """Return the text with nothing in it that would be read as a formula."""
    return text.replace("$", r"\$")


def ticks(tasks: int) -> list[int]:
    """Return about ten task numbers at most, round ones where there are more tasks."""
    if tasks <= _TICKS:
        return list(range(1, tasks + 1))
    step = next(step for step in (2, 5, 10, 20, 50, tasks) if tasks / step <= _TICKS)
    return [tick for tick in range(1, tasks + 1) if tick % step == 0]


def scale_by_decades(ax: Axes, values: Sequence[float]) -> None:
    """Give a horizontal axis of positive values a logarithmic scale with round marks."""
    low, high = min(values), max(values)
    ax.set_xscale("log")
    marks = [step * 10.0**power for power in range(-3, 9) for step in (1, 2, 5)]
    marks = [mark for mark in marks if low / 2 < mark < high * 2]
    ax.set_xticks(marks, [f"{mark:g}" for mark in marks])
    ax.minorticks_off()
    ax.set_xlim(low / 1.3, high * 1.3)


def name_axes(ax: Axes, x: str = "", y: str = "") -> None:
    """Name what axes show; an empty name leaves what is there."""
    if x:
        ax.set_xlabel(x, fontsize=FONT, color=INK)
    if y:
        ax.set_ylabel(y, fontsize=FONT, color=INK)


def dress(ax: Axes) -> None:
    """Give axes their plain look."""
    ax.spines[:].set_visible(False)
    ax.tick_params(labelsize=FONT - 1, color=FAINT, labelcolor=INK, length=2)
    ax.set_axisbelow(True)
