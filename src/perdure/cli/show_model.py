"""``perdure show MODEL``: what a saved model knows and what it has been through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from perdure.cli.output import print_columns, print_fields
from perdure.learner.history import SHARES, Lesson
from perdure.learner.saved.contents import read_contents
from perdure.learner.separation import KEPT, described_separations
from perdure.wording import listed, per_cent, printable

MOST_CLASSES = 20


def describe_model(folder: Path) -> dict[str, Any]:
    """Return everything that a model's folder says of itself.

    Raises:
        CheckpointError: a file is missing or damaged, or the format is newer.
    """
    contents = read_contents(folder)
    sizes = contents.sizes
    about, history = contents.description, contents.description.history
    return {
        "kind": "model",
        "name": str(folder),
        "method": about.config["method"],
        "heads": list(contents.config().head_names),
        "backbone": about.backbone.name,
        "backbone_sha256": about.backbone.sha256,
        "classes": list(contents.known),
        "forgotten": list(contents.forgotten),
        "lessons": [asdict(lesson) for lesson in history.lessons],
        "curve": _curve(contents.known, history.lessons),
        "temperatures": history.temperatures,
        "unknown": described_separations(history.separations),
        "can_learn_on": not about.inference_only,
        "bytes": asdict(sizes),
        "size": str(sizes),
        "format": about.format,
        "written_by": about.perdure,
        "preset": about.preset,
        "config": about.config,
    }


def print_model(item: dict[str, Any]) -> None:
    """Print what `describe_model` returned."""
    names = item["classes"]
    fields = [
        ("model", item["name"]),
        ("method", item["method"]),
        ("heads", ", ".join(item["heads"])),
        ("backbone", f"{item['backbone']} (sha256 {item['backbone_sha256'][:12]}…)"),
        ("preset", item["preset"]),
        ("classes", f"{len(names)}: {listed(names, 20)}"),
        ("forgotten", ", ".join(item["forgotten"])),
        ("size", item["size"]),
        ("learns on", "yes" if item["can_learn_on"] else "no, it was saved for inference only"),
        ("format", f"{item['format']}, written by perdure {item['written_by'] or '(not noted)'}"),
    ]
    print_fields([(name, value) for name, value in fields if value])
    if item["lessons"]:
        print()
        print_lessons(item)
    _print_separations(item["unknown"])
    _print_curve(item["curve"])


def print_lessons(item: dict[str, Any]) -> None:
    """Print the lessons of what `describe_model` returned."""
    rows = [
        [
            str(number),
            ", ".join(lesson["new"]) or "–",
            f"{sum(lesson['images'].values()):,}",
            f"{lesson['held_out'] or lesson['left_out']:,}",
            *(per_cent(lesson["accuracy"].get(head)) for head in item["heads"]),
            *(per_cent(lesson["calibration_error"].get(head)) for head in item["heads"]),
        ]
        for number, lesson in enumerate(item["lessons"], start=1)
    ]
    scores = [
        f"{head}: {what}" for what in ("accuracy", "calibration error") for head in item["heads"]
    ]
    print_columns(["lesson", "new classes", "images", "measured on", *scores], rows)


def _curve(known: Sequence[str], lessons: Sequence[Lesson]) -> dict[str, dict[str, Any]]:
    """By class that is known, the learning curve of the last lesson that measured it."""
    found: dict[str, dict[str, Any]] = {}
    for lesson in lessons:
        for name in lesson.curve:
            points = lesson.curve[name]
            half, whole = points[-2:]
            gain = None if half is None or whole is None else whole - half
            images = lesson.images[name]
            found[name] = {"images": images, "accuracy": list(points), "last_doubling": gain}
    return {name: found[name] for name in known if name in found}


def _print_curve(curve: dict[str, dict[str, Any]]) -> None:
    """Print the classes to which more images brought most, first."""
    rows = [(name, row) for name, row in curve.items() if row["last_doubling"] is not None]
    rows.sort(key=lambda pair: (-pair[1]["last_doubling"], pair[1]["accuracy"][-1]))
    if not rows:
        return
    print()
    shares = [f"at {per_cent(share, 0)} of them" for share in SHARES]
    print_columns(
        ["class", "images", *shares, "last doubling"],
        [
            [
                printable(name),
                f"{row['images']:,}",
                *map(per_cent, row["accuracy"]),
                f"{100 * row['last_doubling']:+.1f}",
            ]
            for name, row in rows[:MOST_CLASSES]
        ],
    )
    more = f"; {len(rows) - MOST_CLASSES} more with --json" if len(rows) > MOST_CLASSES else ""
    print(
        "Accuracy of each class's images, left out in turn, when so many of its last lesson are known: "
        f"more images help most where the last doubling did{more}."
    )


def _print_separations(unknown: dict[str, list[dict[str, Any]]]) -> None:
    rows = [
        [
            head,
            f"{row['score']}{' (used)' if row['used'] else ''}",
            f"{row['known']:,}",
            f"{row['unknown']:,}",
            f"{row['negatives']:,}",
            per_cent(row["auroc"]),
            per_cent(row["accepted"]),
        ]
        for head, scores in unknown.items()
        for row in scores
    ]
    if rows:
        print()
        kept = f"accepted at {per_cent(KEPT, 0)} kept"
        heads = ["head", "unknown by", "known", "classes left out", "none", "AUROC", kept]
        print_columns(heads, rows)
