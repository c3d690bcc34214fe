"""Accuracy report on labelled images: overall, per class and per task, with calibration error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from perdure.engine.survey import ordered_batches
from perdure.errors import StreamError, did_you_mean
from perdure.learner.calibration import calibration_error
from perdure.learner.labelled import LabelledImages
from perdure.learner.state import LearnerState
from perdure.metrics import count_batch
from perdure.streams import Subset
from perdure.wording import listed, per_cent, printable

_SHOWN = 30
"""Classes in the printed table."""


@dataclass(frozen=True)
class Share:
    """Images of one class or task.

    Attributes:
        images: number of images.
        correct: number of images classified correctly among all classes.
    """

    images: int
    correct: int

    @property
    def accuracy(self) -> float | None:
        """In [0, 1]; None without images."""
        return self.correct / self.images if self.images else None


@dataclass(frozen=True)
class Report:
    """Accuracy of a classifier on labelled images.

    Attributes:
        head: the head that predicted.
        overall: all images.
        classes: by name, sorted.
        tasks: the same by task, from the first, of classes that are still known.
        calibration_error: expected calibration error of the probabilities, in [0, 1].
        confusion: images per true class (row) and predicted class (column), sorted.
        part: which images were counted, where the data could tell training from test images.
    """

    head: str
    overall: Share
    classes: dict[str, Share]
    tasks: tuple[Share, ...]
    calibration_error: float
    confusion: tuple[tuple[int, ...], ...]
    part: str = ""

    @property
    def accuracy(self) -> float:
        """Share of all images that were classified correctly."""
        return self.overall.correct / self.overall.images

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; accuracies beside the counts."""
        return {
            **asdict(self),
            "overall": _entry(self.overall),
            "classes": {name: _entry(share) for name, share in self.classes.items()},
            "tasks": [_entry(share) for share in self.tasks],
            "confusion": [list(row) for row in self.confusion],
        }

    def __str__(self) -> str:
        shown = list(self.classes.items())[:_SHOWN]
        rows = [("class", "images", "accuracy"), ("all", *_cells(self.overall))]
        rows += [(f"task {i}", *_cells(share)) for i, share in enumerate(self.tasks, start=1)]
        rows += [(printable(name), *_cells(share)) for name, share in shown]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            f"{name:<{widths[0]}}  {images:>{widths[1]}}  {accuracy:>{widths[2]}}"
            for name, images, accuracy in rows
        ]
        if len(self.classes) > _SHOWN:
            lines.append(f"and {len(self.classes) - _SHOWN} more classes, in .classes")
        error = 100 * self.calibration_error
        lines.append(f"head {self.head}, expected calibration error {error:.1f} points")
        if self.part:
            lines.append(f"counted: {self.part}")
        return "\n".join(lines)


def evaluate(state: LearnerState, labelled: LabelledImages, head: str) -> Report:
    """Accuracy report of an evaluated head on labelled images.

    Raises:
        StreamError: images of a class that is not known.
    """
    names, images = state.columns.names, labelled.images
    check_known(labelled.names, names)
    column = torch.tensor([names.index(name) for name in labelled.names])
    labels = column[torch.from_numpy(images.labels)]
    everything = Subset(images, np.arange(len(images)), labels)
    pixels = (batch.images for batch in ordered_batches(state.model, everything))
    probabilities = state.probabilities(state.scores(pixels, (head,))[head], head)
    task_of_label = {label: task.index for task in state.model.tasks for label in task.classes}
    task_of_class = [task_of_label[state.columns.labels(name)[-1]] for name in names]
    counts = count_batch(probabilities, labels, torch.tensor(task_of_class))
    confusion = counts.confusion
    classes = zip(names, confusion.sum(1).tolist(), confusion.diagonal().tolist(), strict=True)
    return Report(
        head=head,
        overall=Share(len(labels), int(counts.correct.sum())),
        classes={name: Share(images, right) for name, images, right in classes},
        tasks=tuple(map(Share, counts.total[-1].tolist(), counts.correct[-1].tolist())),
        calibration_error=calibration_error(probabilities, labels),
        confusion=tuple(map(tuple, confusion.tolist())),
        part=labelled.part,
    )


def check_known(classes: Iterable[str], known: Sequence[str]) -> None:
    """Refuse classes that were never learned.

    Raises:
        StreamError: there is one.
    """
    for name in classes:
        if name not in known:
            raise StreamError(
                f"The class '{printable(name)}' was never learned.{did_you_mean(name, known)} Known: "
                f"{listed(list(known), 20)}. Leave its images out, or learn it first."
            )


def _entry(share: Share) -> dict[str, Any]:
    return {**asdict(share), "accuracy": share.accuracy}


def _cells(share: Share) -> tuple[str, str]:
    return str(share.images), per_cent(share.accuracy)
