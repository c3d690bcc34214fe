"""`perdure bench step`: one training step and one survey of a method against their floors."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor

from perdure.backbones.frozen import FrozenBackbone
from perdure.backbones.vit import FrozenViT
from perdure.bench.floor import Shape, linear_layers
from perdure.bench.profile import step_profile
from perdure.bench.training import (
    TimedSurvey,
    TrainingStep,
    check_numbers,
    check_trained,
    now,
    peak_memory,
    random_pixels,
    ratio,
    setting,
    timed,
)
from perdure.engine.build import make_backbone
from perdure.engine.config import Config
from perdure.engine.model import Model
from perdure.errors import BackboneError
from perdure.methods.options import DeepPromptConfig


def step_report(config: Config, pairs: int = 5, profile: bool = False) -> dict[str, Any]:
    """Time training steps of a method's second task against the floor, in interleaved pairs.

    Args:
        config: method, backbone, batch size; weights may be random, time does not depend on them.
        pairs: interleaved runs of layers and step.
        profile: whether to tell where a step's time goes.

    Returns:
        JSON-ready figures; ``share_of_floor`` is floor seconds over step seconds (median of pairs),
        ``survey_ratio`` a survey over a plain float32 forward of the same images, ``profile`` the
        seconds of a step by kind of work, as the profiler sees them (it slows the step).

    Raises:
        ConfigError: the method is not trained, or a number below 1.
    """
    check_numbers(pairs=pairs)
    check_trained(config)
    frozen, batch_size = make_backbone(config), config.training.batch_size
    if not isinstance(frozen, FrozenViT):
        raise BackboneError(
            f"'{frozen.name}' is no vision transformer, and a step's floor is counted for these alone."
            " Choose one, as backbone=vit_small_patch16_224."
        )
    model = Model(frozen, config)
    pixels = random_pixels(frozen, batch_size)
    step = TrainingStep(model, pixels)
    shape = Shape.of(frozen.spec, frozen.hidden, frozen.patch, _prompts(config.method))
    layers = linear_layers(shape, batch_size, frozen.dtype, frozen.device)
    seconds = timed({"layers": layers, "step": step}, pairs, frozen.device)
    rate = shape.linear_flops(batch_size) / min(seconds["layers"])
    floor = shape.step_flops(batch_size) / rate
    middle = statistics.median(seconds["step"])
    return {
        "method": config.training.method,
        **setting(frozen, batch_size),
        "pairs": pairs,
        "step_seconds": middle,
        "images_per_second": batch_size / middle,
        "floor_flops": shape.step_flops(batch_size),
        "linear_gflops_per_second": rate / 1e9,
        "floor_seconds": floor,
        "share_of_floor": statistics.median(floor / one for one in seconds["step"]),
        "survey_precision": config.runtime.survey_precision,
        **_survey_figures(model, pixels, pairs),
        "peak_memory_mib": peak_memory(frozen.device),
        **({"profile": step_profile(step)} if profile else {}),
    }


def _survey_figures(model: Model, pixels: Tensor, pairs: int) -> dict[str, float | None]:
    """Survey against plain forward, interleaved; None where the method keeps no statistics."""
    images = pixels.repeat(2, 1, 1, 1)
    plain, surveys = [], []
    backbone: FrozenBackbone = model.backbone.float32
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
    return {
        "survey_ratio": ratio(surveys, plain),
        "survey_images_per_second": len(images) / statistics.median(surveys),
    }


def _prompts(options: Any) -> int:
    """Prompt vectors per block of the VPT family; 0 for methods without deep prompts."""
    return options.prompt_length if isinstance(options, DeepPromptConfig) else 0
