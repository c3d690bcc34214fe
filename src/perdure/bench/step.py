"""`perdure bench step`: one training step and one survey of a method against their floors."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor

from perdure.backbones.catalog import create_backbone
from perdure.backbones.vit import FrozenViT
from perdure.bench.floor import LinearRate, Shape
from perdure.bench.training import (
    TimedSurvey,
    TrainingStep,
    now,
    peak_memory,
    random_pixels,
    setting,
)
from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.errors import ConfigError
from perdure.methods.options import DeepPromptConfig


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
    pixels = random_pixels(frozen, batch_size)
    step = TrainingStep(model, pixels)
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
        **setting(frozen, batch_size),
        "pairs": pairs,
        "step_seconds": middle,
        "images_per_second": batch_size / middle,
        "floor_flops": shape.step_flops(batch_size),
        "linear_gflops_per_second": max(rates) / 1e9,
        "floor_seconds": floor,
        "share_of_floor": statistics.median(floor / one for one in seconds),
        **_survey_figures(model, pixels, pairs),
        "peak_memory_mib": peak_memory(frozen.device),
    }


def _survey_figures(model: Model, pixels: Tensor, pairs: int) -> dict[str, float | None]:
    """Survey against plain forward, interleaved; None where the method keeps no statistics."""
    images = pixels.repeat(2, 1, 1, 1)
    plain, surveys = [], []
    backbone: FrozenViT = model.backbone.float32
    for _ in range(pairs):
        began = now(backbone.device)
        with torch.no_grad():
            for part in images.split(len(pixels)):
                backbone(backbone.normalise(part), read="all")
        plain.append(now(backbone.device) - began)
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
    return options.prompt_length if isinstance(options, DeepPromptConfig) else 0
