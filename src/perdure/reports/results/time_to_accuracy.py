"""Time to accuracy: seconds until methods that train pass frozen features under the same head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean

from perdure.errors import PerdureError
from perdure.heads.choice import choose_head
from perdure.methods import METHODS
from perdure.reports.results.groups import Entry
from perdure.reports.results.runs import FinishedRun, StreamRuns

EPOCHS = "epochs"


@dataclass(frozen=True)
class Budget:
    """Runs of so many epochs, means over seeds.

    Attributes:
        epochs: of every task; 0 where nothing is trained.
        seconds: of the whole run, evaluation of all its heads included.
        accuracy: the last one, in [0, 1].
    """

    epochs: int
    seconds: float
    accuracy: float


@dataclass(frozen=True)
class TimeToAccuracy:
    """Runs of one method under one head, by epochs, and what is to be passed.

    Attributes:
        label: the method, with the options but for epochs that set it apart.
        head: the head, without what it does about drift: frozen features have none.
        frozen: the best method that trains nothing, under the same head.
        frozen_label: its name.
        budgets: at least one, by epochs.
    """

    label: str
    head: str
    frozen: Budget
    frozen_label: str
    budgets: tuple[Budget, ...]

    @property
    def passed(self) -> Budget | None:
        """The fastest runs that end above frozen features; None where none does."""
        above = [one for one in self.budgets if one.accuracy > self.frozen.accuracy]
        return min(above, key=lambda one: one.seconds, default=None)


def times_to_accuracy(stream: StreamRuns) -> list[TimeToAccuracy]:
    """Return a line for each method and head that a frozen method has, too; in order of arrival.

    Runs of one method that differ in their epochs are one line. Upper bounds, and runs whose
    configuration is not at hand, are left out.
    """
    frozen: dict[str, tuple[str, Budget]] = {}
    trained: dict[tuple[str, str, str], list[Budget]] = {}
    for variant in stream.variants:
        run = variant[0]
        if run.method not in METHODS or not run.config or run.entries[0].get("sees_old_images"):
            continue
        trains = METHODS.declared[run.method].traits.trains
        label = stream.label(run, without=(EPOCHS,))
        for entry in run.entries:
            budget = _budget(variant, entry["head"], int(run.config[EPOCHS]) if trains else 0)
            if budget is None:
                continue
            head = without_drift(entry["head"])
            if trains:
                trained.setdefault((label, head, entry["head"]), []).append(budget)
            elif head not in frozen or budget.accuracy > frozen[head][1].accuracy:
                frozen[head] = label, budget
    return [
        TimeToAccuracy(
            f"{label} · {named}",
            head,
            frozen[head][1],
            frozen[head][0],
            tuple(sorted(budgets, key=lambda one: one.epochs)),
        )
        for (label, head, named), budgets in trained.items()
        if head in frozen
    ]


def without_drift(head: str) -> str:
    """Name of a head without its option ``drift``; a head that is not known here stays as it is.

    Examples:
        >>> without_drift("gaussian(drift=linear,shrinkage=loo)")
        'gaussian(shrinkage=loo)'
    """
    try:
        choice = choose_head(head)
    except PerdureError:
        return head
    return replace(choice, own=tuple(one for one in choice.own if one[0] != "drift")).name


def _budget(variant: Iterable[FinishedRun], head: str, epochs: int) -> Budget | None:
    """Means over the seeds whose accuracy and time are known."""
    entries: list[Entry] = [one for run in variant for one in run.entries if one["head"] == head]
    known = [
        (one["seconds"], one["last_accuracy"])
        for one in entries
        if one.get("seconds") is not None and one.get("last_accuracy") is not None
    ]
    if not known:
        return None
    seconds, accuracies = zip(*known, strict=True)
    return Budget(epochs, fmean(seconds), fmean(accuracies))
