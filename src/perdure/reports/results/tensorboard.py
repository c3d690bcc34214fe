"""The figures of a run as TensorBoard's event files, taken from what the run tells as it goes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

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
    """Give the sink that writes a run's figures and passes events on; closes its files at the end.

    With None for logger events are only passed on. Nothing is created before there is a figure. A
    figure that an interrupted run has written already is left as it is: resuming repeats the steps
    since the last checkpoint with the same results.
    """
    if logger is None:
        yield then
        return
    with ExitStack() as closing:
        write = None
        stages = 0

        def sink(event: Event) -> None:
            nonlocal write, stages
            stages = event.fields.get("stages_done", stages)
            for figure in scalars(event, stages):
                write = write or _open(run / FOLDER, closing)
                write(*figure)
            then(event)

        yield sink


def _open(folder: Path, closing: ExitStack) -> Callable[[str, int, float], None]:
    known = written(folder)
    writing = importlib.import_module("torch.utils.tensorboard")
    writer = writing.SummaryWriter(str(folder))
    closing.callback(writer.close)

    def write(tag: str, step: int, value: float) -> None:
        if (tag, step) not in known:
            writer.add_scalar(tag, value, step)

    return write


def scalars(event: Event, stage: int) -> Iterator[Scalar]:
    """Pick the figures of an event, given how many rounds of training are finished.

    Losses count steps or epochs within their task, everything else the tasks learned.
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
