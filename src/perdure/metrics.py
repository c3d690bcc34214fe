"""Metrics of a continual run, from integer counts; fractions in [0, 1], never per cent.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

if TYPE_CHECKING:  # reports read metrics without waiting for torch
    from torch import Tensor

COUNTED = ("correct", "within_task_correct", "right_task")
"""Tables of what is counted of the images of a task, of which ``total`` is the number."""
_TABLES = (*COUNTED, "total")
MOST_CLASSES = 1_000
"""Classes up to which a summary lists the images of every pair of classes."""


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of correct predictions of one head, by task learned and task evaluated.

    One evaluation, after task j, is one row of t = j columns. ``+`` adds the counts of two batches of
    one evaluation, and puts the rows of evaluations after different tasks under each other.

    Attributes:
        after: of each row, the task (from 0) after which it was counted; ascending, t − 1 the last.
        correct: images of each task whose predicted class among all seen classes is the label; 0
            for tasks not yet learned.
        within_task_correct: the same with the prediction restricted to the classes of the image's
            own task; never below ``correct`` unless classes repeat.
        right_task: images whose predicted class belongs to their own task; never below ``correct``
            unless classes repeat.
        total: images that were predicted; 0 makes the task's accuracy unknown.
        confused: of the last row, its pairs of a true and a predicted class, in order of arrival, each
            with its number of images, which is never 0: as many rows as pairs came up, sorted.
        classes: number of classes seen.
        repeats: whether the same class comes in several tasks.

    Raises:
        ValueError: the tables do not fit together.
    """

    after: Int64[np.ndarray, "r"]
    correct: Int64[np.ndarray, "r t"]
    within_task_correct: Int64[np.ndarray, "r t"]
    right_task: Int64[np.ndarray, "r t"]
    total: Int64[np.ndarray, "r t"]
    confused: Int64[np.ndarray, "p 3"]
    classes: int
    repeats: bool = False

    def __post_init__(self) -> None:
        """Check the shapes of the tables against each other."""
        if not len(self.after) or self.after[-1] != self.tasks - 1:
            raise ValueError("the counts after the last task are missing")
        last = self.total[-1]
        expected = np.where(np.arange(self.tasks) <= self.after[:, None], last, 0)
        for row in np.flatnonzero((self.total != expected).any(1)):
            raise ValueError(
                f"after task {self.after[row] + 1} the test images per task are "
                f"{self.total[row].tolist()}, after the last {last.tolist()}; they must not change"
            )
        for name in COUNTED:
            self._check_bounds(name)
        true, predicted, images = self.confused.T
        totals = (images.sum(), images[true == predicted].sum())
        if totals != (last.sum(), self.correct[-1].sum()):
            raise ValueError(
                f"the confusion holds {totals[0]} images, {totals[1]} of them right; "
                f"the last row holds {last.sum()} and {self.correct[-1].sum()}"
            )

    def _check_bounds(self, name: str) -> None:
        table = getattr(self, name)
        least = np.zeros_like(table) if self.repeats or name == "correct" else self.correct
        for row, on in np.argwhere((table < least) | (table > self.total)):
            raise ValueError(
                f"{name} after task {self.after[row] + 1} on task {on + 1} is {table[row, on]}; "
                f"allowed: {least[row, on]} to {self.total[row, on]}"
            )

    def __add__(self, other: Counts) -> Counts:
        """Return the counts of both; of two numbers of tasks, the confusions of the larger."""
        after = np.union1d(self.after, other.after)
        tasks = max(self.tasks, other.tasks)
        ours, theirs = (np.searchsorted(after, part.after) for part in (self, other))
        tables = {name: np.zeros((len(after), tasks), np.int64) for name in _TABLES}
        for name, table in tables.items():
            table[ours, : self.tasks] = getattr(self, name)
            table[theirs, : other.tasks] += getattr(other, name)
        latest = [part for part in (self, other) if part.tasks == tasks]
        classes = max(part.classes for part in latest)
        confused = _summed(np.concatenate([part.confused for part in latest]), classes)
        repeats = self.repeats or other.repeats
        return Counts(after, **tables, confused=confused, classes=classes, repeats=repeats)

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counts) and all(
            np.array_equal(value, vars(other)[name]) for name, value in vars(self).items()
        )

    @property
    def tasks(self) -> int:
        """Number of tasks learned."""
        return int(self.total.shape[1])

    @property
    def confusion(self) -> Int64[np.ndarray, "c c"]:
        """Images per true class (down) and predicted class (across), in order of arrival."""
        square = np.zeros((self.classes, self.classes), np.int64)
        square[self.confused[:, 0], self.confused[:, 1]] = self.confused[:, 2]
        return square


