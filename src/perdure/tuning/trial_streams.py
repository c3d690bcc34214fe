"""Streams of trials: validation images for test images, and a first task cut into pseudo-tasks."""

from __future__ import annotations

import dataclasses
import itertools

from perdure.engine.build import make_stream, with_text
from perdure.engine.config import Config
from perdure.errors import StreamError
from perdure.streams import Stream, Subset, TaskData
from perdure.types import Task
from perdure.wording import counted

FEWEST = 2
"""Classes of a pseudo-task, and pseudo-tasks of a first task, at least."""
PSEUDO_TASKS = 5
"""Of a first task, at most."""


def validation_stream(config: Config) -> Stream:
    """Return the stream with validation images in place of test images.

    Raises:
        StreamError: a class with a single image, which cannot be split.
        ConfigError: what a run would refuse.
    """
    stream = with_text(make_stream(config), config)
    tasks = []
    for data in stream.tasks:
        assert data.val is not None  # a search always holds images out
        tasks.append(dataclasses.replace(data, test=data.val))
    return dataclasses.replace(stream, tasks=tuple(tasks))


def first_task_stream(stream: Stream) -> Stream:
    """Return the stream's first task alone, cut into pseudo-tasks of its own classes.

    They are as many as the stream has tasks, but two at least and five at most, of two classes or
    more and as equal as can be, the larger first.

    Raises:
        StreamError: fewer than four classes.
    """
    data = stream.tasks[0]
    classes = len(data.task.classes)
    if classes < FEWEST * FEWEST:
        raise StreamError(
            f"The first task has {counted(classes, 'class', 'classes')}: two pseudo-tasks need "
            f"{FEWEST * FEWEST}. Judge settings on another stream, as --on data=digits tasks=B0-Inc2."
        )
    count = max(FEWEST, min(len(stream.tasks), PSEUDO_TASKS, classes // FEWEST))
    sizes = tuple(classes // count + (place < classes % count) for place in range(count))
    tasks = []
    for index, end in enumerate(itertools.accumulate(sizes)):
        first = end - sizes[index]
        text = data.task.text_features
        task = Task(
            index,
            tuple(range(first, end)),
            data.task.names[first:end],
            end,
            None if text is None else text[first:end],
        )
        train, test = (_between(subset, first, end) for subset in (data.train, data.test))
        tasks.append(TaskData(task, train, None, test))
    return dataclasses.replace(
        stream,
        class_names=stream.class_names[:classes],
        class_order=stream.class_order[:classes],
        sizes=sizes,
        tasks=tuple(tasks),
        domains=(),
        repeats=False,
    )


def _between(subset: Subset, first: int, end: int) -> Subset:
    """Images of some labels, from the first to before the end."""
    kept = (subset.labels >= first) & (subset.labels < end)
    return Subset(subset.images, subset.indices[kept.numpy()], subset.labels[kept])
