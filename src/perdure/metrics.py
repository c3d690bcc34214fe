"""Every metric of a continual run, from integer counts; fractions in [0, 1], never per cent.

Notation of the papers: a_{j,i} is the accuracy on the test images of task i after learning task j,
with j, i from 1 to T. A metric that needs a row which was not evaluated (``joint``, trained once at
the end, has only row T) is None. A task without test images has no accuracy: its column is None,
metrics weighted by images pass over it, and every mean over tasks is None rather than a mean over
fewer tasks than its name promises.

Where a stream shows the same classes again in other domains, a class has an output in every domain.
A prediction is right when its class is, whatever the domain; "task" then reads "domain", and the
prediction restricted to an image's own domain may be wrong where the unrestricted one is right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

if TYPE_CHECKING:  # reports read metrics without waiting for torch
    from torch import Tensor

Row = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class BatchCounts:
    """What a head got right on some test images; counts of two batches add with ``+``.

    Attributes:
        correct: per task seen, images whose predicted class among all seen classes is the label.
        within_task_correct: the same with the prediction restricted to the classes of the image's
            own task; never below ``correct`` unless classes repeat.
        right_task: images whose predicted class belongs to their own task; likewise.
        total: images per task.
        confusion: images per (label, predicted class).
    """

    correct: Int64[np.ndarray, "t"]
    within_task_correct: Int64[np.ndarray, "t"]
    right_task: Int64[np.ndarray, "t"]
    total: Int64[np.ndarray, "t"]
    confusion: Int64[np.ndarray, "c c"]

    def __add__(self, other: BatchCounts) -> BatchCounts:
        """Return the counts of both batches; both must have seen the same classes."""
        return BatchCounts(
            self.correct + other.correct,
            self.within_task_correct + other.within_task_correct,
            self.right_task + other.right_task,
            self.total + other.total,
            self.confusion + other.confusion,
        )


def count_batch(
    logits: Float[Tensor, "b c"],
    labels: Int[Tensor, "b"],
    task_of_class: Int[Tensor, "c"],
    class_of: Int[Tensor, "c"] | None = None,
) -> BatchCounts:
    """Count what one batch of test images got right; of equal logits the lowest label wins.

    An image is predicted in its own task exactly when both predictions agree, so ``correct`` is
    what ``within_task_correct`` and ``right_task`` have in common, unless classes repeat.

    Args:
        logits: one row per image over all labels seen so far.
        labels: of the images, each in [0, c).
        task_of_class: the task that brought each label, from 0; on any device.
        class_of: the class of each label, from 0 and in order of arrival, where a class may have
            several; the label itself by default.

    Raises:
        ValueError: a label is outside the classes seen.
    """
    classes = task_of_class.shape[0]
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels reach from {int(labels.min())} to {int(labels.max())}, "
            f"but the logits cover classes 0 to {classes - 1}"
        )
    labels = labels.to(logits.device)
    tasks = task_of_class.to(logits.device)
    own = tasks[labels]
    predicted = logits.argmax(1)
    restricted = logits.masked_fill(tasks[None, :] != own[:, None], -math.inf).argmax(1)
    count = int(tasks.max()) + 1 if classes else 0

    def per_task(chosen: Tensor) -> Int64[np.ndarray, "t"]:
        counted: np.ndarray = own[chosen].bincount(minlength=count).cpu().numpy()
        return counted

    side, true, guessed = classes, labels, predicted
    if class_of is not None:
        class_of = class_of.to(logits.device)
        side, true, guessed = int(class_of.max()) + 1, class_of[labels], class_of[predicted]
    pairs = (true * side + guessed).bincount(minlength=side * side)
    return BatchCounts(
        correct=per_task(true == guessed),
        within_task_correct=per_task(restricted == labels),
        right_task=per_task(tasks[predicted] == own),
        total=per_task(labels >= 0),
        confusion=pairs.reshape(side, side).cpu().numpy(),
    )


@dataclass(frozen=True, eq=False)
class Counts:
    """What one head got right over a whole run: T rows, row j holding tasks 1 to j.

    Attributes:
        correct: row j, column i: images of task i right among all classes seen after task j;
            a row that was not evaluated is None.
        within_task_correct: the same with the prediction restricted to task i's classes.
        right_task: images of task i whose predicted class belongs to task i.
        total: test images per task; 0 is allowed and makes that task's accuracy None.
        confusion: after the last task, images per (true class, predicted class), both in order of
            arrival; None where it was not collected.
        repeats: whether the same class comes in several tasks.

    Raises:
        ValueError: rows or counts do not fit together.
    """

    correct: tuple[Row | None, ...]
    within_task_correct: tuple[Row | None, ...]
    right_task: tuple[Row | None, ...]
    total: Row
    confusion: Int64[np.ndarray, "c c"] | None = None
    repeats: bool = False

    def __post_init__(self) -> None:
        """Check that every row fits the others."""
        if not self.total:
            raise ValueError("counts hold no task; at least one is needed")
        for name in ("correct", "within_task_correct", "right_task"):
            _check_rows(name, getattr(self, name), self.correct, self.total, self.repeats)
        last = self.correct[-1]
        if self.confusion is None or last is None:
            return
        found = (int(self.confusion.sum()), int(np.trace(self.confusion)))
        if found != (sum(self.total), sum(last)):
            raise ValueError(
                f"the confusion matrix holds {found[0]} images, {found[1]} of them right; "
                f"the last row holds {sum(self.total)} and {sum(last)}"
            )

    @classmethod
    def from_rows(cls, rows: Sequence[BatchCounts | None], repeats: bool = False) -> Counts:
        """Join the counts taken after each task.

        Args:
            rows: entry j holds all test images of the tasks up to j; None where task j was not
                followed by an evaluation. The last one is needed.
            repeats: whether the same class comes in several tasks.

        Raises:
            ValueError: the last row is missing, or the test images of a task changed.
        """
        last = rows[-1] if rows else None
        if last is None:
            raise ValueError("the counts after the last task are missing")
        total = tuple(last.total.tolist())
        for after, row in enumerate(rows):
            if row is not None and tuple(row.total.tolist()) != total[: after + 1]:
                raise ValueError(
                    f"after task {after + 1} the test images per task are {row.total.tolist()}, "
                    f"after the last {list(total[: after + 1])}; they must not change"
                )

        def rows_of(name: str) -> tuple[Row | None, ...]:
            return tuple(None if r is None else tuple(getattr(r, name).tolist()) for r in rows)

        return cls(
            correct=rows_of("correct"),
            within_task_correct=rows_of("within_task_correct"),
            right_task=rows_of("right_task"),
            total=total,
            confusion=last.confusion,
            repeats=repeats,
        )


def _check_rows(
    name: str,
    rows: Sequence[Row | None],
    correct: Sequence[Row | None],
    total: Row,
    repeats: bool,
) -> None:
    if len(rows) != len(total):
        raise ValueError(f"{name} has {len(rows)} rows for {len(total)} tasks")
    for after, (row, least) in enumerate(zip(rows, correct, strict=True)):
        if (row is None) != (least is None):
            raise ValueError(f"row {after + 1} is in only one of {name} and correct")
        if row is None or least is None:
            continue
        if len(row) != after + 1:
            raise ValueError(f"row {after + 1} of {name} has {len(row)} values, not {after + 1}")
        for on, (value, low, high) in enumerate(zip(row, least, total, strict=False)):
            least_allowed = 0 if repeats else max(0, low)
            if not least_allowed <= value <= high:
                raise ValueError(
                    f"{name} after task {after + 1} on task {on + 1} is {value}; "
                    f"allowed: {least_allowed} to {high}"
                )


def accuracy_matrix(counts: Counts) -> Float64[np.ndarray, "t t"]:
    """Return a_{j,i}; NaN above the diagonal, in rows not evaluated, for tasks without images."""
    tasks = len(counts.total)
    matrix = np.full((tasks, tasks), np.nan)
    for after, row in enumerate(counts.correct):
        for on, right in enumerate(row or ()):
            matrix[after, on] = right / counts.total[on] if counts.total[on] else np.nan
    return matrix


def accuracy_curve(counts: Counts) -> Float64[np.ndarray, "t"]:
    """Return the accuracy over all test images of the classes seen after each task, in [0, 1]."""
    return np.array([_weighted(row, counts.total) for row in counts.correct], dtype=np.float64)


def last_accuracy(counts: Counts) -> float:
    """Return A_T: the accuracy over all test images after the last task, in [0, 1]."""
    return _weighted(counts.correct[-1], counts.total)


def last_accuracy_task_mean(counts: Counts) -> float:
    """Return mean_i a_{T,i}: every task weighs the same, whatever its number of images."""
    return float(accuracy_matrix(counts)[-1].mean())


def average_incremental_accuracy(counts: Counts) -> float:
    """Return Ā: the mean of the accuracy curve; NaN when a row is missing."""
    return float(accuracy_curve(counts).mean())


def forgetting(counts: Counts) -> float:
    """Return mean_{i<T}(max_{j≤T−1} a_{j,i} − a_{T,i}), in [−1, 1]; NaN for a single task.

    Negative where the last task helped the old ones; never below minus ``backward_transfer``.
    """
    return _mean(forgetting_per_task(accuracy_matrix(counts)))


def forgetting_reference(counts: Counts) -> float:
    """Return ``forgetting`` with j ≤ T, in [0, 1]: tasks that gained count as zero.

    Never below ``forgetting``; NaN for a single task.
    """
    return _mean(forgetting_per_task(accuracy_matrix(counts), last_counts=True))


def backward_transfer(counts: Counts) -> float:
    """Return mean_{i<T}(a_{T,i} − a_{i,i}), in [−1, 1]; NaN for a single task."""
    matrix = accuracy_matrix(counts)
    return _mean((matrix[-1] - matrix.diagonal())[:-1])


def plasticity(counts: Counts) -> float:
    """Return mean_i a_{i,i}: how well each task is known just after learning it, in [0, 1]."""
    return _mean(accuracy_matrix(counts).diagonal())


def within_task_accuracy(counts: Counts) -> float:
    """Return the last accuracy were each image's task given, in [0, 1]; what the features allow."""
    return _weighted(counts.within_task_correct[-1], counts.total)