def _summed(rows: Int64[np.ndarray, "n 3"], classes: int) -> Int64[np.ndarray, "p 3"]:
    """Return each pair of a true and a predicted class once, sorted, with the sum of its images."""
    true, predicted, images = rows.T
    pairs, places = np.unique(true * classes + predicted, return_inverse=True)
    sums = np.zeros(len(pairs), np.int64)
    np.add.at(sums, places, images)
    return np.stack([*divmod(pairs, classes), sums], axis=1)


def count_batch(
    logits: Float[Tensor, "b c"],
    labels: Int[Tensor, "b"],
    task_of_class: Int[Tensor, "c"],
    class_of: Int[Tensor, "c"] | None = None,
) -> Counts:
    """Count correct predictions in a batch of test images; of equal logits the lowest label wins.

    An image is predicted in its own task exactly when both predictions agree, so ``correct`` is
    what ``within_task_correct`` and ``right_task`` have in common, unless classes repeat.

    Args:
        logits: one row per image over all labels seen so far, at least one.
        labels: labels of the images, each in [0, c).
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
    count = int(tasks.max()) + 1

    def per_task(chosen: Tensor) -> Int64[np.ndarray, "1 t"]:
        counted: np.ndarray = own[chosen].bincount(minlength=count).cpu().numpy()
        return counted[None]

    side, true, guessed = classes, labels, predicted
    if class_of is not None:
        class_of = class_of.to(logits.device)
        side, true, guessed = int(class_of.max()) + 1, class_of[labels], class_of[predicted]
    columns = [one.long().cpu().numpy() for one in (true, guessed)]
    pairs = np.stack([*columns, np.ones(len(labels), np.int64)], axis=1)
    return Counts(
        after=np.array([count - 1]),
        correct=per_task(true == guessed),
        within_task_correct=per_task(restricted == labels),
        right_task=per_task(tasks[predicted] == own),
        total=per_task(labels >= 0),
        confused=_summed(pairs, side),
        classes=side,
        repeats=side < classes,
    )


Function = TypeVar("Function", bound=Callable[[Counts], float])


@dataclass(frozen=True)
class Metric:
    """A metric of a run: function, range, better direction and titles for tables and reports.

    Attributes:
        function: its definition; NaN where it is unknown.
        title: title of its column, with the unit: all values are shown times 100.
        better: which way is better.
        low: its smallest value.
        high: its largest value.
        narrow: the title in lines for a terminal of 80 columns; empty for a metric that only
            `results.json` and reports show.
    """

    function: Callable[[Counts], float]
    title: str
    better: Literal["higher", "lower"] = "higher"
    low: float = 0.0
    high: float = 1.0
    narrow: str = ""


METRICS: dict[str, Metric] = {}
"""Every metric that is one number, by its key in ``results.json``, in the order of their columns."""


def metric(title: str, **row: Any) -> Callable[[Function], Function]:
    """Return a decorator that makes a function one of `METRICS`, under its own name.

    Args:
        title: of its column, with the unit.
        **row: what else differs from the defaults of `Metric`.

    Raises:
        ValueError: the name is taken.

    Examples:
        >>> @metric("first task %")
        ... def first_task_accuracy(counts: Counts) -> float:
        ...     return float(accuracy_matrix(counts)[-1, 0])
        >>> METRICS.pop("first_task_accuracy").title
        'first task %'
    """

    def add(function: Function) -> Function:
        if function.__name__ in METRICS:
            raise ValueError(f"metric '{function.__name__}' is registered twice")
        METRICS[function.__name__] = Metric(function, title, **row)
        return function

    return add


def accuracy_matrix(counts: Counts) -> Float64[np.ndarray, "t t"]:
    """Return a_{j,i}; NaN above the diagonal, in rows not evaluated, for tasks without images."""
    matrix = np.full((counts.tasks, counts.tasks), np.nan)
    matrix[counts.after] = _shares(counts.correct, counts.total)
    return matrix


def accuracy_curve(counts: Counts) -> Float64[np.ndarray, "t"]:
    """Return the accuracy over all test images of the classes seen after each task, in [0, 1]."""
    curve = np.full(counts.tasks, np.nan)
    curve[counts.after] = _shares(counts.correct.sum(1), counts.total.sum(1))
    return curve


@metric("last acc %", narrow="last\nacc %")
def last_accuracy(counts: Counts) -> float:
    """Return A_T: the accuracy over all test images after the last task, in [0, 1]."""
    return float(accuracy_curve(counts)[-1])


@metric("last acc, task mean %")
def last_accuracy_task_mean(counts: Counts) -> float:
    """Return mean_i a_{T,i}: every task weighs the same, whatever its number of images."""
    return _mean(accuracy_matrix(counts)[-1])


@metric("avg incremental %", narrow="avg\nincre-\nmental\n%")
def average_incremental_accuracy(counts: Counts) -> float:
    """Return Ā: the mean of the accuracy curve; NaN when a row is missing."""
    return _mean(accuracy_curve(counts))


@metric("forgetting (points)", better="lower", low=-1.0, narrow="forget-\nting\n(pts)")
def forgetting(counts: Counts) -> float:
    """Return mean_{i<T}(max_{j≤T−1} a_{j,i} − a_{T,i}), in [−1, 1]; NaN for a single task.

    Negative where the last task helped the old ones; never below minus ``backward_transfer``.
    """
    return _mean(forgetting_per_task(accuracy_matrix(counts)))


@metric("forgetting, program's (points)", better="lower")
def forgetting_reference(counts: Counts) -> float:
    """Return ``forgetting`` with j ≤ T, in [0, 1]: tasks that gained count as zero.

    Never below ``forgetting``; NaN for a single task.
    """
    return _mean(forgetting_per_task(accuracy_matrix(counts), last_counts=True))


@metric("backward transfer (points)", low=-1.0)
def backward_transfer(counts: Counts) -> float:
    """Return mean_{i<T}(a_{T,i} − a_{i,i}), in [−1, 1]; NaN for a single task."""
    matrix = accuracy_matrix(counts)
    return _mean((matrix[-1] - matrix.diagonal())[:-1])


@metric("plasticity %", narrow="plasti-\ncity %")
def plasticity(counts: Counts) -> float:
    """Return mean_i a_{i,i}: how well each task is known just after learning it, in [0, 1]."""
    return _mean(accuracy_matrix(counts).diagonal())


@metric("within-task %", narrow="within-\ntask %")
def within_task_accuracy(counts: Counts) -> float:
    """Return the last accuracy were each image's task given, in [0, 1]; what the features allow."""
    return float(_shares(counts.within_task_correct.sum(1), counts.total.sum(1))[-1])


