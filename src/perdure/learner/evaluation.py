"""How well a classifier does on labelled images: overall, per class and per task."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from perdure.learner.calibration import calibration_error

_MOST = 30
"""Classes in the printed table."""


@dataclass(frozen=True)
class Share:
    """Images of one class or task.

    Attributes:
        images: how many there were.
        correct: how many of them were told right among all classes.
    """

    images: int
    correct: int

    @property
    def accuracy(self) -> float | None:
        """In [0, 1]; None without images."""
        return self.correct / self.images if self.images else None


@dataclass(frozen=True)
class Report:
    """What a classifier gets right on labelled images.

    Attributes:
        head: the head that was asked.
        overall: all images.
        classes: by name, in order of arrival.
        tasks: the same by task, from the first, of classes that are still known.
        calibration_error: expected calibration error of the probabilities, in [0, 1].
        confusion: images per true class (row) and predicted class (column), in order of arrival.
    """

    head: str
    overall: Share
    classes: dict[str, Share]
    tasks: tuple[Share, ...]
    calibration_error: float
    confusion: tuple[tuple[int, ...], ...]

    @property
    def accuracy(self) -> float:
        """Share of all images that were told right."""
        return self.overall.correct / self.overall.images

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON has it; accuracies beside the counts."""
        return {
            **asdict(self),
            "overall": _entry(self.overall),
            "classes": {name: _entry(share) for name, share in self.classes.items()},
            "tasks": [_entry(share) for share in self.tasks],
            "confusion": [list(row) for row in self.confusion],
        }

    def __str__(self) -> str:
        shown = list(self.classes.items())[:_MOST]
        rows = [("class", "images", "accuracy"), ("all", *_cells(self.overall))]
        rows += [(f"task {i}", *_cells(share)) for i, share in enumerate(self.tasks, start=1)]
        rows += [(name, *_cells(share)) for name, share in shown]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            f"{name:<{widths[0]}}  {images:>{widths[1]}}  {accuracy:>{widths[2]}}"
            for name, images, accuracy in rows
        ]
        if len(self.classes) > _MOST:
            lines.append(f"and {len(self.classes) - _MOST} more classes, in .classes")
        error = 100 * self.calibration_error
        lines.append(f"head {self.head}, expected calibration error {error:.1f} points")
        return "\n".join(lines)


def make_report(
    head: str,
    names: tuple[str, ...],
    task_of_class: tuple[int, ...],
    probabilities: Float[Tensor, "n c"],
    labels: Int[Tensor, "n"],
) -> Report:
    """Count what is right.

    Args:
        head: the head that was asked.
        names: of the classes.
        task_of_class: the task that brought each.
        probabilities: of the images.
        labels: their true columns.
    """
    classes = len(names)
    predicted = probabilities.argmax(1)
    confusion = (labels * classes + predicted).bincount(minlength=classes**2).view(classes, classes)
    images, correct = confusion.sum(1).tolist(), confusion.diagonal().tolist()
    tasks = [
        Share(
            sum(images[c] for c in range(classes) if task_of_class[c] == task),
            sum(correct[c] for c in range(classes) if task_of_class[c] == task),
        )
        for task in range(max(task_of_class) + 1)
    ]
    return Report(
        head=head,
        overall=Share(len(labels), int((predicted == labels).sum())),
        classes={name: Share(n, k) for name, n, k in zip(names, images, correct, strict=True)},
        tasks=tuple(tasks),
        calibration_error=calibration_error(probabilities, labels),
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def _entry(share: Share) -> dict[str, Any]:
    return {**asdict(share), "accuracy": share.accuracy}


def _cells(share: Share) -> tuple[str, str]:
    accuracy = share.accuracy
    return str(share.images), "–" if accuracy is None else f"{100 * accuracy:.1f} %"
