"""What a run tells while it goes: progress for people, a log for programs."""

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
    """Something that happened.

    Attributes:
        kind: what happened; ``progress`` events are for display and are not logged.
        task: index of the task it belongs to, where it belongs to one.
        fields: JSON-ready values.
    """

    kind: Kind
    task: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


Sink = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Take an event and do nothing."""


class EventLog:
    """Appends events to ``events.jsonl``, one line each, and passes them on.

    Args:
        path: the file.
        then: the sink that also wants them.
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
