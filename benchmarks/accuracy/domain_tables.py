"""The tables and the picture of the runs over domains and of fifty tasks."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from results import DOCUMENT, Results, main_table, selection_table

from perdure.reports.figures.axes import FONT, INK, SOFT, Curve, draw_curves, look, mean_curve
from perdure.reports.results.groups import group

PICTURE = DOCUMENT.with_name("domains.png")
SETS = "sets.csv"
"""The list of sets in the cache folder."""
STREAMS = {"domains": "three domains", "length": "fifty tasks"}
KINDS = ("digits", "Fashion-MNIST", "icons")
TASKS_OF_KIND = 5
HEADS = {"linear": "trained head", "gaussian": "gaussian"}


def tables(done: Results, logs: Mapping[str, Path], cache: Path) -> dict[str, str]:
    """Every table by the name of its marker.

    Args:
        done: results by cell.
        logs: events of every cell.
        cache: the folder of the icons.
    """
    found = {stream: main_table(done, stream) for stream in STREAMS}
    found["icons"] = icon_table(cache)
    found["kinds"] = kind_table(done)
    found["domains selection"] = selection_table(done, STREAMS)
    found["seconds"] = seconds_table(done, logs)
    return found


def icon_table(cache: Path) -> str:
    """How many sets, families, classes and images there are, and under which licences."""
    with (cache / SETS).open(encoding="utf-8", newline="") as file:
        sets = list(csv.DictReader(file))
    with (cache / "length.csv").open(encoding="utf-8", newline="") as file:
        images = list(csv.DictReader(file))
    rows = ["| side | classes | images | images per class | families | sets |"]
    rows.append("| :-- | --: | --: | --: | --: | --: |")
    for side in ("train", "test"):
        counts = Counter(line["label"] for line in images if line["split"] == side)
        of_side = [line for line in sets if line["side"] == side]
        families = {line["family"] for line in of_side}
        least, most = min(counts.values()), max(counts.values())
        rows.append(
            f"| {side} | {len(counts)} | {counts.total():,} | {least} to {most} "
            f"| {len(families)} | {len(of_side)} |"
        )
    licences = Counter(line["licence"] for line in sets)
    named = ", ".join(f"{name} ({count})" for name, count in licences.most_common())
    return "\n".join([*rows, "", f"Licences of the sets: {named}."])


def kind_table(done: Results) -> str:
    """Accuracy on each domain when its last task was learned, and at each later domain's end."""
    pairs = [(first, later) for first in range(len(KINDS)) for later in range(first, len(KINDS))]
    moments = [f"{KINDS[first]} after {KINDS[later]}" for first, later in pairs]
    rows = [f"| method | head | {' | '.join(moments)} |"]
    rows.append(f"| :-- | :-- |{' --: |' * len(moments)}")
    for name, entries in sorted(done.items()):
        stream, _, method = name.partition("/")
        for entry in entries if stream == "domains" else []:
            shown = [f"{100 * on_kind(entry, *pair):.1f}" for pair in pairs]
            rows.append(f"| `{method}` | {HEADS[entry['head']]} | {' | '.join(shown)} |")
    return "\n".join(rows)


def on_kind(entry: Mapping[str, Any], kind: int, later: int) -> float:
    """Share of a domain's test images that are told right after the last task of a later one."""
    row = entry["accuracy_matrix"][TASKS_OF_KIND * (later + 1) - 1]
    tasks = range(TASKS_OF_KIND * kind, TASKS_OF_KIND * (kind + 1))
    images = [entry["test_counts"][task] for task in tasks]
    right = sum(row[task] * count for task, count in zip(tasks, images, strict=True))
    return float(right / sum(images))


@dataclass(frozen=True)
class Spent:
    """Seconds of one task.

    Attributes:
        training: the epochs.
        rest: taking the task in, fitting heads, and evaluating every task so far.
    """

    training: float
    rest: float


def spent(log: Path) -> list[Spent]:
    """Seconds of every task that was not interrupted, from the events of a run."""
    found: list[Spent] = []
    began: float | None = None
    images, training = 0, 0.0
    for line in log.read_text("utf-8").splitlines():
        event = json.loads(line)
        match event["kind"]:
            case "task":
                began, images, training = event["time"], event["images"], 0.0
            case "run" | "resume":
                began = None
            case "epoch":
                training += images / event["images_per_second"]
            case "accuracy" if began is not None:
                found.append(Spent(training, event["time"] - began - training))
                began = None
    return found


def seconds_table(done: Results, logs: Mapping[str, Path]) -> str:
    """Seconds per task in the first and in the last fifth of a stream: medians."""
    rows = [
        "| stream | method | training: first tasks | last tasks | the rest: first tasks | "
        "last tasks | whole run, minutes |",
        "| :-- | :-- | --: | --: | --: | --: | --: |",
    ]
    for name, entries in done.items():
        stream, _, method = name.partition("/")
        tasks = spent(logs[name])
        fifth = len(tasks) // 5
        ends = (tasks[:fifth], tasks[-fifth:])
        shown = [f"{median(task.training for task in end):.1f}" for end in ends]
        shown += [f"{median(task.rest for task in end):.1f}" for end in ends]
        minutes = entries[0]["seconds"] / 60
        rows.append(f"| {STREAMS[stream]} | `{method}` | {' | '.join(shown)} | {minutes:.0f} |")
    return "\n".join(rows)


def draw(done: Results, methods: Sequence[str]) -> None:
    """Draw accuracy over all classes seen, a column per stream and a row per head."""
    figure = Figure(figsize=(9, 5.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(HEADS), len(STREAMS), squeeze=False)
    for line, (head, title) in zip(axes, HEADS.items(), strict=True):
        for ax, (stream, name) in zip(line, STREAMS.items(), strict=True):
            draw_curves(ax, [_curve(done.get(f"{stream}/{method}"), head) for method in methods])
            ax.set_ylim(0, 101)
            ax.set_title(f"{name}, {title}", fontsize=FONT, color=INK, loc="left")
            borders = range(TASKS_OF_KIND, TASKS_OF_KIND * len(KINDS), TASKS_OF_KIND)
            for border in borders if stream == "domains" else ():
                ax.axvline(border + 0.5, color=SOFT, linewidth=0.8, linestyle=":")
    for ax in axes[-1]:
        ax.set_xlabel("tasks learned", fontsize=FONT, color=INK)
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy, %", fontsize=FONT, color=INK)
    handles = [
        Line2D([], [], color=look(place)[0], marker=look(place)[1], label=method)
        for place, method in enumerate(methods)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(PICTURE)


def _curve(entries: Sequence[Mapping[str, Any]] | None, head: str) -> Curve:
    """A method's curve under a head; where it has none, one that cannot be seen keeps its place."""
    entry = next((dict(entry) for entry in entries or () if entry["head"] == head), None)
    if entry is None:
        return Curve("", np.full((1, 1), np.nan), np.full(1, np.nan), np.zeros(1))
    return mean_curve(group([entry])[0])
