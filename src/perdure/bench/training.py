"""Timed training steps and surveys of a late task, on random images."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from perdure.backbones.frozen import FrozenBackbone
from perdure.engine.config import Config
from perdure.engine.model import Model
from perdure.engine.optim import TaskOptimiser
from perdure.engine.survey import Float32Views
from perdure.errors import ConfigError
from perdure.randomness import generator
from perdure.types import Observer, Split, Task

CLASSES = 10
"""Classes per task."""


def check_trained(config: Config) -> None:
    """Refuse a method without training steps.

    Raises:
        ConfigError: it has none.
    """
    if not config.traits.trains:
        raise ConfigError(
            f"Method '{config.training.method}' has no training step. Name one that trains: nsp2."
        )


def check_numbers(**numbers: int) -> None:
    """Refuse numbers below 1.

    Raises:
        ConfigError: one is.
    """
    if min(numbers.values()) < 1:
        given = ", ".join(f"{name}={number}" for name, number in numbers.items())
        raise ConfigError(f"{given}: each must be 1 or more.")


def random_pixels(backbone: FrozenBackbone, count: int) -> UInt8[Tensor, "b 3 s s"]:
    """Draw images of the backbone's size."""
    size = (count, 3, backbone.img_size, backbone.img_size)
    return torch.randint(0, 256, size, generator=generator(0, "pixels")).to(torch.uint8)


def setting(backbone: FrozenBackbone, batch_size: int) -> dict[str, Any]:
    """Return the setting of a measurement: versions, device, sizes; JSON-ready."""
    return {
        "backbone": backbone.name,
        "img_size": backbone.img_size,
        "batch_size": batch_size,
        "precision": backbone.precision,
        "attention": backbone.kernel,
        "device": str(backbone.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


class TimedSurvey:
    """Survey of random images that times its passes.

    Args:
        model: model whose test-time additions and observer are timed.
        images: pixels, 0 to 255.
        batch_size: images per forward.
    """

    def __init__(self, model: Model, images: Tensor, batch_size: int) -> None:
        self._model = model
        self._images = images
        self._batch_size = batch_size
        self.seconds: float | None = None

    def __call__(self, observer: Observer, split: Split = "train") -> None:
        """Run one pass."""
        began = now(self._model.backbone.device)
        total, seen = len(self._images), Float32Views(observer)
        for positions in torch.arange(total).split(self._batch_size):
            observer.start_batch(positions, total, positions % CLASSES)
            with torch.no_grad():
                self._model.forward(self._images[positions], observer=seen, survey=True)
        self.seconds = now(self._model.backbone.device) - began

    def features(
        self, split: Split = "train", plain: bool = False, mirrored: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Readouts of all images; no head that is timed asks for plain or mirrored ones."""
        with torch.no_grad():
            readout, _ = self._model.forward(self._images, survey=True)
        return readout.float(), torch.arange(len(self._images)) % CLASSES

    def gradients(
        self, probes: Callable[[int], Tensor], most: int
    ) -> Iterator[Mapping[str, Tensor]]:
        """Refuse: what is timed is the step, and no guard that probes is among it by default."""
        raise NotImplementedError("random images are not probed")

    def has(self, split: Split) -> bool:
        """Only training images are there."""
        return split == "train"


class TrainingStep:
    """Training step of a later task, where projection and every loss term are active.

    The first and the last but one task end with statistics of the given images; the tasks between
    only begin, which is where methods and heads grow.

    Args:
        model: new.
        pixels: the batch.
        tasks: number of tasks begun, 2 or more.
    """

    def __init__(self, model: Model, pixels: Tensor, tasks: int = 2) -> None:
        self._model, self._pixels = model, pixels
        for index in range(tasks):
            first = index * CLASSES
            classes = tuple(range(first, first + CLASSES))
            self._task = Task(index, classes, tuple(map(str, classes)), first + CLASSES)
            model.start_task(self._task)
            survey = TimedSurvey(model, pixels, len(pixels))
            model.prepare(self._task, survey)
            if index in (0, tasks - 2):
                model.method.end_task(self._task, survey)
        self._labels = torch.arange(len(pixels)) % CLASSES + self._task.classes[0]
        layer = model.task_layer(self._task)
        self._optimiser = TaskOptimiser(model.method, layer, model.config.training, protect=True)

    def __call__(self) -> None:
        """Take one step."""
        loss = self._model.training_loss(self._pixels, self._labels, self._task)
        self._optimiser.step(loss.total, 1.0)


def timed(
    acts: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Return the seconds of several acts by name, one after the other in every round.

    With ``warm_up`` there is a round before that is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in acts}
    for turn in range(rounds + warm_up):
        for name, act in acts.items():
            began = now(device)
            act()
            if turn >= warm_up:
                seconds[name].append(now(device) - began)
    return seconds


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over rounds of one time over another."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def now(device: torch.device) -> float:
    """Return seconds on a clock, once the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory(device: torch.device) -> float:
    """Return the process's peak resident memory, or the device's peak allocation, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
