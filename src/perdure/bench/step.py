"""`perdure bench step`: one training step and one survey of a method against their floors."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from typing import Any

import torch
from torch import Tensor

from perdure.backbones.catalog import create_backbone
from perdure.backbones.vit import FrozenViT
from perdure.bench.floor import LinearRate, Shape, synchronise
from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.engine.optim import TaskOptimiser
from perdure.errors import ConfigError
from perdure.randomness import generator
from perdure.types import Observer, Split, Task

CLASSES = 10


class TimedSurvey:
    """Shows random images to an observer in batches and times the passes alone.

    Args:
        model: whose test-time additions and observer are timed.
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
        began = _now(self._model.backbone.device)
        total = len(self._images)
        for positions in torch.arange(total).split(self._batch_size):
            observer.start_batch(positions, total, positions % CLASSES)
            with torch.no_grad():
                self._model.forward(self._images[positions], observer=observer, float32=True)
        self.seconds = _now(self._model.backbone.device) - began

    def features(self, split: Split = "train") -> tuple[Tensor, Tensor]:
        """Readouts of all images."""
        with torch.no_grad():
            readout, _ = self._model.forward(self._images, float32=True)
        return readout, torch.arange(len(self._images)) % CLASSES

    def has(self, split: Split) -> bool:
        """Only training images are there."""
        return split == "train"


def step_report(
    method: str,
    *,
    batch_size: int = 8,
    precision: str = "auto",
    backbone: str = "vit_base_patch16_224.augreg_in21k",
    img_size: int | None = None,
    device: str = "auto",
    pairs: int = 5,
) -> dict[str, Any]:
    """Time training steps of a method's second task against the floor, in interleaved pairs.

    Weights are random: time does not depend on them.

    Args:
        method: a method that trains.
        batch_size: images per step.
        precision: compute type of the step and of the floor's layers.
        backbone: architecture.
        img_size: side in pixels; the backbone's own by default.
        device: where to run.
        pairs: interleaved runs of layers and step.

    Returns:
        JSON-ready figures; ``share_of_floor`` is floor seconds over step seconds (median of pairs),
        ``survey_ratio`` a survey over a plain float32 forward of the same images.

    Raises:
        ConfigError: the method is not trained, or a value that makes no sense.
    """
    if batch_size < 1 or pairs < 1:
        raise ConfigError(
            f"batch_size={batch_size}, pairs={pairs}: both must be 1 or more, as batch_size=8."
        )
    config = make_config({"method": method, "backbone": backbone})
    if not config.method_class.traits.trains:
        raise ConfigError(f"Method '{method}' has no training step. Name one that trains: nsp2.")
    frozen = create_backbone(
        backbone, weights="random", img_size=img_size, precision=precision, device=device
    )
    model = Model(frozen, config)
    pixels = torch.randint(
        0, 256, (batch_size, 3, frozen.img_size, frozen.img_size), generator=generator(0, "pixels")
    ).to(torch.uint8)
    step = _Step(model, pixels)
    shape = Shape.of(frozen.spec, frozen.hidden, frozen.patch, _prompts(config.method))
    rate = LinearRate(shape, batch_size, frozen.dtype, frozen.device)
    step()
    rate()
    rates, seconds = [], []
    for _ in range(pairs):
        rates.append(rate())
        seconds.append(step())
    floor = shape.step_flops(batch_size) / max(rates)
    middle = statistics.median(seconds)
    return {
        "method": method,
        "backbone": frozen.name,
        "img_size": frozen.img_size,
        "batch_size": batch_size,
        "precision": frozen.precision,
        "device": str(frozen.device),
        "threads": torch.get_num_threads(),
        "pairs": pairs,
        "step_seconds": middle,
        "images_per_second": batch_size / middle,
        "floor_flops": shape.step_flops(batch_size),
        "linear_gflops_per_second": max(rates) / 1e9,
        "floor_seconds": floor,
        "share_of_floor": statistics.median(floor / one for one in seconds),
        **_survey_figures(model, pixels, pairs),
        "peak_memory_mib": _peak_memory(frozen.device),
        "torch": torch.__version__,
    }


class _Step:
    """A training step of the second task, where projection and every loss term are active."""

    def __init__(self, model: Model, pixels: Tensor) -> None:
        self._model, self._pixels = model, pixels
        self._labels = torch.arange(len(pixels)) % CLASSES + CLASSES
        names = tuple(str(c) for c in range(2 * CLASSES))
        first = Task(0, tuple(range(CLASSES)), names[:CLASSES], CLASSES)
        self._task = Task(1, tuple(range(CLASSES, 2 * CLASSES)), names[CLASSES:], 2 * CLASSES)
        model.start_task(first)
        model.method.end_task(first, TimedSurvey(model, pixels, len(pixels)))
        model.start_task(self._task)
        layer = model.task_layer(self._task)
        self._optimiser = TaskOptimiser(model.method, layer, model.config.run, protect=True)

    def __call__(self) -> float:
        device = self._model.backbone.device
        began = _now(device)
        loss = self._model.training_loss(self._pixels, self._labels, self._task)
        self._optimiser.step(loss.total, 1.0)
        return _now(device) - began


def _survey_figures(model: Model, pixels: Tensor, pairs: int) -> dict[str, float | None]:
    """Survey against plain forward, interleaved; None where the method keeps no statistics."""
    images = pixels.repeat(2, 1, 1, 1)
    plain, surveys = [], []
    backbone: FrozenViT = model.backbone.float32
    for _ in range(pairs):
        began = _now(backbone.device)
        with torch.no_grad():
            for part in images.split(len(pixels)):
                backbone(backbone.normalise(part), read="all")
        plain.append(_now(backbone.device) - began)
        survey = TimedSurvey(model, images, len(pixels))
        model.method.end_task(model.tasks[-1], survey)
        if survey.seconds is None:
            return {"survey_ratio": None}
        surveys.append(survey.seconds)
    ratios = [ours / floor for ours, floor in zip(surveys, plain, strict=True)]
    return {
        "survey_ratio": statistics.median(ratios),
        "survey_images_per_second": len(images) / statistics.median(surveys),
    }


def _prompts(options: Any) -> int:
    """Prompt vectors per block of the VPT family; 0 for methods without deep prompts."""
    return int(getattr(options, "prompt_length", 0))


def _now(device: torch.device) -> float:
    synchronise(device)
    return time.perf_counter()


def _peak_memory(device: torch.device) -> float:
    """The process's peak resident memory, or the device's peak allocation, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
