"""Renaming and merging of classes: other names for what was learned, nothing learned anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from perdure.class_names import class_name, is_number
from perdure.engine.model import Model
from perdure.errors import ConfigError, did_you_mean
from perdure.learner.history import Lesson
from perdure.learner.state import LearnerState
from perdure.wording import listed, printable


def rename(before: LearnerState, name: str | int, new: str | int) -> LearnerState:
    """Rename a class on a copy, see `ContinualClassifier.rename_class`; the state before stays."""
    known = known_class(before, name)
    new = class_name(new, f"class '{printable(known)}'", "new name")
    if new in before.columns:
        raise ConfigError(
            f"There is a class '{printable(new)}' already. To make '{printable(known)}' part of it, "
            "merge the two."
        )
    return _named(before, known, new)


def merge(before: LearnerState, name: str | int, into: str | int) -> LearnerState:
    """Merge classes on a copy, see `ContinualClassifier.merge_classes`; the state before stays."""
    known, other = known_class(before, name), known_class(before, into)
    if known == other:
        raise ConfigError(f"'{printable(known)}' cannot be merged with itself. Name two classes.")
    return _named(before, known, other)


def known_class(state: LearnerState, name: str | int, purpose: str = "") -> str:
    """Return the one spelling of a class that is known.

    Args:
        state: what knows it.
        name: of the class, as text or number.
        purpose: what it is named for, for the error, as `` to forget``.

    Raises:
        ConfigError: it is not.
        StreamError: it is no name.
    """
    known = state.columns
    spelled = class_name(name, "the class", "name")
    if spelled not in known:
        raise ConfigError(
            f"There is no class {spelled!r}{purpose}.{did_you_mean(spelled, known.names)} Known: "
            f"{listed(list(known.names), 20)}."
        )
    return spelled


def _named(before: LearnerState, name: str, new: str) -> LearnerState:
    labels, history = before.columns.labels(name), before.history
    model = Model(before.model.backbone, before.model.config)
    for task in before.model.tasks:  # replayed, as heads know which labels are one class
        called = zip(task.classes, task.names, strict=True)
        names = tuple(new if label in labels else own for label, own in called)
        model.start_task(replace(task, names=names))
    model.load(before.model.state(), inference_only=before.model.inference_only)
    # What was forgotten under this name before it was learned anew keeps it.
    first = before.first_lesson(name)
    lessons = tuple(
        _lesson(lesson, lambda one: new if one == name else one) if k >= first else lesson
        for k, lesson in enumerate(history.lessons)
    )
    numbered = history.numbered and is_number(new)
    return LearnerState(model, replace(history, lessons=lessons, numbered=numbered))


def _lesson(lesson: Lesson, called: Callable[[str], str]) -> Lesson:
    images = Counter[str]()
    for name, count in lesson.images.items():
        images[called(name)] += count
    merged = len(images) < len(lesson.images)  # then their common curve was not measured
    curve = {called(name): points for name, points in lesson.curve.items() if not merged}
    new = tuple(dict.fromkeys(map(called, lesson.new)))
    return replace(lesson, images=dict(images), new=new, curve=curve)
