"""One picture of a comparison: accuracy as tasks arrive, and what became of each task."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np
from jaxtyping import Float64
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import ScaledTranslation, Transform

from perdure.atomic import atomic_write
from perdure.errors import OutputError
from perdure.reports.groups import SETTING, Entry, Group, group

# After Paul Tol's "bright" and "muted" schemes: apart for the colour-blind, legible on white.
_COLOURS = (
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
_MARKERS = "os^DvPX*<>ph"
_INK, _FAINT, _UNKNOWN = "#222222", "#DDDDDD", "#F1F1F1"
_SCALE = colormaps["YlGnBu"]
_DOTS = 150
_POINTS = 72
_FONT, _SMALLEST_FONT = 9.0, 4.5
_ROOM_FOR_DECIMAL = 22  # points that a cell needs to show tenths
_LUMINANCE, _HALF = (0.299, 0.587, 0.114), 0.5
_TICKS, _MARKED = 10, 25


@dataclass(frozen=True)
class _Curve:
    """What is drawn of one group, in per cent, NaN where unknown; means over its seeds."""

    label: str
    matrix: Float64[np.ndarray, "t t"]
    curve: Float64[np.ndarray, "t"]
    deviation: Float64[np.ndarray, "t"]


@dataclass(frozen=True)
class _Layout:
    """Sizes in inches; ``curves`` is a height, ``beside`` puts a single heat map to the right."""

    columns: int
    rows: int
    map_size: float
    curves: float
    width: float
    height: float
    beside: bool


def draw(entries: Sequence[Entry], path: Path | str) -> None:
    """Write a PNG: accuracy over all classes seen, and per method and head its accuracy matrix.

    Seeds are joined: lines and cells show means, a band one standard deviation. A result that was
    evaluated only after the last task is a dashed level line with a marker at its end.

    Args:
        entries: results as in ``results.json``, at least one.
        path: file to write, replaced as a whole.

    Raises:
        OutputError: there is nothing to draw, or the file cannot be written.
    """
    if not entries:
        raise OutputError(
            f"No results to draw in '{path}': give at least one entry of a results.json."
        )
    content = io.BytesIO()
    figure = _figure(group(entries))
    FigureCanvasAgg(figure)
    figure.savefig(content, format="png")
    atomic_write(path, content.getvalue())


def _figure(groups: Sequence[Group]) -> Figure:
    curves = [_curve(joined) for joined in groups]
    layout = _lay_out(len(curves), max(len(curve.matrix) for curve in curves))
    figure = Figure(
        figsize=(layout.width, layout.height),
        dpi=_DOTS,
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08),
    )
    shared = [groups[0].setting[key] for key in SETTING if key not in groups[0].varying]
    heading = "   ·   ".join(value for value in shared if value)
    figure.suptitle(_literal(heading), fontsize=_FONT, color="#666666")
    if layout.beside:
        parts = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.25, 1])
    else:
        high = [layout.curves, layout.height - layout.curves]
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=high)
    above, below = parts.flat
    _draw_curves(above.subplots(), curves, layout.curves)
    axes = below.subplots(layout.rows, layout.columns, squeeze=False)
    norm = _norm(curves)
    places = list(axes.flat)
    for place, (ax, curve) in enumerate(zip(places, curves, strict=False)):
        _draw_matrix(ax, curve, norm, layout.map_size)
        if place % layout.columns == 0:
            ax.set_ylabel("task learned", fontsize=_FONT, color=_INK)
        ax.set_xlabel("evaluated on task", fontsize=_FONT, color=_INK)
    for ax in places[len(curves) :]:
        ax.set_visible(False)
    bar = below.colorbar(
        ScalarMappable(norm, _SCALE), ax=places, fraction=0.03, pad=0.02, aspect=25 * layout.rows
    )
    bar.set_label("accuracy on the task, %", fontsize=_FONT, color=_INK)
    bar.ax.tick_params(labelsize=_FONT - 1, color=_FAINT, labelcolor=_INK)
    bar.outline.set_visible(False)
    return figure


def _lay_out(maps: int, tasks: int) -> _Layout:
    size = float(np.clip(1.1 + 0.21 * tasks, 2.1, 4.2))
    if maps == 1:
        size = max(size, 3.2)
        return _Layout(1, 1, size, size, width=size + 6.1, height=size + 0.7, beside=True)
    size = max(size, 2.9) if maps <= 2 else size  # noqa: PLR2004
    rows = math.ceil(maps / min(5, int(13 // size)))
    columns = math.ceil(maps / rows)
    curves = 3.3 + 0.12 * max(0, maps - 5)
    width = max(8.5, columns * (size + 0.25) + 1.2)
    height = curves + rows * (size + 0.55)
    return _Layout(columns, rows, size, curves, width, height, beside=False)


def _curve(joined: Group) -> _Curve:
    matrices = np.array([_numbers(entry["accuracy_matrix"]) for entry in joined.entries])
    curves = np.array([_accuracies(entry) for entry in joined.entries])
    return _Curve(
        _literal(joined.label),
        100 * matrices.mean(0),
        100 * curves.mean(0),
        100 * (curves.std(0, ddof=1) if len(curves) > 1 else np.zeros_like(curves[0])),
    )


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


def _draw_curves(ax: Axes, curves: Sequence[_Curve], high: float) -> None:
    last = max(len(curve.curve) for curve in curves)
    _dress(ax)
    ax.set_title("Accuracy over all classes seen so far", fontsize=11, color=_INK, loc="left")
    ax.set_xlabel("tasks learned", fontsize=_FONT, color=_INK)
    ax.set_ylabel("accuracy, %", fontsize=_FONT, color=_INK)
    ax.set_xticks(_ticks(last))
    ax.set_xlim(1 - 0.03 * last, last + 0.03 * last)
    ax.grid(axis="y", color=_FAINT, linewidth=0.6)
    for place, curve in enumerate(curves):
        _draw_curve(ax, curve, place)
    known = np.concatenate([curve.curve for curve in curves])
    known = known[~np.isnan(known)]
    if not len(known):
        return
    margin = max(2.0, 0.08 * float(np.ptp(known)))
    low = max(-1.0, float(known.min()) - margin)
    top = min(101.0, float(known.max()) + margin)
    ax.set_ylim(low, top)
    _label_ends(ax, curves, (low, top), high * 0.7 * _POINTS)


def _draw_curve(ax: Axes, curve: _Curve, place: int) -> None:
    colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
    style = "-" if place < len(_COLOURS) else "-."
    tasks = np.arange(1, len(curve.curve) + 1)
    points = {"color": colour, "marker": marker, "markersize": 5.5}
    edge = {"markeredgewidth": 0.6, "markeredgecolor": "white"}
    if np.isnan(curve.curve[:-1]).all() and len(tasks) > 1:
        ax.plot(tasks[[0, -1]], curve.curve[[-1, -1]], "--", color=colour, linewidth=1.2)
        ax.plot(tasks[-1:], curve.curve[-1:], linestyle="none", **points, **edge)  # type: ignore[arg-type]
        return
    low, high = curve.curve - curve.deviation, curve.curve + curve.deviation
    ax.fill_between(tasks, low, high, color=colour, alpha=0.15, linewidth=0)
    marked = list(range(len(tasks) - 1, -1, -math.ceil(len(tasks) / _MARKED)))
    ax.plot(tasks, curve.curve, style, linewidth=1.6, markevery=marked, **points, **edge)  # type: ignore[arg-type]


def _label_ends(
    ax: Axes, curves: Sequence[_Curve], limits: tuple[float, float], high: float
) -> None:
    """Write each curve's name and last value beside its end, moved apart where they would meet.

    Args:
        ax: the axes of the curves.
        curves: in the order in which they were drawn.
        limits: of the vertical axis.
        high: height of the axes in points.
    """
    named = [(float(curve.curve[-1]), place) for place, curve in enumerate(curves)]
    named = [pair for pair in sorted(named) if not math.isnan(pair[0])]
    low, top = limits
    wanted = [(value - low) / (top - low) for value, _ in named]
    left, right = ax.get_xlim()
    for (value, place), height in zip(named, _apart(wanted, 1.4 * _FONT / high), strict=True):
        colour, end = _COLOURS[place % len(_COLOURS)], len(curves[place].curve)
        start = ((end - left) / (right - left), (value - low) / (top - low))
        ends, heights = (start[0], 1.0), (start[1], height)
        ax.plot(ends, heights, color=colour, linewidth=0.7, transform=ax.transAxes, clip_on=False)
        ax.plot(
            1,
            height,
            color=colour,
            marker=_MARKERS[place % len(_MARKERS)],
            markersize=5,
            transform=_shifted(ax, 4.0),
            clip_on=False,
        )
        ax.text(
            1,
            height,
            f"{curves[place].label}   {value:.1f}",
            fontsize=_FONT,
            color=_INK,
            verticalalignment="center_baseline",
            transform=_shifted(ax, 11.0),
        )


def _shifted(ax: Axes, points: float) -> Transform:
    """Return the coordinates of the axes, moved to the right by so many points."""
    return ax.transAxes + ScaledTranslation(points / _POINTS, 0, ax.figure.dpi_scale_trans)


def _apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Return ascending positions at least ``gap`` apart, near the wanted ones and their middle."""
    clusters: list[tuple[float, int]] = []  # centre and number of positions
    for position in wanted:
        centre, number = position, 1
        while clusters and centre - clusters[-1][0] < gap * (clusters[-1][1] + number) / 2:
            other, others = clusters.pop()
            centre = (other * others + centre * number) / (others + number)
            number += others
        clusters.append((centre, number))
    return [
        centre + (place - (number - 1) / 2) * gap
        for centre, number in clusters
        for place in range(number)
    ]


