"""Diagnosis: what the selection of prompts knows, and what stale statistics cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from perdure.engine.config import Config
from perdure.engine.events import Event, Sink, ignore
from perdure.engine.model import Model
from perdure.engine.staleness import ageing_heads, all_seen_accuracy
from perdure.engine.survey import ordered_batches
from perdure.errors import ConfigError
from perdure.methods import METHODS
from perdure.metrics import Counts, count_batch, last_accuracy
from perdure.streams import Subset, TaskData, batch_count
from perdure.types import Task, classes_of

MOST_ITERATIONS = 2000


@dataclass(frozen=True)
class Diagnosis:
    """Task information in the selected prompts, and bounds of accuracy, after the last task.

    Attributes:
        task_accuracy: share of test images whose task a linear classifier tells from what was chosen
            for them; it was fitted to the training images of all tasks. None where the method does
            not select.
        task_chance: share of the largest task, which is what knowing nothing gives; or None.
        oracle_accuracy: per head, last accuracy where every image gets its own task's prompts; empty
            where prompts belong to no task.
        all_seen_accuracy: per head in closed form, see `all_seen_accuracy`; empty where features
            never change.
    """

    task_accuracy: float | None
    task_chance: float | None
    oracle_accuracy: dict[str, float]
    all_seen_accuracy: dict[str, float]


def selecting_methods() -> tuple[str, ...]:
    """Return the methods that select prompts by image."""
    return tuple(name for name in METHODS if METHODS[name].traits.selects)


def check_diagnosable(config: Config) -> None:
    """Refuse a run that selects no prompts and has no statistics that grow stale.

    Raises:
        ConfigError: it is one.
    """
    if config.traits.selects or ageing_heads(config):
        return
    named = f"heads={','.join(config.head_names)}"
    reason = (
        "learns no prompts task by task"
        if config.traits.frozen_features or config.traits.cumulative
        else f"gives every image the same prompts, and {named} keep no statistics that grow stale"
    )
    raise ConfigError(
        f"Method '{config.training.method}' {reason}, so there is nothing to diagnose. Methods that "
        f"select prompts: {', '.join(selecting_methods())}; for the others add {named},gaussian."
    )


def diagnose(model: Model, tasks: Sequence[TaskData], sink: Sink = ignore) -> Diagnosis:
    """Diagnose a model that has learned all of these tasks.

    This looks at training images of old tasks, which learning never does; nothing is learned here.

    Args:
        model: its method selects, or its heads keep statistics that grow stale.
        tasks: tasks of its stream, at least one of them with test images.
        sink: receives progress events.

    Raises:
        ConfigError: there is nothing to diagnose, or no test image.
    """
    check_diagnosable(model.config)
    if not any(len(data.test) for data in tasks):
        raise ConfigError("There is no test image to diagnose on.")
    all_seen = all_seen_accuracy(model, tasks, sink)
    if not model.method.traits.selects:
        return Diagnosis(None, None, {}, all_seen)
    passes = _Passes(model, tasks, sink)
    train = passes.choices("train")
    test = passes.choices("test")
    return Diagnosis(
        task_accuracy=_fitted_accuracy(train, test),
        task_chance=float(np.bincount(test[1]).max() / len(test[1])),
        oracle_accuracy=passes.oracle_accuracy(),
        all_seen_accuracy=all_seen,
    )


Choices = tuple[Float64[np.ndarray, "_ m"], Int64[np.ndarray, "_"]]
"""What was chosen for every image, all places of selection side by side, and its task."""


def _fitted_accuracy(train: Choices, test: Choices) -> float:
    """Accuracy of multinomial logistic regression from choice to task."""
    if len(np.unique(train[1])) == 1:
        return 1.0
    scaler = StandardScaler().fit(train[0])
    classifier = LogisticRegression(max_iter=MOST_ITERATIONS)
    classifier.fit(scaler.transform(train[0]), train[1])
    return float(classifier.score(scaler.transform(test[0]), test[1]))


class _Passes:
    """Passes over the images of all tasks, without gradients."""

    def __init__(self, model: Model, tasks: Sequence[TaskData], sink: Sink) -> None:
        self._model, self._tasks, self._sink = model, tasks, sink
        size = model.config.runtime.eval_batch_size
        traits = model.method.traits
        # With adapt=first, prompts are of the first task alone.
        self._has_oracle = traits.prompts_of_tasks and model.config.training.adapt == "all"
        oracle = [data.test for data in tasks if self._has_oracle]
        parts = [*oracle, *(part for data in tasks for part in (data.train, data.test))]
        self._total = sum(batch_count(len(part), size) for part in parts)
        self._done = 0

    def choices(self, split: str) -> Choices:
        """Return the prompts selected for every image when the task is not given."""

        def choice(images: Tensor, task: Task) -> Tensor:
            records = self._model.forward(images)[1].records
            places = sorted(name for name in records if name.startswith("selection"))
            return torch.cat([records[name].double() for name in places], dim=1)

        selections = [
            self._over(data.train if split == "train" else data.test, data.task, choice)
            for data in self._tasks
        ]
        rows = [part for part, _ in selections if len(part)]
        index = np.repeat(np.arange(len(selections)), [len(labels) for _, labels in selections])
        return torch.cat(rows).cpu().numpy(), index

    def oracle_accuracy(self) -> dict[str, float]:
        """Return the accuracy over all test images, each under its own task's prompts."""
        model, counts = self._model, dict[str, Counts]()
        if not self._has_oracle:
            return {}

        def readout(images: Tensor, task: Task) -> Tensor:
            return model.forward(images, oracle=task)[0]

        class_of = torch.tensor(classes_of(model.label_names))
        for data in self._tasks:
            features, labels = self._over(data.test, data.task, readout)
            if len(labels):
                for head, logits in model.head_logits(features).items():
                    new = count_batch(logits, labels, torch.zeros_like(class_of), class_of)
                    counts[head] = counts[head] + new if head in counts else new
        return {head: last_accuracy(one) for head, one in counts.items()}

    @torch.no_grad()
    def _over(
        self, subset: Subset, task: Task, compute: Callable[[Tensor, Task], Tensor]
    ) -> tuple[Float[Tensor, "n m"], Int[Tensor, "n"]]:
        outputs = []
        for batch in ordered_batches(self._model, subset):
            outputs.append(compute(batch.images, task))
            self._done += 1
            fields = {"phase": "diagnosis", "done": self._done, "total": self._total}
            self._sink(Event("progress", task.index, fields))
        return torch.cat(outputs) if outputs else torch.zeros(0), subset.labels
