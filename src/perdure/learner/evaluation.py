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
from perdure.learner.labelled import NONE, LabelledImages
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
        reject: share of known images that might be given up; None where none was.
        given_up: images of known classes that were rejected.
        unknown: images of `none`, which are of no class; correct are those rejected.
    """

    head: str
    overall: Share
    classes: dict[str, Share]
    tasks: tuple[Share, ...]
    calibration_error: float
    confusion: tuple[tuple[int, ...], ...]
    part: str = ""
    reject: float | None = None
    given_up: int = 0
    unknown: Share = Share(0, 0)

    @property
    def accuracy(self) -> float:
        """Share of all images that were classified correctly."""
        return self.overall.correct / self.overall.images

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; accuracies beside the counts."""
        return {
            **asdict(self),
            "overall": _entry(self.overall),
            "unknown": _entry(self.unknown),
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
        if self.reject is not None:
            told = f"rejected at {self.reject:g}: {self.given_up} of {self.overall.images} known"
            none = f", {self.unknown.correct} of {self.unknown.images} of no class"
            lines.append(f"{told}{none if self.unknown.images else ''}")
        if self.part:
            lines.append(f"counted: {self.part}")
        return "\n".join(lines)


def evaluate(
    state: LearnerState, labelled: LabelledImages, head: str, reject: float | None = None
) -> Report:
    """Accuracy report of an evaluated head on labelled images.

    Raises:
        ConfigError: a share that cannot be rejected.
        StreamError: images of a class that is not known, or none of one that is.
    """
    state.check_reject(reject, head)
    names, images = state.columns.names, labelled.images
    # Images of no class are counted where they can be rejected.
    apart = reject is not None and NONE not in names
    check_known((name for name in labelled.names if not (apart and name == NONE)), names)
    column = torch.tensor([names.index(name) if name in names else -1 for name in labelled.names])
    columns = column[torch.from_numpy(images.labels)]
    known = columns >= 0
    if not known.any():
        raise StreamError(f"All images are of '{NONE}'. Give some of a known class beside them.")
    everything = Subset(images, np.arange(len(images)), columns)
    pixels = (batch.images for batch in ordered_batches(state.model, everything))
    scores, shares = state.familiarity(pixels, head)
    strange = torch.zeros(len(images), dtype=torch.bool)
    if reject is not None and shares is not None:
        strange = shares < reject
    labels, scores = columns[known], scores[known.to(scores.device)]
    probabilities = state.probabilities(scores, head)
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
        reject=reject,
        given_up=int(strange[known].sum()),
        unknown=Share(int((~known).sum()), int(strange[~known].sum())),
    )


def check_known(classes: Iterable[str], known: Sequence[str]) -> None:
    """Refuse classes that were never learned.

    Raises:
        StreamError: there is one.
    """
    for name in classes:
        if name not in known:
            none = " Images of no class are counted with reject=0.05." if name == NONE else ""
            raise StreamError(
                f"The class '{printable(name)}' was never learned.{did_you_mean(name, known)} Known: "
                f"{listed(list(known), 20)}. Leave its images out, or learn it first.{none}"
            )


def _entry(share: Share) -> dict[str, Any]:
    return {**asdict(share), "accuracy": share.accuracy}


def _cells(share: Share) -> tuple[str, str]:
    return str(share.images), per_cent(share.accuracy)