def task_inference_accuracy(counts: Counts) -> float:
    """Return how often the class predicted last belongs to the image's own task, in [0, 1]."""
    return _weighted(counts.right_task[-1], counts.total)


def per_class_accuracy(counts: Counts) -> Float64[np.ndarray, "c"]:
    """Return the accuracy per class after the last task; NaN for a class without test images.

    Empty where no confusion matrix was collected.
    """
    if counts.confusion is None:
        return np.empty(0)
    images = counts.confusion.sum(1)
    tested = images > 0
    accuracy = np.full(len(images), np.nan)
    accuracy[tested] = counts.confusion.diagonal()[tested] / images[tested]
    return accuracy


_NUMBERS = (
    last_accuracy,
    last_accuracy_task_mean,
    average_incremental_accuracy,
    forgetting,
    forgetting_reference,
    backward_transfer,
    plasticity,
    within_task_accuracy,
    task_inference_accuracy,
)
SCALARS = tuple(metric.__name__ for metric in _NUMBERS)
"""The metrics that are one number."""


def summarise(counts: Counts) -> dict[str, Any]:
    """Return every metric by its name, ready for JSON: plain floats and lists, NaN as None.

    Keys: ``SCALARS``, ``accuracy_matrix`` (T lists of T, None above the diagonal),
    ``accuracy_curve`` (T), ``per_class_accuracy`` (C) and ``confusion`` (C lists of C counts); the
    last two are None where no confusion matrix was collected.
    """
    confusion = counts.confusion
    return {
        "accuracy_matrix": [[_plain(a) for a in row] for row in accuracy_matrix(counts)],
        **{metric.__name__: _plain(metric(counts)) for metric in _NUMBERS},
        "accuracy_curve": [_plain(a) for a in accuracy_curve(counts)],
        "per_class_accuracy": (
            None if confusion is None else [_plain(a) for a in per_class_accuracy(counts)]
        ),
        "confusion": None if confusion is None else confusion.tolist(),
    }


