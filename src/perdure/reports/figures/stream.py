"""Figure of a stream: how many images of each class every task brings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from perdure.reports.figures.axes import (
    COLOURS,
    FAINT,
    FONT,
    INK,
    POINTS,
    SCALE,
    SOFT,
    dress,
    dress_bar,
    literal,
    name_axes,
    number,
    write_in_cell,
)
from perdure.reports.figures.render import printable, write_png
from perdure.wording import counted

if TYPE_CHECKING:  # drawing needs numbers alone
    from perdure.streams import Stream

_DOTS = 150
_MOST_NAMED, _LONGEST = 50, 22  # classes with their names beside them; letters of a name
_MOST_DOMAINS = 12
_SPREAD = 15  # largest over smallest cell from which colours follow the logarithm
_SMALLEST_FONT, _ROOM = 5.0, 0.62  # of a number in a cell; width of a digit over its height
_CELLS = LinearSegmentedColormap.from_list("images", SCALE(np.linspace(0.1, 0.72, 64)))
"""Neither so light that a cell of one image is lost, nor so dark that equal counts are all black."""


@dataclass(frozen=True, eq=False)
class StreamCounts:
    """How many images a stream shows.

    Attributes:
        classes: names, in order of arrival.
        domains: domain of each task; empty where tasks are formed by classes alone.
        train: training images per class and task.
        val: validation images per class and task.
        test: test images per class and task.
    """

    classes: tuple[str, ...]
    domains: tuple[str, ...]
    train: Int64[np.ndarray, "c t"]
    val: Int64[np.ndarray, "c t"]
    test: Int64[np.ndarray, "c t"]

    @property
    def splits(self) -> list[tuple[str, Int64[np.ndarray, "c t"], str]]:
        """Splits that have images: name, counts and colour."""
        named = [("training", self.train, COLOURS[0]), ("validation", self.val, COLOURS[4])]
        return [one for one in (*named, ("test", self.test, "#C9D6E6")) if one[1].any()]


def count_stream(stream: Stream) -> StreamCounts:
    """Count the images of a stream; none is read."""
    place = {name: row for row, name in enumerate(stream.class_names)}
    shape = (len(place), len(stream.tasks))
    tables = {split: np.zeros(shape, np.int64) for split in ("train", "val", "test")}
    for column, data in enumerate(stream.tasks):
        for split, counts in tables.items():
            subset = getattr(data, split)
            if subset is not None:
                labels = subset.labels.numpy() - data.task.classes[0]
                each = np.bincount(labels, minlength=len(data.task.classes))
                counts[[place[name] for name in data.task.names], column] = each
    return StreamCounts(stream.class_names, stream.domains, **tables)


def draw_stream(counts: StreamCounts, title: str, path: Path | str) -> None:
    """Write a PNG: training images per class and task, with sums above and beside."""
    write_png(_figure(counts, title), path)


def _figure(counts: StreamCounts, title: str) -> Figure:
    classes, tasks = counts.train.shape
    wide = float(np.clip(0.42 * tasks, 2.6, 7.5))
    high = float(np.clip(0.22 * classes, 1.8, 7.0))
    beside, above = 1.5, 1.1
    figure = Figure(
        figsize=(wide + beside + 1.9, high + above + 1.5),
        dpi=_DOTS,
        layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, hspace=0.02, wspace=0.02),
    )
    figure.suptitle(_titled(counts, title), fontsize=FONT, color=INK, x=0.02, ha="left")
    grid = figure.add_gridspec(2, 2, width_ratios=[wide, beside], height_ratios=[above, high])
    cells = figure.add_subplot(grid[1, 0])
    top = figure.add_subplot(grid[0, 0], sharex=cells)
    side = figure.add_subplot(grid[1, 1], sharey=cells)
    corner = figure.add_subplot(grid[0, 1])
    norm = _norm(counts.train)
    numbered = _draw_cells(cells, counts, norm, (wide, high))
    _draw_sums(top, counts, 0)
    _draw_sums(side, counts, 1)
    corner.set_axis_off()
    corner.legend(
        *top.get_legend_handles_labels(), loc="lower left", frameon=False, fontsize=FONT - 1
    )
    if not numbered:
        bar = figure.colorbar(
            ScalarMappable(norm, _CELLS), ax=[cells, side], location="bottom", aspect=50, shrink=0.6
        )
        dress_bar(bar, "training images of a class in a task")
    return figure


def _titled(counts: StreamCounts, title: str) -> str:
    classes, tasks = counts.train.shape
    parts = [counted(tasks, "task"), f"{classes} classes"]
    if counts.domains:
        parts.append(counted(len(set(counts.domains)), "domain"))
    images = [f"{int(part.sum()):,} {name} images" for name, part, _ in counts.splits]
    return literal("\n".join("   ·   ".join(line) for line in ([title, *parts], images)))


def _norm(values: Int64[np.ndarray, "c t"]) -> Normalize:
    """Colours by number of images; by its logarithm where numbers are far apart."""
    shown = values[values > 0]
    low, high = int(shown.min()), int(shown.max())
    if high >= _SPREAD * low:
        return LogNorm(low, high)
    return Normalize(0, high)


def _draw_cells(ax: Axes, counts: StreamCounts, norm: Normalize, size: tuple[float, float]) -> bool:
    """Draw the heat map; tells whether every cell has its number."""
    classes, tasks = counts.train.shape
    shown = np.ma.masked_equal(counts.train, 0)
    wide, high = size[0] * POINTS / tasks, size[1] * POINTS / classes
    gap = 0.8 if min(wide, high) > 8 else 0  # noqa: PLR2004
    ax.pcolormesh(
        np.arange(tasks + 1) - 0.5,
        np.arange(classes + 1) - 0.5,
        shown,
        norm=norm,
        cmap=_CELLS,
        edgecolor="white" if gap else "none",
        linewidth=gap,
    )
    dress(ax)
    ax.set_xlim(-0.5, tasks - 0.5)
    ax.set_ylim(classes - 0.5, -0.5)
    _name_tasks(ax, counts, wide)
    _name_classes(ax, counts)
    for edge in ("left", "bottom", "right", "top"):
        ax.spines[edge].set(visible=True, color=FAINT, linewidth=0.6)
    digits = len(f"{counts.train.max()}")
    font = min(FONT - 1, high * 0.6, wide * 0.85 / (digits * _ROOM))
    if font < _SMALLEST_FONT:
        return False
    for row, column in np.argwhere(counts.train).tolist():
        value = int(counts.train[row, column])
        write_in_cell(ax, (row, column), str(value), font, np.array(_CELLS(norm(value))))
    return True


def _name_tasks(ax: Axes, counts: StreamCounts, wide: float) -> None:
    tasks = counts.train.shape[1]
    if 0 < len(counts.domains) <= _MOST_DOMAINS:
        names = [literal(printable(name, _LONGEST)) for name in counts.domains]
        turned = max(map(len, names)) * 0.55 * (FONT - 1) > wide
        ax.set_xticks(
            range(tasks),
            [f"{name}" if turned else f"{place}\n{name}" for place, name in enumerate(names, 1)],
            rotation=35 if turned else 0,
            ha="right" if turned else "center",
            rotation_mode="anchor" if turned else "default",
        )
    else:
        number(ax.xaxis, tasks)
    name_axes(ax, "domain" if counts.domains else "task")


def _name_classes(ax: Axes, counts: StreamCounts) -> None:
    classes = len(counts.classes)
    if classes <= _MOST_NAMED:
        names = [literal(printable(name, _LONGEST)) for name in counts.classes]
        ax.set_yticks(range(classes), names)
    else:
        number(ax.yaxis, classes)
        name_axes(ax, y="class, in order of arrival")
        ax.grid(color=FAINT, linewidth=0.4)


def _draw_sums(ax: Axes, counts: StreamCounts, axis: int) -> None:
    """Draw bars of all images per task (axis 0) or per class (axis 1), training and test."""
    dress(ax)
    bottom = np.zeros(counts.train.shape[1 - axis])
    thick = 0.8 if len(bottom) <= _MOST_NAMED else 1.0
    for name, part, colour in counts.splits:
        sums = part.sum(axis)
        if axis == 0:
            ax.bar(range(len(sums)), sums, thick, bottom=bottom, color=colour, label=name)
        else:
            ax.barh(range(len(sums)), sums, thick, left=bottom, color=colour, label=name)
        bottom = bottom + sums
    ax.grid(axis="y" if axis == 0 else "x", color=FAINT, linewidth=0.6)
    if axis == 0:
        ax.tick_params(labelbottom=False, bottom=False)
        ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        ax.set_ylabel("images\nper task", fontsize=FONT - 1, color=SOFT)
    else:
        ax.tick_params(labelleft=False, left=False)
        ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        ax.set_xlabel("images per class", fontsize=FONT - 1, color=SOFT)
    (ax.set_ylim if axis == 0 else ax.set_xlim)(0, float(bottom.max()) * 1.05)
