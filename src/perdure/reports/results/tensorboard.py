"""The figures of a run as TensorBoard's event files, taken from what the run tells as it goes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perdure.engine.events import Event, Sink, ignore
from perdure.errors import ConfigError

FOLDER = "tensorboard"
"""Where they lie in a run's folder."""
Scalar = tuple[str, int, float]
"""Tag, step, value."""


def check_logger(logger: str | None) -> None:
    """Refuse a logger whose package is missing.

    Raises:
        ConfigError: it is.
    """
    if logger is None:
        return
    try:
        importlib.import_module("torch.utils.tensorboard")
        importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    except ImportError as error:
        raise ConfigError(
            "logger=tensorboard needs tensorboard. Type: pip install 'perdure[tensorboard]', or "
            "leave logger out."
        ) from error


@contextmanager
def logged(logger: str | None, run: Path, then: Sink = ignore) -> Iterator[Sink]:
    """Give the sink that writes a run's figures, and close its files at the end.

    Args:
        logger: ``tensorboard``, or None for nothing but passing events on.
        run: the run's folder; nothing is created in it before there is a figure.
        then: the sink that also wants the events.
    """
    if logger is None:
        yield then
        return
    log = ScalarLog(run / FOLDER, then)
    try:
        yield log
    finally:
        log.close()


class ScalarLog:
    """Writes an event's figures and passes the event on.

    A figure that an interrupted run has written already is left as it is: resuming repeats the
    steps since the last checkpoint with the same results.

    Args:
        folder: folder of the event files.
        then: the sink that also wants the events.
    """

    def __init__(self, folder: Path, then: Sink = ignore) -> None:
        self._folder, self._then = folder, then
        self._stage = 0
        self._writer: Any = None
        self._written: set[tuple[str, int]] = set()

    def __call__(self, event: Event) -> None:
        """Write and pass on one event."""
        if event.kind in ("checkpoint", "resume"):
            self._stage = event.fields["stages_done"]
        for tag, step, value in scalars(event, self._stage):
            self._write(tag, step, value)
        self._then(event)

    def close(self) -> None:
        """Write out what is waiting."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, tag: str, step: int, value: float) -> None:
        if self._writer is None:
            self._written = set(written(self._folder))
            writing = importlib.import_module("torch.utils.tensorboard")
            self._writer = writing.SummaryWriter(str(self._folder))
        if (tag, step) not in self._written:
            self._writer.add_scalar(tag, value, step)


def scalars(event: Event, stage: int) -> Iterator[Scalar]:
    """Pick the figures of an event.

    Losses count steps or epochs within their task, everything else the tasks learned.

    Args:
        event: event of a run.
        stage: rounds of training that are finished.
    """
    fields = event.fields
    during = f"task_{stage + 1:02d}"
    learned = 0 if event.task is None else event.task + 1
    if event.kind == "progress":  # only training has losses
        for name, loss in event.losses.items():
            yield f"loss/{name}/{during}", fields["done"], loss
    elif event.kind == "epoch":
        yield f"images_per_second/{during}", fields["epoch"], fields["images_per_second"]
        for name, loss in event.losses.items():
            yield f"epoch_loss/{name}/{during}", fields["epoch"], loss
    elif event.kind == "accuracy":
        yield f"accuracy/{fields['head']}/all", learned, fields["accuracy"]
        for task, share in enumerate(fields["tasks"], start=1):
            if share is not None:
                yield f"accuracy/{fields['head']}/task_{task:02d}", learned, share
    elif event.kind == "selection":
        yield from ((f"selection/{name}", learned, value) for name, value in fields.items())


def written(folder: Path) -> dict[tuple[str, int], float]:
    """Read the figures in a folder's event files, by tag and step."""
    if not folder.is_dir():
        return {}
    reading = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reading.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        (tag, one.step): one.value
        for tag in events.Tags()["scalars"]
        for one in events.Scalars(tag)
    }
