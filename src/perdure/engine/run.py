"""Training loop of a run: stages of training, evaluation and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from perdure.backbones.frozen import FrozenBackbone
from perdure.engine.checkpoint import Checkpoints, Point
from perdure.engine.config import Config, votes
from perdure.engine.drift import refuse_test_images, unlabelled
from perdure.engine.evaluate import Evaluator
from perdure.engine.events import Event, Sink, ignore
from perdure.engine.model import Model, check_text
from perdure.engine.optim import TaskOptimiser
from perdure.engine.ranks import ALONE, Ranks
from perdure.engine.tally import Tally
from perdure.engine.training import Training, refuse_single_class
from perdure.errors import CheckpointError, ConfigError
from perdure.metrics import Counts, accuracy_matrix, last_accuracy, plain
from perdure.selection import describe
from perdure.streams import Stream, Subset, TaskData

_CARRIED = "carried."
"""Begins the names of what a task carries among the tensors of a checkpoint."""


@dataclass(frozen=True)
class Stage:
    """Stage of a run: a task, or for cumulative methods a union of tasks.

    Attributes:
        data: images to train on.
        last: index of the last stream task it covers; the row of the matrix it fills.
        fresh: whether it begins with a new model.
    """

    data: TaskData
    last: int
    fresh: bool


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run: counts, selection, times, model.

    Attributes:
        model: after the last task.
        counts: per head, of every evaluation.
        seconds: working time, interruptions left out.
        selection: statistics of prompt selection at the end, where the method selects.
        drift: per task and head that follows, the fields of its ``drift`` event, and ``task``.
    """

    model: Model
    counts: dict[str, Counts]
    seconds: float
    selection: dict[str, float]
    drift: list[dict[str, Any]]


@dataclass
class _Saved:
    """What a checkpoint holds: of its base, and of its step file."""

    point: Point
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    carried: dict[str, torch.Tensor] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    selection: dict[str, float] = field(default_factory=dict)
    drift: list[dict[str, Any]] = field(default_factory=list)
    step: dict[str, torch.Tensor] = field(default_factory=dict)


def _check_shared(config: Config, ranks: Ranks) -> None:
    if ranks.count == 1:
        return
    ranks.check_batch(config.training.batch_size)
    if votes(config.flat()):
        raise ConfigError(
            "vote=batch: the images of a batch choose their prompts together, and none of "
            f"{ranks.count} processes sees all of them. Take vote=image, or one process."
        )


def plan(stream: Stream, config: Config) -> list[Stage]:
    """Return the stages of a run; refuse what cannot work.

    Raises:
        ConfigError: a task of one class with nothing but the trained head to evaluate, or a first
            task where all are trained on at once.
    """
    traits = config.traits
    if traits.cumulative and config.training.adapt == "first":
        raise ConfigError(
            f"adapt=first: method '{config.training.method}' trains on all tasks at once, and has no "
            "first one. Leave adapt out."
        )
    if not traits.cumulative:
        stages = [Stage(data, t, t == 0) for t, data in enumerate(stream.tasks)]
    elif config.method_class.retrains(config.method):
        stages = [Stage(_union(stream, t), t, True) for t in range(len(stream.tasks))]
    else:
        last = len(stream.tasks) - 1
        stages = [Stage(_union(stream, last), last, True)]
    for stage in stages:
        refuse_single_class(stage.data.task, config)
    return stages


def _union(stream: Stream, last: int) -> TaskData:
    """Return the union of the tasks up to ``last``, as a first task."""
    data = stream.upto(last)
    return replace(data, task=replace(data.task, index=0))


