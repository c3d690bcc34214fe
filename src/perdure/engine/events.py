"""Events of runs and lessons: progress for people, a log for programs (``events.jsonl``)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from perdure.errors import OutputError
from perdure.selection import FIGURES

Kind = Literal[
    "run",
    "note",
    "resume",
    "task",
    "progress",
    "epoch",
    "accuracy",
    "selection",
    "drift",
    "diagnosis",
    "checkpoint",
    "done",
]
_POINT = {
    "stages_done": "rounds of training that are finished",
    "steps_done": "training steps taken in the next one",
}
FIELDS: Mapping[Kind, Mapping[str, str]] = {
    "run": {
        "method": "its name",
        "sizes": "labels per task",
        "classes": "number of classes",
        "domains": "of each task; empty where tasks are formed by classes alone",
    },
    "note": {"text": "what to know of the images or the run"},
    "resume": _POINT,
    "task": {"classes": "names of its classes", "images": "number of training images"},
    "progress": {
        "phase": "training, features, survey, evaluation, diagnosis, or what takes long in words",
        "done": "training steps or batches so far; absent where that is not known",
        "total": "how many there will be; absent where that is not known",
    },
    "epoch": {"epoch": "from 1, within the task", "images_per_second": "of its training steps"},
    "accuracy": {
        "head": "its name",
        "accuracy": "on the test images of all tasks so far; of a lesson, see ``images``",
        "images": "what a lesson was measured on, in words; absent in a run",
        "tasks": "on each task so far, null without test images; absent for a lesson",
    },
    "selection": dict.fromkeys(FIGURES, "see `selection.describe`"),
    "drift": {
        "head": "that followed it",
        "size": "distance that the task's features moved, over their own spread",
        "explained": "share of it that the map tells of images left out; negative where it does harm",
        "ratio": "penalty of the map, over the mean eigenvalue; absent for a mean shift",
        "anchor_explained": "the same of the map from the plain features, where one is used",
    },
    "diagnosis": {
        "task_accuracy": "see `diagnose.Diagnosis`",
        "task_chance": "see `diagnose.Diagnosis`",
        "oracle_accuracy": "see `diagnose.Diagnosis`",
        "all_seen_accuracy": "see `diagnose.Diagnosis`",
    },
    "checkpoint": _POINT,
    "done": {"seconds": "working time, interruptions left out"},
}
"""The fields of each kind of event. ``progress`` of training and ``epoch`` hold losses besides."""


@dataclass(frozen=True)
class Event:
    """Event of a run or a lesson.

    Attributes:
        kind: what happened; ``progress`` events are for display and are not logged.
        task: index of the task it belongs to, where it belongs to one.
        fields: JSON-ready values, by the names in `FIELDS`.
    """

    kind: Kind
    task: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def losses(self) -> dict[str, float]:
        """The terms of the loss by name: of a training step, or their means over an epoch."""
        return {k: v for k, v in self.fields.items() if k not in FIELDS[self.kind]}


Sink = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Event sink that does nothing."""


class EventLog:
    """Event log: appends events to ``events.jsonl``, one line each, and passes them on.

    Args:
        path: the file.
        then: sink that they are passed on to.
    """

    def __init__(self, path: Path, then: Sink = ignore) -> None:
        self._path = path
        self._then = then

    def __call__(self, event: Event) -> None:
        """Log and pass on one event.

        Raises:
            OutputError: the log cannot be written.
        """
        if event.kind != "progress":
            line = {"time": round(time.time(), 3), "kind": event.kind, "task": event.task}
            try:
                with self._path.open("a", encoding="utf-8") as log:
                    log.write(json.dumps({**line, **event.fields}) + "\n")
            except OSError as error:
                raise OutputError(
                    f"'{self._path}' cannot be written ({error.strerror}). Free some space or choose "
                    "another --out, then go on with --resume."
                ) from error
        self._then(event)
