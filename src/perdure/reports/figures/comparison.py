"""Figure of a comparison: accuracy as tasks arrive, and the accuracy matrix of each method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import ScaledTranslation, Transform

from perdure.errors import OutputError
from perdure.reports.figures.axes import (
    FONT,
    INK,
    POINTS,
    SCALE,
    Curve,
    draw_curves,
    draw_matrix,
    dress_bar,
    literal,
    look,
    mean_curve,
    name_axes,
    shared_scale,
)
from perdure.reports.figures.render import write_png
from perdure.reports.results.groups import SETTING, Entry, Group, group

_DOTS = 150


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

    Raises:
        OutputError: there is nothing to draw.
    """
    if not entries:
        raise OutputError(
            f"No results to draw in '{path}': give at least one entry of a results.json."
        )
    write_png(_figure(group(entries)), path)


def _figure(groups: Sequence[Group]) -> Figure:
    curves = [mean_curve(joined) for joined in groups]
    layout = _lay_out(len(curves), max(len(curve.matrix) for curve in curves))
    figure = Figure(
        figsize=(layout.width, layout.height),
        dpi=_DOTS,
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08),
    )
    shared = [groups[0].setting[key] for key in SETTING if key not in groups[0].varying]
    heading = "   ·   ".join(value for value in shared if value)
    figure.suptitle(literal(heading), fontsize=FONT, color="#666666")
    if layout.beside:
        parts = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.25, 1])
    else:
        high = [layout.curves, layout.height - layout.curves]
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=high)
    above, below = parts.flat
    _draw_labelled_curves(above.subplots(), curves, layout.curves)
    axes = below.subplots(layout.rows, layout.columns, squeeze=False)
    norm = shared_scale(curves)
    places = list(axes.flat)
    for place, (ax, curve) in enumerate(zip(places, curves, strict=False)):
        draw_matrix(ax, curve, norm, layout.map_size)
        if place % layout.columns == 0:
            name_axes(ax, y="task learned")
    for ax in places[len(curves) :]:
        ax.set_visible(False)
    bar = below.colorbar(
        ScalarMappable(norm, SCALE), ax=places, fraction=0.03, pad=0.02, aspect=25 * layout.rows
    )
    dress_bar(bar, "accuracy on the task, %")
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


def _draw_labelled_curves(ax: Axes, curves: Sequence[Curve], high: float) -> None:
    draw_curves(ax, curves)
    ax.set_title("Accuracy over all classes seen so far", fontsize=11, color=INK, loc="left")
    name_axes(ax, "tasks learned", "accuracy, %")
    _label_ends(ax, curves, high * 0.7 * POINTS)


def _label_ends(ax: Axes, curves: Sequence[Curve], high: float) -> None:
    """Write each curve's name and last value beside its end, moved apart; ``high`` is in points."""
    named = [(float(curve.curve[-1]), place) for place, curve in enumerate(curves)]
    named = [pair for pair in sorted(named) if not math.isnan(pair[0])]
    low, top = ax.get_ylim()
    wanted = [(value - low) / (top - low) for value, _ in named]
    left, right = ax.get_xlim()
    for (value, place), height in zip(named, _apart(wanted, 1.4 * FONT / high), strict=True):
        (colour, marker), end = look(place), len(curves[place].curve)
        start = ((end - left) / (right - left), (value - low) / (top - low))
        ends, heights = (start[0], 1.0), (start[1], height)
        ax.plot(ends, heights, color=colour, linewidth=0.7, transform=ax.transAxes, clip_on=False)
        ax.plot(
            1,
            height,
            color=colour,
            marker=marker,
            markersize=5,
            transform=_shifted(ax, 4.0),
            clip_on=False,
        )
        ax.text(
            1,
            height,
            f"{curves[place].label}   {value:.1f}",
            fontsize=FONT,
            color=INK,
            verticalalignment="center_baseline",
            transform=_shifted(ax, 11.0),
        )


def _shifted(ax: Axes, points: float) -> Transform:
    """Return the coordinates of the axes, moved to the right by so many points."""
    return ax.transAxes + ScaledTranslation(points / POINTS, 0, ax.figure.dpi_scale_trans)


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