class Run:
    """One run over a stream, from the beginning or from a checkpoint.

    Args:
        config: method, heads, training.
        stream: tasks with their images.
        backbone: frozen.
        folder: where checkpoints go; None keeps none.
        sink: receives the events.
        ranks: the processes that learn together; rank 0 alone reads and writes checkpoints.

    Raises:
        ConfigError: images of a batch vote on their prompts, and several processes share it.
    """

    def __init__(
        self,
        config: Config,
        stream: Stream,
        backbone: FrozenBackbone,
        folder: Path | None = None,
        sink: Sink = ignore,
        ranks: Ranks = ALONE,
    ) -> None:
        _check_shared(config, ranks)
        self.config = config
        self._ranks = ranks
        self.stream = stream
        self.backbone = backbone
        self.sink = sink
        self.stages = plan(stream, config)
        kept = folder is not None and ranks.first
        self._checkpoints = Checkpoints(folder, config.hash()) if folder and kept else None
        self._point = Point()
        self._carried: dict[str, torch.Tensor] = {}
        self._clock = time.perf_counter()
        self._evaluate = Evaluator(sink)
        self.model = Model(backbone, config, ranks)
        check_text(stream.tasks[0].task, backbone, config)
        self.selection: dict[str, float] = {}
        self.drift: list[dict[str, Any]] = []
        self.tally = Tally()
        self._others: Subset | None = None
        folder_of_others = config.training.drift_images
        if folder_of_others is not None:
            others = self._others = unlabelled(folder_of_others)
            ranks.from_first(lambda: refuse_test_images(others, stream.tasks, folder_of_others))

    def __call__(self) -> Outcome:
        """Run all remaining stages.

        Raises:
            DivergenceError: a loss that is not finite.
            OutputError: a checkpoint that cannot be written.
            CheckpointError: a checkpoint that cannot be used.
        """
        restored = self._restore()
        for index in range(self._point.stages_done, len(self.stages)):
            stage = self.stages[index]
            begun = restored is not None
            training = self._training(stage, self._carried) if begun else self._start(stage)
            self._train(training, restored)
            restored = None
            self._finish(index, stage, training)
        self.model.ranks = ALONE  # what comes after a run, every process does by itself
        found = self.tally.counts()
        counts = {head: found[head] for head in self.config.head_names if head in found}
        return Outcome(self.model, counts, self._point.seconds, self.selection, self.drift)

    def _training(
        self, stage: Stage, carried: Mapping[str, torch.Tensor] | None = None
    ) -> Training:
        return Training(self.model, stage.data, self._told, carried, self._others)

    def _told(self, event: Event) -> None:
        """Pass an event of training on, and keep what it says of drift."""
        if event.kind == "drift":
            self.drift.append({"task": event.task, **event.fields})
        self.sink(event)

    def _start(self, stage: Stage) -> Training:
        if stage.fresh:
            self.model = Model(self.backbone, self.config, self._ranks)
        training = self._training(stage)
        if training.start():
            self._carried = training.carried
            self._commit(Point(self._point.stages_done, prepared=True), whole=True)
        return training

    def _train(self, training: Training, restored: dict[str, torch.Tensor] | None) -> None:
        def keep(steps: int, optimiser: TaskOptimiser) -> None:
            self._commit(replace(self._point, steps_done=steps), optimiser=optimiser)

        training.train(keep, self._point.steps_done, restored)

    def _finish(self, index: int, stage: Stage, training: Training) -> None:
        training.finish()
        done = index + 1
        if done % self.config.runtime.evaluate_every == 0 or done == len(self.stages):
            self._measure(stage)
        self._carried = {}
        self._commit(Point(done), whole=True)

    def _measure(self, stage: Stage) -> None:
        """Evaluate on all tasks up to a stage's last."""
        for head, row in self._evaluate(self.model, self.stream.tasks[: stage.last + 1]).items():
            self.tally.add(head, row)
            tasks = plain(accuracy_matrix(row)[-1])
            fields = {"head": head, "accuracy": last_accuracy(row), "tasks": tasks}
            self.sink(Event("accuracy", stage.last, fields))
        if self.model.method.traits.selects and self._evaluate.selections:
            self.selection = describe(list(self._evaluate.selections.values()))
            self.sink(Event("selection", stage.last, self.selection))

    def _commit(
        self, point: Point, *, whole: bool = False, optimiser: TaskOptimiser | None = None
    ) -> None:
        """Commit a checkpoint; ``whole`` saves all state as its new base."""
        now = time.perf_counter()
        point = replace(point, seconds=self._point.seconds + now - self._clock)
        self._clock = now
        if self._checkpoints is not None:
            if whole:
                name = f"stage-{point.stages_done:03d}{'-prepared' if point.prepared else ''}"
                carried = {_CARRIED + k: v for k, v in self._carried.items()}
                tensors = {**self.model.state(), **self.tally.state(), **carried}
                notes = {"selection": self.selection, "drift": self.drift}
                stored = self._checkpoints.save(name, tensors, notes)
                point = replace(point, base=stored)
            elif optimiser is not None:
                name = f"step-{point.stages_done:03d}-{point.steps_done:07d}"
                stored = self._checkpoints.save(name, optimiser.state(), {})
                point = replace(point, step=stored)
            self._checkpoints.commit(point)
            self.sink(Event("checkpoint", fields=point.progress))
        self._point = point

    def _restore(self) -> dict[str, torch.Tensor] | None:
        """Restore the newest checkpoint; returns the optimiser's state, None between stages."""
        saved = self._ranks.from_first(self._saved)
        if saved is None:
            return None
        point = self._point = saved.point
        for stage in self.stages[: point.stages_done + point.prepared]:
            self._replay(stage)
        if point.base is not None:
            self._carried = saved.carried
            self.model.load(saved.state)
            self.tally, self.selection, self.drift = saved.tally, saved.selection, saved.drift
        self.sink(Event("resume", fields=point.progress))
        if not point.begun:
            return None
        if not point.prepared:
            self._replay(self.stages[point.stages_done])
        return saved.step

    def _saved(self) -> _Saved | None:
        """Read the newest checkpoint."""
        point = self._checkpoints.latest() if self._checkpoints is not None else None
        if point is None or self._checkpoints is None:
            return None
        if point.stages_done + point.begun > len(self.stages):
            raise CheckpointError(
                "The checkpoint counts more tasks than the run has. Start again with another --out."
            )
        saved = _Saved(point)
        if point.base is not None:
            tensors, notes = self._checkpoints.read(point.base)
            saved.carried = {
                name.removeprefix(_CARRIED): tensors.pop(name)
                for name in list(tensors)
                if name.startswith(_CARRIED)
            }
            try:
                saved.tally = Tally.taken_from(tensors)
                saved.selection, saved.drift = notes["selection"], notes.get("drift", [])
            except (LookupError, TypeError, ValueError) as error:
                raise CheckpointError(
                    f"'{point.base.name}' is no checkpoint of perdure: its counts or notes are not "
                    f"whole ({error}). Start again with another --out."
                ) from None
            saved.state = tensors
        if point.step is not None:
            saved.step = self._checkpoints.read(point.step)[0]
        return saved

    def _replay(self, stage: Stage) -> None:
        if stage.fresh:
            self.model = Model(self.backbone, self.config, self._ranks)
        self.model.start_task(stage.data.task)
