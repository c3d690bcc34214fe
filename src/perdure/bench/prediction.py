"""`perdure bench predict`: rate of predicting files against the bare backbone's."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from perdure.bench.cost import check_methods
from perdure.bench.data import drawn_photographs
from perdure.bench.training import (
    TrainingStep,
    check_numbers,
    peak_memory,
    random_pixels,
    ratio,
    setting,
    timed,
)
from perdure.engine.build import make_backbone
from perdure.engine.config import Config
from perdure.engine.model import Model
from perdure.learner import ContinualClassifier
from perdure.streams import build_transform
from perdure.streams.decoding import ImageFile, decode

Predict = Callable[[ContinualClassifier, Sequence[ImageFile], int], object]
"""Predicts files in batches of a size, and writes the answers somewhere."""


def save_untrained(folder: Path, config: Config) -> None:
    """Save a model of two tasks that has learned nothing: speed does not depend on its weights.

    Raises:
        ConfigError: a method without prompts to train, or one that the backbone is not for.
    """
    check_methods([config.training.method], config.training.backbone)
    model = Model(make_backbone(config), config)
    TrainingStep(model, random_pixels(model.backbone, 4))
    ContinualClassifier.from_model(model).save(folder)


def predict_report(
    folder: Path,
    predict: Predict,
    *,
    images: int = 64,
    batch_size: int | None = None,
    rounds: int = 5,
) -> dict[str, Any]:
    """Time, in turn and in batches of one size, three ways through the same images.

    Bare is the plain backbone up to the class token, on pixels that are decoded and transformed
    already: no prompts, no head, no files. Model is all that the model computes, on the same
    pixels. Predict begins with the JPEG files and ends with answers that are written.

    Args:
        folder: folder of a saved model.
        predict: what is measured.
        images: files per round.
        batch_size: images per forward; the model's ``eval_batch_size`` by default.
        rounds: number of timings of each.

    Returns:
        JSON-ready figures; ``share_of_bare`` and ``share_of_model`` are medians over the rounds.
        What comes before the first image, imports and loading, is not part of them.

    Raises:
        ConfigError: a number below 1.
        CheckpointError: no model in the folder.
    """
    loaded = time.perf_counter()
    classifier = ContinualClassifier.load(folder)
    load_seconds = time.perf_counter() - loaded
    model, backbone = classifier.model, classifier.model.backbone
    size = model.config.runtime.eval_batch_size if batch_size is None else batch_size
    check_numbers(images=images, batch_size=size, rounds=rounds)
    with tempfile.TemporaryDirectory() as place:
        files = drawn_photographs(Path(place), images).paths
        test = build_transform(model.config.training.transform, backbone.img_size).test
        began = time.perf_counter()
        pixels = torch.stack([test(decode(file)) for file in files])
        decode_seconds = time.perf_counter() - began
        ways: dict[str, Callable[[], object]] = {
            "bare": lambda: _each(pixels, size, lambda x: backbone(backbone.normalise(x)).cls),
            "model": lambda: _each(pixels, size, model.logits),
            "predict": lambda: predict(classifier, files, size),
        }
        seconds = timed(ways, rounds, backbone.device)
    return {
        "method": model.config.training.method,
        **setting(backbone, size),
        "images": images,
        "rounds": rounds,
        **{f"{k}_images_per_second": images / statistics.median(v) for k, v in seconds.items()},
        "share_of_bare": ratio(seconds["bare"], seconds["predict"]),
        "share_of_model": ratio(seconds["model"], seconds["predict"]),
        "decode_ms_per_image": 1e3 * decode_seconds / images,
        "import_seconds": _import_seconds(),
        "load_seconds": load_seconds,
        "peak_memory_mib": peak_memory(backbone.device),
    }


@torch.no_grad()
def _each(pixels: UInt8[Tensor, "n 3 s s"], size: int, compute: Callable[[Tensor], object]) -> None:
    for part in pixels.split(size):
        compute(part)


def _import_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import perdure.learner.predict_files"], check=True)
    return time.perf_counter() - began