@metric("task inference %", narrow="task\ninfer-\nence %")
def task_inference_accuracy(counts: Counts) -> float:
    """Return how often the class predicted last belongs to the image's own task, in [0, 1]."""
    return float(_shares(counts.right_task.sum(1), counts.total.sum(1))[-1])


def per_class_accuracy(counts: Counts) -> Float64[np.ndarray, "c"]:
    """Return the accuracy per class after the last task; NaN for a class without test images."""
    true, predicted, images = counts.confused.T
    right, total = np.zeros((2, counts.classes), np.int64)
    np.add.at(total, true, images)
    np.add.at(right, true, images * (true == predicted))
    return _shares(right, total)


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


def summarise(counts: Counts) -> dict[str, Any]:
    """Return every metric by its name, ready for JSON: plain floats and lists, NaN as None.

    Keys: those of ``METRICS``, ``accuracy_matrix`` (T lists of T, None above the diagonal),
    ``accuracy_curve`` (T), ``per_class_accuracy`` (C) and ``confusion`` (C lists of C counts; None
    beyond `MOST_CLASSES`).
    """
    return {
        "accuracy_matrix": [plain(row) for row in accuracy_matrix(counts)],
        **dict(zip(METRICS, plain([m.function(counts) for m in METRICS.values()]), strict=True)),
        "accuracy_curve": plain(accuracy_curve(counts)),
        "per_class_accuracy": plain(per_class_accuracy(counts)),
        "confusion": counts.confusion.tolist() if counts.classes <= MOST_CLASSES else None,
    }


class Spread(NamedTuple):
    """A number over seeds: mean (None where no seed has it), standard deviation, seeds."""

    mean: float | None
    std: float | None
    n: int


def spread(values: Sequence[float | None]) -> Spread:
    """Return mean, sample standard deviation and number of the values that are not None."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    return Spread(
        float(known.mean()) if len(known) else None,
        float(known.std(ddof=1)) if len(known) > 1 else None,
        len(known),
    )


def plain(values: Sequence[float] | Float64[np.ndarray, "n"]) -> list[float | None]:
    """Return the numbers as JSON has them, NaN as None."""
    return [None if math.isnan(value) else float(value) for value in values]


def _shares(
    right: Int64[np.ndarray, "..."], total: Int64[np.ndarray, "..."]
) -> Float64[np.ndarray, "..."]:
    """NaN where there is no image."""
    with np.errstate(invalid="ignore"):
        shares: np.ndarray = right / total
    return shares


def _mean(values: Float64[np.ndarray, "n"]) -> float:
    return float(values.mean()) if len(values) else math.nan
