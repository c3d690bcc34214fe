"""The loop: stage after stage, train, take in, evaluate, keep a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perdure.backbones.vit import FrozenViT
from perdure.engine.checkpoint import Checkpoints, Point
from perdure.engine.config import Config
from perdure.engine.evaluate import Evaluator
from perdure.engine.events import Event, Sink, ignore
from perdure.engine.model import Model, check_text
from perdure.engine.optim import TaskOptimiser, lr_factor
from perdure.engine.survey import ImageSurvey, known_queries, known_tokens
from perdure.errors import ConfigError, DivergenceError
from perdure.heads import HEADS
from perdure.metrics import BatchCounts
from perdure.selection import describe
from perdure.streams import Batch, Stream, TaskData, batch_count, batches, build_transform

Rows = dict[str, list[BatchCounts | None]]


@dataclass(frozen=True)
class Stage:
    """One round of training: a task, or for cumulative methods a union of tasks.

    Attributes:
        data: what is trained on.
        last: index of the last stream task it covers; the row of the matrix it fills.
        fresh: whether it begins with a new model.
    """

    data: TaskData
    last: int
    fresh: bool


@dataclass(frozen=True)
class Outcome:
    """What a run produced.

    Attributes:
        model: after the last task.
        rows: per head, the counts after each task; None where nothing was evaluated.
        seconds: working time, interruptions left out.
        selection: how prompts were chosen at the end, where the method selects.
    """

    model: Model
    rows: Rows
    seconds: float
    selection: dict[str, float]


def plan(stream: Stream, config: Config) -> list[Stage]:
    """Lay out the stages of a run and refuse what cannot work.

    Raises:
        ConfigError: a task of one class with nothing but the trained head to evaluate.
    """
    traits = config.method_class.traits
    if not traits.cumulative:
        stages = [Stage(data, t, t == 0) for t, data in enumerate(stream.tasks)]
    elif getattr(config.method, "train_after", "last") == "each":
        stages = [Stage(_union(stream, t), t, True) for t in range(len(stream.tasks))]
    else:
        last = len(stream.tasks) - 1
        stages = [Stage(_union(stream, last), last, True)]
    closed = any(HEADS[name].closed_form for name in config.head_names)
    for stage in stages:
        task = stage.data.task
        if traits.trains and len(task.classes) == 1 and not closed:
            raise ConfigError(
                f"Task {task.index + 1} has the single class '{task.names[0]}': cross-entropy has "
                f"nothing to learn from it. Add heads={','.join(config.head_names)},gaussian, or "
                "choose larger tasks."
            )
    return stages


def _union(stream: Stream, last: int) -> TaskData:
    """Tasks up to ``last`` as a first task of their own."""
    data = stream.upto(last)
    return replace(data, task=replace(data.task, index=0))


class Run:
    """One run over a stream, from the beginning or from a checkpoint.

    Args:
        config: method, heads, training.
        stream: tasks with their images.
        backbone: frozen.
        folder: where checkpoints go; None keeps none.
        sink: told what happens.
    """

    def __init__(
        self,
        config: Config,
        stream: Stream,
        backbone: FrozenViT,
        folder: Path | None = None,
        sink: Sink = ignore,
    ) -> None:
        self.config = config
        self.stream = stream
        self.backbone = backbone
        self.sink = sink
        self.stages = plan(stream, config)
        self._checkpoints = Checkpoints(folder, config.hash()) if folder is not None else None
        self._point = Point()
        self._clock = time.perf_counter()
        self._evaluate = Evaluator(sink)
        self.model = Model(backbone, config)
        check_text(stream.tasks[0].task, backbone, config)
        self._surveyed: tuple[Stage, ImageSurvey] | None = None
        self.selection: dict[str, float] = {}
        self.rows: Rows = {head: [None] * len(stream.tasks) for head in config.head_names}

    def __call__(self) -> Outcome:
        """Go through all stages that are not done yet.

        Raises:
            DivergenceError: a loss that is not finite.
            OutputError: a checkpoint that cannot be written.
            CheckpointError: a checkpoint that cannot be used.
        """
        training = self._restore()
        for index in range(self._point.stages_done, len(self.stages)):
            stage = self.stages[index]
            if training is None:
                self._start(stage)
            self._train(stage, training)
            training = None
            self._finish(index, stage)
        return Outcome(self.model, self.rows, self._point.seconds, self.selection)

    def _start(self, stage: Stage) -> None:
        if stage.fresh:
            self.model = Model(self.backbone, self.config)
        task = stage.data.task
        self.sink(
            Event(
                "task", task.index, {"classes": list(task.names), "images": len(stage.data.train)}
            )
        )
        self.model.start_task(task)
        if self.model.prepare(task, self._survey(stage)):
            self._commit(Point(self._point.stages_done, prepared=True), whole=True)

    def _train(self, stage: Stage, restored: dict[str, torch.Tensor] | None) -> None:
        task, run = stage.data.task, self.config.run
        if not self.model.method.traits.trains or len(task.classes) == 1:
            return
        optimiser = TaskOptimiser(
            self.model.method, self.model.task_layer(task), run, protect=task.index > 0
        )
        if restored:
            optimiser.load(restored)
        per_epoch = batch_count(len(stage.data.train), run.batch_size)
        total = run.epochs * per_epoch
        known = self._known_features(stage)
        tokens = None if known is not None else known_tokens(self.model, stage.data, self.sink)
        queries = known_queries(self.model, stage.data, self.sink)
        meter = Meter(self.sink, task.index, per_epoch, total)
        for step, batch in self._training_batches(stage, self._point.steps_done, per_epoch):
            readout = None if known is None else known[batch.positions.to(known.device)]
            images = batch.images if tokens is None else tokens.take(batch.positions)
            query = None if queries is None else queries[batch.positions.to(queries.device)]
            loss = self.model.training_loss(images, batch.labels, task, readout, query)
            values = {name: float(term.detach()) for name, term in loss.terms.items()}
            _check_finite(values, task.index, step, per_epoch)
            optimiser.step(loss.total, lr_factor(run, step, per_epoch))
            meter(step + 1, values, len(batch.labels))
            if (step + 1) % run.checkpoint_every == 0 or step + 1 == total:
                point = replace(self._point, steps_done=step + 1)
                self._commit(point, optimiser=optimiser)

    def _finish(self, index: int, stage: Stage) -> None:
        survey = self._survey(stage)
        task = stage.data.task
        with torch.no_grad():
            self.model.method.end_task(task, survey)
            for head in self.model.heads.values():
                head.end_task(task, survey)
        counts = self._evaluate(self.model, self.stream.tasks[: stage.last + 1])
        for name, row in counts.items():
            self.rows[name][stage.last] = row
            self.sink(Event("accuracy", stage.last, {"head": name, **_shares(row)}))
        if self.model.method.traits.selects and self._evaluate.selections:
            self.selection = describe(list(self._evaluate.selections.values()))
            self.sink(Event("selection", stage.last, self.selection))
        self._commit(Point(index + 1), whole=True)

    def _survey(self, stage: Stage) -> ImageSurvey:
        """A new survey; where features never change, one for the whole stage."""
        if self._surveyed is None or self._surveyed[0] is not stage:
            self._surveyed = (stage, ImageSurvey(self.model, stage.data, self.sink))
        survey = self._surveyed[1]
        if not self.model.method.traits.frozen_features:
            self._surveyed = None
        return survey

    def _known_features(self, stage: Stage) -> torch.Tensor | None:
        """Training features where they never change: nothing added, nothing augmented."""
        frozen = self.model.method.traits.frozen_features
        transform = build_transform(self.config.run.transform, self.backbone.img_size)
        if not (frozen and transform.deterministic):
            return None
        return self._survey(stage).features("train")[0]

    def _training_batches(
        self, stage: Stage, done: int, per_epoch: int
    ) -> Iterator[tuple[int, Batch]]:
        run, task = self.config.run, stage.data.task.index
        for epoch in range(done // per_epoch, run.epochs):
            first = done % per_epoch if epoch == done // per_epoch else 0
            loaded = batches(
                stage.data.train,
                run.batch_size,
                transform=run.transform,
                side="train",
                img_size=self.backbone.img_size,
                seed=run.seed,
                task=task,
                epoch=epoch,
                workers=run.workers,
                start_step=first,
            )
            for offset, batch in enumerate(loaded):
                yield epoch * per_epoch + first + offset, batch

    def _commit(
        self, point: Point, *, whole: bool = False, optimiser: TaskOptimiser | None = None
    ) -> None:
        """Make ``point`` the state to go on from; ``whole`` saves all state as its new base."""
        now = time.perf_counter()
        point = replace(point, seconds=self._point.seconds + now - self._clock)
        self._clock = now
        if self._checkpoints is not None:
            if whole:
                name = f"stage-{point.stages_done:03d}{'-prepared' if point.prepared else ''}"
                notes = {"rows": _pack_rows(self.rows), "selection": self.selection}
                stored = self._checkpoints.save(name, self.model.state(), notes)
                point = replace(point, base=stored)
            elif optimiser is not None:
                name = f"step-{point.stages_done:03d}-{point.steps_done:07d}"
                stored = self._checkpoints.save(name, optimiser.state(), {})
                point = replace(point, step=stored)
            self._checkpoints.commit(point)
            self.sink(
                Event(
                    "checkpoint",
                    fields={"stages_done": point.stages_done, "steps_done": point.steps_done},
                )
            )
        self._point = point

    def _restore(self) -> dict[str, torch.Tensor] | None:
        """Go back to the newest point; returns what was being trained, None between stages."""
        point = self._checkpoints.latest() if self._checkpoints is not None else None
        if point is None or self._checkpoints is None:
            return None
        self._point = point
        begun = point.prepared or point.step is not None
        for stage in self.stages[: point.stages_done + point.prepared]:
            self._replay(stage)
        if point.base is not None:
            tensors, notes = self._checkpoints.read(point.base)
            self.model.load(tensors)
            self.rows = _unpack_rows(notes["rows"])
            self.selection = notes["selection"]
        fields = {"stages_done": point.stages_done, "steps_done": point.steps_done}
        self.sink(Event("resume", fields=fields))
        if not begun:
            return None
        if not point.prepared:
            self._replay(self.stages[point.stages_done])
        return self._checkpoints.read(point.step)[0] if point.step is not None else {}

    def _replay(self, stage: Stage) -> None:
        if stage.fresh:
            self.model = Model(self.backbone, self.config)
        self.model.start_task(stage.data.task)


class Meter:
    """Reports progress at every step and mean losses at the end of every epoch.

    Args:
        sink: told about both.
        task: index of the task.
        per_epoch: steps of an epoch.
        total: steps of the task.
    """

    def __init__(self, sink: Sink, task: int, per_epoch: int, total: int) -> None:
        self._sink, self._task, self._per_epoch, self._total = sink, task, per_epoch, total
        self._sums: dict[str, float] = {}
        self._steps = self._images = 0
        self._began = time.perf_counter()

    def __call__(self, done: int, values: dict[str, float], images: int) -> None:
        """Take in one step."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        self._images += images
        fields = {"phase": "training", "done": done, "total": self._total, **values}
        self._sink(Event("progress", self._task, fields))
        if done % self._per_epoch:
            return
        rate = self._images / (time.perf_counter() - self._began)
        means = {name: value / self._steps for name, value in self._sums.items()}
        epoch = {"epoch": done // self._per_epoch, "images_per_second": round(rate, 2), **means}
        self._sink(Event("epoch", self._task, epoch))
        self._sums, self._steps, self._images = {}, 0, 0
        self._began = time.perf_counter()


def _shares(row: BatchCounts) -> dict[str, Any]:
    """Accuracy over all test images so far, and on each task that has some."""
    pairs = zip(row.correct.tolist(), row.total.tolist(), strict=True)
    return {
        "accuracy": float(row.correct.sum() / max(row.total.sum(), 1)),
        "tasks": [right / count if count else None for right, count in pairs],
    }


def _check_finite(values: dict[str, float], task: int, step: int, per_epoch: int) -> None:
    wrong = [f"{name}={value}" for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise DivergenceError(
            f"The loss is not finite ({', '.join(wrong)}) in task {task + 1}, epoch "
            f"{step // per_epoch + 1}, step {step % per_epoch + 1}. Try a lower learning rate "
            "(lr=…), a higher temperature, or precision=fp32. Earlier tasks are safe: the last "
            "checkpoint was not touched."
        )


def _pack_rows(rows: Rows) -> dict[str, list[Any]]:
    """Counts as JSON; only the newest row keeps its confusion matrix."""
    packed: dict[str, list[Any]] = {}
    for head, counts in rows.items():
        newest = max((i for i, row in enumerate(counts) if row is not None), default=-1)
        packed[head] = [_pack_row(row, i == newest) for i, row in enumerate(counts)]
    return packed


def _pack_row(row: BatchCounts | None, with_confusion: bool) -> dict[str, Any] | None:
    if row is None:
        return None
    fields = {name: value.tolist() for name, value in vars(row).items()}
    return fields if with_confusion else {**fields, "confusion": []}


def _unpack_rows(packed: dict[str, Sequence[dict[str, Any] | None]]) -> Rows:
    def row(fields: dict[str, Any] | None) -> BatchCounts | None:
        if fields is None:
            return None
        counts = {k: np.asarray(v, dtype=np.int64) for k, v in fields.items()}
        side = len(counts["confusion"])
        return BatchCounts(**{**counts, "confusion": counts["confusion"].reshape(side, side)})

    return {head: [row(fields) for fields in counts] for head, counts in packed.items()}
