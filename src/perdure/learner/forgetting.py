"""Forgetting a class: its removal, and the report of what still carries its influence."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from perdure.engine.model import Model
from perdure.heads import Head
from perdure.learner.history import History
from perdure.learner.renaming import known_class
from perdure.learner.state import LearnerState
from perdure.types import Task, Trace
from perdure.wording import listed, printable


@dataclass(frozen=True)
class Forgotten:
    """Report on a forgotten class.

    Attributes:
        name: name of the class.
        removed: parts that were overwritten or removed.
        remains: parts that still carry its influence; the tensors are named as in the saved file.
    """

    name: str
    removed: tuple[str, ...]
    remains: tuple[Trace, ...]

    def __str__(self) -> str:
        lines = [f"'{printable(self.name)}' is forgotten.", "Removed:"]
        lines += [f"- {what}" for what in self.removed]
        lines.append("Its influence remains in:" if self.remains else "Nothing else carries it.")
        lines += [f"- {_described(trace)}" for trace in self.remains]
        return "\n".join(lines)


def forget(before: LearnerState, name: str | int) -> tuple[LearnerState, Forgotten]:
    """Remove a class on a copy, see `ContinualClassifier.forget_class`; the state before stays."""
    before.model.check_can_learn()
    name = known_class(before, name, " to forget")
    labels = before.columns.labels(name)
    model = before.model.copy()
    tasks = [task for task in model.tasks if set(labels) & set(task.classes)]
    remains = list(dict.fromkeys(t for task in tasks for t in _of_method(model, task)))
    if remains:
        measured = tuple(
            f"heads.{head}.{tensor}"
            for head in model.heads
            for tensor in model.heads[head].state_dict()
        )
        what = "what heads know of other classes, whose images they met under these prompts"
        remains.append(Trace(what, measured))
    with torch.no_grad():
        for head, part in model.heads.items():
            for label in labels:
                remains += [_named(trace, f"heads.{head}.") for trace in part.forget(label)]
        if model.anchors is not None:
            remains += [_named(trace, "anchors.") for trace in model.anchors.forget(labels)]
    history = before.history
    remains += _of_history(history, name)
    removed = ["its score: it is never predicted, and has no probability"]
    overwritten = [h for h, part in model.heads.items() if type(part).forget is not Head.forget]
    if overwritten:
        removed.append(f"its vectors in the heads {', '.join(overwritten)}, overwritten with zeros")
    lessons = tuple(
        replace(lesson, curve={k: v for k, v in lesson.curve.items() if k != name})
        for lesson in history.lessons
    )
    gone = tuple(sorted((*history.forgotten, *labels)))
    after = replace(history, forgotten=gone, lessons=lessons)
    return LearnerState(model, after), Forgotten(name, tuple(removed), tuple(remains))


def _of_history(history: History, name: str) -> list[Trace]:
    taught = [i for i, lesson in enumerate(history.lessons) if name in lesson.new]
    since = history.lessons[taught[-1] if taught else 0 :]
    traces = []
    if any(lesson.calibration_error for lesson in since):
        traces.append(Trace("the temperatures, which were fitted while it was known", ()))
    if any(lesson.left_out or lesson.held_out for lesson in since) and history.separations:
        what = "histograms of how familiar images were, by which unknown ones are told"
        traces.append(Trace(what, ()))
    lists = "the lists of classes and lessons" if taught else "the list of classes"
    traces.append(Trace(f"its name, in {lists} that arrived", ()))
    traces.append(
        Trace("copies and checkpoints that were written before, which are left alone", ())
    )
    return traces


def _of_method(model: Model, task: Task) -> list[Trace]:
    if model.adapted(task):
        return []
    later = sum(len(other.classes) > 1 for other in model.tasks[task.index + 1 :])
    return [_named(trace, "method.") for trace in model.method.traces(task, later)]


def _named(trace: Trace, prefix: str) -> Trace:
    return Trace(trace.what, tuple(prefix + name for name in trace.tensors))


def _described(trace: Trace) -> str:
    return f"{trace.what} ({listed(list(trace.tensors), 3)})" if trace.tensors else trace.what
