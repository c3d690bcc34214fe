"""Events of runs and lessons: progress for people, a log for programs (``events.jsonl``).

| kind | task | fields |
| --- | --- | --- |
| `run` | | method, sizes, classes, domains |
| `note` | | text |
| `resume` | | stages_done, steps_done |
| `task` | its index | classes (names), images |
| `progress` | its index, if any | phase, done, total; in training the loss terms; not logged |
| `epoch` | its index | epoch, images_per_second, means of the loss terms |
| `accuracy` | the last one learned | head, accuracy; in runs tasks (accuracy on each) |
| `selection` | the last one learned | the figures of `perdure.selection` |
| `diagnosis` | | the attributes of `perdure.engine.diagnose.Diagnosis` |
| `checkpoint` | | stages_done, steps_done |
| `done` | | seconds |
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from perdure.errors import OutputError

Kind = Literal[
    "run",
    "note",
    "resume",
    "task",
    "progress",
    "epoch",
    "accuracy",
    "selection",
    "diagnosis",
    "checkpoint",
    "done",
]


@dataclass(frozen=True)
class Event:
    """Event of a run; its kinds and fields stand at the head of this module.

    Attributes:
        kind: kind of event.
        task: index of a task; None where the event belongs to none.
        fields: JSON-ready values.
    """

    kind: Kind
    task: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


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