def aggregate(summaries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | int | None]]:
    """Return mean, standard deviation and number of seeds of every metric in ``SCALARS``.

    Args:
        summaries: one per seed, as ``summarise`` gives them; other keys are passed over.

    Returns:
        Per metric ``{"mean": …, "std": …, "n": …}``: n counts the seeds that have the metric, the
        standard deviation divides by n − 1 and is None below two of them, the mean at none.
    """
    return {name: spread([summary.get(name) for summary in summaries]) for name in SCALARS}


def spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Return mean, sample standard deviation and number of the values that are not None."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    return {
        "mean": float(known.mean()) if len(known) else None,
        "std": float(known.std(ddof=1)) if len(known) > 1 else None,
        "n": len(known),
    }


def _weighted(row: Row | None, total: Row) -> float:
    images = sum(total[: len(row)]) if row is not None else 0
    return sum(row) / images if row is not None and images else math.nan


def forgetting_per_task(
    matrix: Float64[np.ndarray, "t t"], *, last_counts: bool = False
) -> Float64[np.ndarray, "o"]:
    """Return max_j a_{j,i} − a_{T,i} of every task i < T, of which ``forgetting`` is the mean.

    Args:
        matrix: a_{j,i}, NaN where unknown.
        last_counts: whether the maximum includes j = T, as in ``forgetting_reference``.
    """
    tasks = len(matrix)
    stop = tasks if last_counts else tasks - 1
    best = [matrix[on:stop, on].max() for on in range(tasks - 1)]
    lost: np.ndarray = np.array(best, np.float64) - matrix[-1, :-1]
    return lost


def _mean(values: Float64[np.ndarray, "n"]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
