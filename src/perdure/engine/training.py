"""Training of one task: start, optimise, finish; shared by runs and lessons."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from perdure.engine.config import Config
from perdure.engine.drift import Following
from perdure.engine.events import Event, Sink, ignore
from perdure.engine.model import Model
from perdure.engine.optim import TaskOptimiser, lr_factor
from perdure.engine.survey import ImageSurvey, KnownTokens, Queries, known_queries
from perdure.errors import ConfigError, DivergenceError
from perdure.heads import HEADS, Head
from perdure.streams import (
    Subset,
    TaskData,
    batch_count,
    batch_order,
    batches,
    build_transform,
)
from perdure.types import CachedTokens, Task

_FEATURES, _OTHERS, _PARAMETER = "features", "others", "parameter."
"""Names of what is carried: features before the task, which images beside its own they are of;
begins those of parameters."""

Keep = Callable[[int, TaskOptimiser], None]
"""Told the steps done, every ``checkpoint_every`` steps and after the last."""


@contextlib.contextmanager
def learning_mode() -> Iterator[None]:
    """Gradients on and inference mode off, whatever mode the caller is in."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextlib.contextmanager
def remarking(name: str, head: Head, sink: Sink, task: int | None = None) -> Iterator[None]:
    """Tell, as notes, which of a head's remarks are new after it took in images."""
    before = head.remarks
    yield
    for text in head.remarks:
        if text not in before:
            sink(Event("note", task, {"text": f"head {name}: {text}"}))


def refuse_single_class(task: Task, config: Config) -> None:
    """Refuse a task of a single class under the trained head alone.

    Raises:
        ConfigError: a task of one class with nothing but the trained head to evaluate.
    """
    closed = any(HEADS.declared[c.kind].closed_form for c in config.built_heads.values())
    if config.traits.trains and len(task.classes) == 1 and not closed:
        raise ConfigError(
            f"Task {task.index + 1} has the single class '{task.names[0]}': cross-entropy has "
            f"nothing to learn from it. Add heads={','.join(config.head_names)},gaussian, or "
            "choose larger tasks."
        )


