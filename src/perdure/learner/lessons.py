"""A lesson: new classes become a task, more images of old ones update the heads' statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from perdure.class_names import is_number
from perdure.engine.build import text_of
from perdure.engine.config import Config
from perdure.engine.drift import unlabelled
from perdure.engine.events import Event, Sink, ignore
from perdure.engine.model import Model, check_text
from perdure.engine.survey import ImageSurvey
from perdure.engine.training import Training, refuse_single_class, remarking
from perdure.errors import ConfigError
from perdure.heads.language import ClassVectorHead
from perdure.language.features import refuse_alike
from perdure.learner.calibration import calibrate, calibrate_left_out
from perdure.learner.classes_left_out import features_of, separate_held_out, separate_left_out
from perdure.learner.history import Curve, Lesson
from perdure.learner.labelled import NONE, LabelledImages
from perdure.learner.learning_curve import lesson_curve
from perdure.learner.state import LearnerState
from perdure.learner.suspects import Suspect, lesson_suspects
from perdure.randomness import permutation
from perdure.streams import Subset, TaskData
from perdure.types import Task
from perdure.wording import listed

MIN_IMAGES = 10
"""Images of a class below which none of them is held out."""


def teach(
    before: LearnerState,
    config: Config,
    labelled: LabelledImages,
    calibration_fraction: float,
    sink: Sink = ignore,
) -> tuple[LearnerState, tuple[Suspect, ...]]:
    """Learn one lesson on a copy, under this configuration; the state before is not touched.

    ``calibration_fraction`` of every class is `held_out` to fit temperatures on; where features are
    fixed and heads can leave images out, none is, and temperatures are fitted on all of them. Images
    of `NONE` are of no class: they are not learned, and only say what unknown images look like.

    Returns:
        The state after it, and its images that the model names otherwise without them, the clearest
        first; none where images cannot be left out, under trained prompts say.

    Raises:
        ConfigError: more images of an old class for a head that cannot take them in, a single new
            class without a head in closed form, or images of no class before there is any.
        DivergenceError: a loss that is not finite.
    """
    columns = before.columns
    new = tuple(name for name in labelled.names if name not in columns and name != NONE)
    if not new and not columns.names:
        raise ConfigError(
            f"All images are of '{NONE}', which stands for images of no class. Give those of at "
            "least one class beside them."
        )
    old = {name: columns.labels(name)[-1] for name in labelled.names if name in columns}
    _refuse_more(before.model, old)
    model = before.model.copy()
    model.config = config
    task = _task(model, new)
    arrival = {**old, **dict(zip(new, task.classes, strict=True))}
    in_turn = _can_leave_out(model, task)
    fraction = 0.0 if in_turn else calibration_fraction
    split = _Split(labelled, arrival, fraction, config, len(before.history.lessons))
    taken_in: list[tuple[Float[Tensor, "n *v d"], Int[Tensor, "n"]]] = []
    places: list[NDArray[np.int64]] = []
    left_out = [labelled.left_out] if labelled.left_out else []
    for text in (*left_out, *(f"left out: {one}" for one in labelled.skipped)):
        sink(Event("note", fields={"text": text}))
    if new:
        refuse_single_class(task, config)
        _check_text(before, task, config)
        folder = config.training.drift_images
        others = None if folder is None else unlabelled(folder)
        data = split.task_data(task, new)
        training = Training(model, data, sink, others=others)
        training.start()
        training.train()
        training.finish()
        if in_turn:
            taken_in.append(training.features())
            places.append(data.train.indices)
    if old:
        data = split.task_data(task, old)
        taken_in.append(_take_in(model, data, sink))
        places.append(data.train.indices)
    history = before.history
    counts = {k: n for k, n in labelled.counts(split.train).items() if k in arrival}
    lesson = Lesson(counts, new, negatives=len(split.negatives))
    lessons = (*history.lessons, lesson)
    numbered = _numbered(before, labelled, arrival)
    after = LearnerState(model, replace(history, lessons=lessons, numbered=numbered))
    negatives = features_of(after, split.negatives)
    if in_turn and taken_in:
        features, labels = (torch.cat(parts) for parts in zip(*taken_in, strict=True))
        if calibration_fraction:
            after = calibrate_left_out(after, features, labels, sink)
        after = separate_left_out(after, features, labels, negatives)
        after = _with_curve(after, lesson_curve(before.model, after, task, features, labels))
        judged = lesson_suspects(after, labelled, np.concatenate(places), features, labels)
        return after, judged
    after = calibrate(after, split.calibration, sink)
    return separate_held_out(after, split.calibration, negatives), ()


def _numbered(before: LearnerState, labelled: LabelledImages, names: Iterable[str]) -> bool:
    """Whether classes are numbers after a lesson of these; images of no class have no say."""
    numbered = before.history.numbered or not before.model.tasks
    return numbered and all(labelled.numbered and is_number(name) for name in names)


def _with_curve(state: LearnerState, curve: dict[str, Curve]) -> LearnerState:
    """Note the learning curve of the newest lesson."""
    *lessons, last = state.history.lessons
    history = replace(state.history, lessons=(*lessons, replace(last, curve=curve)))
    return LearnerState(state.model, history)


def held_out(
    labelled: LabelledImages, fraction: float, seed: int, *purpose: int | str
) -> Bool[np.ndarray, "n"]:
    """Choose images that are held out of training, drawn by ``(seed, purpose, class)``.

    Of every class with at least `MIN_IMAGES` images the fraction, at least one and not all; of others
    none.
    """
    mask = np.zeros(len(labelled.images), dtype=bool)
    for label, name in enumerate(labelled.names):
        positions = np.flatnonzero(labelled.images.labels == label)
        if fraction and len(positions) >= MIN_IMAGES:
            count = min(max(1, int(fraction * len(positions) + 0.5)), len(positions) - 1)
            order = permutation(len(positions), seed, *purpose, name)
            mask[positions[order[:count]]] = True
    return mask


class _Split:
    """A lesson's images for training, validation and calibration, labelled in order of arrival.

    Attributes:
        train: mask of the images that are trained on.
        calibration: images that temperatures are fitted on.
        negatives: images of no class.
    """

    def __init__(
        self,
        labelled: LabelledImages,
        arrival: Mapping[str, int],
        calibration_fraction: float,
        config: Config,
        lesson: int,
    ) -> None:
        seed = config.training.seed
        validation_fraction = config.stream.validation_fraction
        self._labelled, self._arrival = labelled, arrival
        positions = np.array([arrival.get(name, -1) for name in labelled.names], dtype=np.int64)
        self._labels = positions[labelled.images.labels]
        of_a_class = self._labels >= 0
        calibration = held_out(labelled, calibration_fraction, seed, "calibration", lesson)
        # A seed of its own: the two choices must not be nested.
        val = held_out(labelled, validation_fraction, seed, "validation", lesson)
        for label in np.unique(self._labels[of_a_class]):
            own = np.flatnonzero(self._labels == label)
            if (calibration | val)[own].all():  # the two have taken all there are
                val[own[~calibration[own]]] = False
        self._val = val & ~calibration
        self.train = ~calibration & ~val & of_a_class
        self.calibration = self._subset(calibration & of_a_class)
        self.negatives = self._subset(~of_a_class)

    def task_data(self, task: Task, names: Iterable[str]) -> TaskData:
        """The images of these classes."""
        own = np.isin(self._labels, [self._arrival[name] for name in names])
        val = self._subset(own & self._val) if self._val.any() else None
        return TaskData(task, self._subset(own & self.train), val, self._subset(own & False))

    def _subset(self, mask: NDArray[np.bool_]) -> Subset:
        indices = np.flatnonzero(mask)
        labels = torch.from_numpy(self._labels[indices])
        return Subset(self._labelled.images, indices, labels)


def _task(model: Model, names: tuple[str, ...]) -> Task:
    """The next task of a model."""
    first = sum(len(task.classes) for task in model.tasks)
    seen = first + len(names)
    text = text_of(names, model.config) if names else None
    return Task(len(model.tasks), tuple(range(first, seen)), names, seen, text)


def _check_text(before: LearnerState, task: Task, config: Config) -> None:
    """Refuse texts that do not fit, and a class whose text is that of one which is known already."""
    check_text(task, before.model.backbone, config)
    known = [
        (name, label) for name in before.columns.names for label in before.columns.labels(name)
    ]
    for head in before.model.heads.values():
        if task.text_features is None or not isinstance(head, ClassVectorHead):
            continue
        if head.config.class_embeddings == "text":
            vectors = head.text[[label for _, label in known]].cpu()
            rows = torch.cat([vectors, task.text_features])
            refuse_alike(rows, [*(name for name, _ in known), *task.names], len(known))


def _refuse_more(model: Model, old: Mapping[str, int]) -> None:
    """Refuse more images of old classes where a head cannot take them in."""
    noun = "class" if len(old) == 1 else "classes"
    for head in model.config.head_names:
        reason = model.heads[head].refuses(tuple(old.values()))
        if old and reason:
            raise ConfigError(
                f"More images of the {noun} {listed([f'{name!r}' for name in old])}, which "
                f"{'is' if len(old) == 1 else 'are'} known already: head '{head}' cannot take them "
                f"in, because {reason}. Leave them out, or start anew with heads=gaussian."
            )


def _can_leave_out(model: Model, task: Task) -> bool:
    """Whether features are fixed in a lesson, and every evaluated head answers images as left out."""
    heads = (model.heads[name] for name in model.config.head_names)
    return model.features_fixed(task) and all(head.leaves_out for head in heads)


def _take_in(
    model: Model, data: TaskData, sink: Sink
) -> tuple[Float[Tensor, "n *v d"], Int[Tensor, "n"]]:
    """Let the evaluated heads, and anchors, take in more images of known classes; return these."""
    survey = ImageSurvey(model, data, sink)
    features, labels = survey.features("train", mirrored=model.mirrored)
    with torch.no_grad():
        if model.anchors is not None:
            model.anchors.take_in(survey.plain_readouts(), labels)
        for name in model.config.head_names:
            with remarking(name, model.heads[name], sink):
                model.heads[name].take_in(features, labels)
    return features, labels