def _norm(curves: Sequence[_Curve]) -> Normalize:
    known = np.concatenate([curve.matrix.ravel() for curve in curves])
    known = known[~np.isnan(known)]
    low = 10 * math.floor(float(known.min()) / 10) if len(known) else 0
    high = 10 * math.ceil(float(known.max()) / 10) if len(known) else 100
    return Normalize(min(low, 90), max(high, low + 10))


def _draw_matrix(ax: Axes, curve: _Curve, norm: Normalize, size: float) -> None:
    tasks = len(curve.matrix)
    colours = _SCALE(norm(np.nan_to_num(curve.matrix)))
    unknown = np.isnan(curve.matrix)
    colours[unknown] = to_rgba(_UNKNOWN)
    colours[np.triu_indices(tasks, 1)] = to_rgba("white")
    ax.imshow(colours, interpolation="nearest")
    _dress(ax)
    ax.set_title(
        fill(curve.label, int(size * _POINTS / (0.55 * _FONT))), fontsize=_FONT, color=_INK
    )
    ticks = _ticks(tasks)
    ax.set_xticks([tick - 1 for tick in ticks], [str(tick) for tick in ticks])
    ax.set_yticks([tick - 1 for tick in ticks], [str(tick) for tick in ticks])
    cell = size * _POINTS / tasks
    digits = 1 if cell >= _ROOM_FOR_DECIMAL else 0
    font = min(_FONT - 1, cell * (0.36 if digits else 0.46))
    missing = [after for after in range(tasks) if unknown[after].all()]
    if missing:
        ax.text(-0.3, missing[-1], "not evaluated", fontsize=7, color="#888888", va="center")
    if font < _SMALLEST_FONT:
        return
    for after, on in zip(*np.nonzero(~unknown), strict=True):
        dark = np.dot(colours[after, on, :3], _LUMINANCE) < _HALF
        ax.text(
            on,
            after,
            f"{curve.matrix[after, on]:.{digits}f}",
            fontsize=font,
            color="white" if dark else _INK,
            horizontalalignment="center",
            verticalalignment="center_baseline",
        )


def _literal(text: str) -> str:
    """Return the text with nothing in it that would be read as a formula."""
    return text.replace("$", r"\$")


def _ticks(tasks: int) -> list[int]:
    """Return about ten task numbers at most, round ones where there are more tasks."""
    if tasks <= _TICKS:
        return list(range(1, tasks + 1))
    step = next(step for step in (2, 5, 10, 20, 50, tasks) if tasks / step <= _TICKS)
    return [tick for tick in range(1, tasks + 1) if tick % step == 0]


def _dress(ax: Axes) -> None:
    ax.spines[:].set_visible(False)
    ax.tick_params(labelsize=_FONT - 1, color=_FAINT, labelcolor=_INK, length=2)
    ax.set_axisbelow(True)