class Training:
    """Training of a model on one task: `start`, `train` and `finish`, in this order.

    Where a run goes on from a checkpoint, the model has been through some of it before: then what
    is done already is left out.

    Args:
        model: changed in place.
        data: the task and its images.
        sink: receives the events.
        carried: of a checkpoint after `start`, what was carried then.
        others: unlabelled images that are looked at beside the task's, to follow the drift of features.

    Attributes:
        carried: tensors from before the task that `finish` needs: features of its images, where heads
            follow their drift, and parameters, where changes are merged.
    """

    def __init__(
        self,
        model: Model,
        data: TaskData,
        sink: Sink = ignore,
        carried: Mapping[str, Tensor] | None = None,
        others: Subset | None = None,
    ) -> None:
        self.model = model
        self.data = data
        self.carried = dict(carried or {})
        self._following = Following(model, data, others, sink)
        others_then = self.carried.get(_OTHERS)
        if others_then is not None and not torch.equal(others_then.cpu(), self._following.others):
            raise ConfigError(
                f"drift_images={model.config.training.drift_images!r}: its images are others than when "
                "this task began. Put them back as they were, or start the run anew."
            )
        self._sink = sink
        self._kept: ImageSurvey | None = None
        self._queries: Queries = {}
        self._tokens = KnownTokens(model, data, sink)

    def start(self) -> bool:
        """Start the task and initialise from data; tells whether state has to be kept at once."""
        task, config = self.data.task, self.model.config
        images = {"classes": list(task.names), "images": len(self.data.train)}
        self._sink(Event("task", task.index, images))
        moves = task.index > 0 and not self.model.features_fixed(task)
        survey = self._survey()
        if moves and any(self.model.heads[head].drift != "none" for head in config.head_names):
            self.carried[_FEATURES] = self._following.before(survey)
            self.carried[_OTHERS] = self._following.others
        there = dict(self.model.method.named_parameters())
        stood = _versions(self.model.method)
        self.model.start_task(task)
        if _versions(self.model.method) != stood:
            survey = self._survey()  # under prompts of another kind
        if moves and config.training.merge_exponent:
            for name, value in self.model.method.named_parameters():
                if there.get(name) is value:
                    self.carried[_PARAMETER + name] = value.detach().clone()
        prepared = self.model.prepare(task, survey)
        if prepared:
            self.model.ranks.align(self.model.state())
        return prepared or bool(self.carried)

    def train(
        self,
        keep: Keep | None = None,
        done: int = 0,
        restored: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Take all steps of the task; none for a single class, or where nothing is trained.

        Args:
            keep: callback that saves a checkpoint.
            done: steps taken before.
            restored: optimiser state to go on from.

        Raises:
            DivergenceError: a loss that is not finite.
        """
        task, config, ranks = self.data.task, self.model.config, self.model.ranks
        if not self._trains():
            return
        optimiser = TaskOptimiser(
            self.model.method,
            self.model.task_layer(task),
            config.training,
            protect=task.index > 0,
            prompts=not self.model.adapted(task),
        )
        if restored:
            optimiser.load(restored)
        per_epoch = batch_count(len(self.data.train), config.training.batch_size)
        total = config.training.epochs * per_epoch
        known = self._known_features()
        tokens = None if known is not None else self._tokens.of(self.model.backbone)
        queries = known_queries(self.model, self.data, self._sink)
        meter = Meter(self._sink, task.index, per_epoch, total)
        for step, (images, positions) in enumerate(self._batches(done, known, tokens), start=done):
            readout = None if known is None else known[positions.to(known.device)]
            query = None if queries is None else queries[positions.to(queries.device)]
            labels = self.data.train.labels[positions]
            loss = self.model.training_loss(images, labels, task, readout, query)
            size = self._batch_size(step % per_epoch)
            values = {name: float(term.detach()) for name, term in loss.terms.items()}

            def exchange(
                parameters: Sequence[nn.Parameter],
                size: int = size,
                step: int = step,
                values: dict[str, float] = values,
            ) -> None:
                values |= ranks.sum_gradients(parameters, values, ranks.weight(size))
                _check_finite(values, task.index, step, per_epoch)

            optimiser.step(loss.total, lr_factor(config.training, step, per_epoch), exchange)
            meter(step + 1, values, size)
            if keep and ((step + 1) % config.runtime.checkpoint_every == 0 or step + 1 == total):
                keep(step + 1, optimiser)

    def finish(self) -> None:
        """End the task: changes are merged, then method and heads update their statistics.

        What is new to be said of a head's choice is told as a note.
        """
        task, model = self.data.task, self.model
        survey, exponent = self._survey(), model.config.training.merge_exponent
        with torch.no_grad():
            if exponent and task.index > 0 and not model.features_fixed(task) and self._trains():
                before = {
                    name.removeprefix(_PARAMETER): value
                    for name, value in self.carried.items()
                    if name.startswith(_PARAMETER)
                }
                model.method.merge(before, task, exponent)
            if not model.adapted(task):
                model.method.end_task(task, survey)
            self._following.after(survey, self.carried.get(_FEATURES))
            for name, head in model.heads.items():
                with remarking(name, head, self._sink, task.index):
                    head.end_task(task, survey)
        model.ranks.align(model.state())

    def _trains(self) -> bool:
        """Whether the task has a step to take: a single class has none, nor has a head of no use."""
        model, task = self.model, self.data.task
        if not model.method.traits.trains or len(task.classes) == 1:
            return False
        evaluated = [model.heads[head] for head in model.config.head_names]
        return not model.adapted(task) or any(head is model.trained_head for head in evaluated)

    def features(self) -> tuple[Float[Tensor, "n *v d"], Int[Tensor, "n"]]:
        """Readouts and labels of the task's training images, under what the method adds now.

        Of all views that evaluated heads are taught.
        """
        return self._survey().features("train", mirrored=self.model.mirrored)

    def _survey(self) -> ImageSurvey:
        """Return a new survey; where features never change, one for the whole task."""
        if self._kept is not None:
            return self._kept
        survey = ImageSurvey(self.model, self.data, self._sink, self._queries, self._tokens)
        if self.model.features_fixed(self.data.task):
            self._kept = survey
        return survey

    def _known_features(self) -> Float[Tensor, "n d"] | None:
        """Return training features where they never change: nothing added, nothing augmented."""
        fixed = self.model.features_fixed(self.data.task)
        transform = build_transform(
            self.model.config.training.transform, self.model.backbone.img_size
        )
        if not (fixed and transform.deterministic):
            return None
        return self._survey().features("train")[0]

    def _batch_size(self, step: int) -> int:
        """Images of a batch of an epoch, those of all ranks; the last may be smaller."""
        size = self.model.config.training.batch_size
        return min(size, len(self.data.train) - step * size)

    def _batches(
        self, done: int, known: Tensor | None, tokens: CachedTokens | None
    ) -> Iterator[tuple[Tensor | CachedTokens | None, Int[Tensor, "b"]]]:
        """What this rank's share of the remaining steps computes with, and the positions of its images.

        Images of which features or tokens are known are not read again.
        """
        config, train, task = self.model.config, self.data.train, self.data.task.index
        first, begun = divmod(done, batch_count(len(train), config.training.batch_size))
        epochs = range(first, config.training.epochs)
        if known is None and tokens is None:
            for batch in batches(
                train,
                config.training.batch_size,
                transform=config.training.transform,
                side="train",
                img_size=self.model.backbone.img_size,
                seed=config.training.seed,
                task=task,
                epoch=epochs,
                workers=config.runtime.workers,
                start_step=begun,
                share=self.model.ranks.share,
            ):
                yield batch.images, batch.positions
            return
        for chunk in batch_order(
            len(train),
            config.training.batch_size,
            seed=config.training.seed,
            task=task,
            epoch=epochs,
            start_step=begun,
        ):
            positions = torch.tensor(self.model.ranks.share(chunk.positions))
            yield None if tokens is None else tokens.take(positions), positions


def _versions(method: nn.Module) -> dict[str, tuple[int, int]]:
    """Return what stays the same while no tensor of a method is written to, or another in its place."""
    tensors = itertools.chain(method.named_parameters(), method.named_buffers())
    # one of inference mode counts no versions, and cannot be written to outside of it
    return {name: (id(one), 0 if one.is_inference() else one._version) for name, one in tensors}


class Meter:
    """Meter: progress at every step, mean losses at the end of every epoch.

    Args:
        sink: receives both as events.
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
        """Count one step."""
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


def _check_finite(values: dict[str, float], task: int, step: int, per_epoch: int) -> None:
    wrong = [f"{name}={value}" for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise DivergenceError(
            f"The loss is not finite ({', '.join(wrong)}) in task {task + 1}, epoch "
            f"{step // per_epoch + 1}, step {step % per_epoch + 1}. Try a lower learning rate "
            "(lr=…), a higher temperature, or precision=fp32. Earlier tasks are safe: the last "
            "checkpoint was not touched."
        )
