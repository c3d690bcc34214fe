"""One lesson: new classes become a task, more images of old ones update the statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray

from perdure.engine.build import text_of
from perdure.engine.config import Config
from perdure.engine.events import Event, Sink, ignore
from perdure.engine.model import Model, check_text
from perdure.engine.survey import ImageSurvey
from perdure.engine.training import Training, refuse_single_class
from perdure.errors import ConfigError
from perdure.learner.calibration import measure
from perdure.learner.history import Lesson
from perdure.learner.labelled import Material
from perdure.learner.state import Learned
from perdure.randomness import permutation
from perdure.streams import Subset, TaskData
from perdure.streams.tasks import listed
from perdure.types import Task

FEWEST = 10
"""Images of a class below which none of them is kept from training."""


def teach(
    before: Learned, config: Config, material: Material, share: float, sink: Sink = ignore
) -> Learned:
    """Learn one lesson on a copy; what was there before is not touched.

    Args:
        before: the model so far, after any number of lessons.
        config: what it learns under from now on.
        material: the lesson's images.
        share: of every class, held out to fit temperatures on; see `held_out`.
        sink: told what happens.

    Raises:
        ConfigError: more images of an old class for a head that cannot take them in, or a single
            new class without a head in closed form.
        DivergenceError: a loss that is not finite.
    """
    known = before.outputs
    new = tuple(name for name in material.names if name not in known)
    old = tuple(name for name in material.names if name in known)
    _refuse_more(before.model, {name: known.labels(name)[-1] for name in old})
    model = before.model.copy()
    model.config = config
    task = _task(model, new)
    arrival = {name: known.labels(name)[-1] for name in old}
    arrival.update(zip(new, task.classes, strict=True))
    parts = _Parts(material, arrival, share, config, len(before.history.lessons))
    for text in material.skipped:
        sink(Event("note", fields={"text": f"left out: {text}"}))
    if new:
        refuse_single_class(task, config)
        check_text(task, model.backbone, config)
        training = Training(model, parts.task_data(task, new), sink)
        training.start()
        training.train()
        training.finish()
    if old:
        _take_in(model, parts.task_data(task, old), sink)
    lesson = Lesson(parts.counts(), new)
    lessons = (*before.history.lessons, lesson)
    after = Learned(model, replace(before.history, lessons=lessons))
    return measure(after, parts.kept, sink)


def held_out(
    material: Material, share: float, seed: int, *purpose: int | str
) -> Bool[np.ndarray, "n"]:
    """Choose images that are kept from training, drawn by ``(seed, purpose, class)``.

    Of every class with at least `FEWEST` images the share, and at least one; of others none.
    """
    mask = np.zeros(len(material.images), dtype=bool)
    for label, name in enumerate(material.names):
        positions = np.flatnonzero(material.images.labels == label)
        if share and len(positions) >= FEWEST:
            count = max(1, int(share * len(positions) + 0.5))
            order = permutation(len(positions), seed, *purpose, name)
            mask[positions[order[:count]]] = True
    return mask


class _Parts:
    """The images of a lesson by what they are for, under labels in order of arrival."""

    def __init__(
        self,
        material: Material,
        arrival: Mapping[str, int],
        share: float,
        config: Config,
        lesson: int,
    ) -> None:
        self._material = material
        self._arrival = arrival
        positions = np.array([arrival[name] for name in material.names], dtype=np.int64)
        self._labels = positions[material.images.labels]
        seed, validation = config.training.seed, config.stream.validation_fraction
        kept = held_out(material, share, seed, "calibration", lesson)
        # A seed of its own: the two choices must not be nested.
        val = held_out(material, validation, seed, "validation", lesson) & ~kept
        self._train, self._val = ~kept & ~val, val
        self.kept = self._subset(kept)

    def counts(self) -> dict[str, int]:
        """Training images per class."""
        labels = self._material.images.labels[self._train]
        counts = np.bincount(labels, minlength=len(self._material.names)).tolist()
        return dict(zip(self._material.names, counts, strict=True))

    def task_data(self, task: Task, names: Iterable[str]) -> TaskData:
        """The images of these classes."""
        own = np.isin(self._labels, [self._arrival[name] for name in names])
        val = self._subset(own & self._val) if self._val.any() else None
        return TaskData(task, self._subset(own & self._train), val, self._subset(own & False))

    def _subset(self, mask: NDArray[np.bool_]) -> Subset:
        indices = np.flatnonzero(mask)
        labels = torch.from_numpy(self._labels[indices])
        return Subset(self._material.images, indices, labels)


def _task(model: Model, names: tuple[str, ...]) -> Task:
    """The next task of a model."""
    first = sum(len(task.classes) for task in model.tasks)
    seen = first + len(names)
    text = text_of(names, model.config) if names else None
    return Task(len(model.tasks), tuple(range(first, seen)), names, seen, text)


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


def _take_in(model: Model, data: TaskData, sink: Sink) -> None:
    """Let the evaluated heads take in more images of classes that they know."""
    features, labels = ImageSurvey(model, data, sink).features("train")
    with torch.no_grad():
        for name in model.config.head_names:
            model.heads[name].take_in(features, labels)
