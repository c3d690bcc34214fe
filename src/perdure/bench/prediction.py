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

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from perdure.backbones.catalog import create_backbone
from perdure.bench.cost import check_methods
from perdure.bench.training import TrainingStep, now, peak_memory, random_pixels, setting
from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.errors import ConfigError
from perdure.learner import ContinualClassifier
from perdure.streams import build_transform
from perdure.streams.images.decoding import decode

WIDTH, HEIGHT, QUALITY = 500, 400, 90
"""Of the JPEG files, in pixels; about 70 KB each."""
_DISTINCT = 8
"""Different contents among them; every file is decoded anew."""

Predict = Callable[[ContinualClassifier, Sequence[Path], int], object]
"""Predicts files in batches of a size, and writes the answers somewhere."""


def save_untrained(
    folder: Path,
    *,
    method: str,
    backbone: str,
    img_size: int | None = None,
    precision: str = "auto",
) -> None:
    """Save a model of two tasks, with random weights: speed does not depend on them.

    Raises:
        ConfigError: a method without prompts to train, or one that the backbone is not for.
    """
    check_methods([method], backbone)
    keys = {"method": method, "backbone": backbone, "weights": "random", "precision": precision}
    config = make_config(keys if img_size is None else {**keys, "img_size": img_size})
    frozen = create_backbone(
        backbone, weights="random", img_size=img_size, precision=precision, device="auto"
    )
    model = Model(frozen, config)
    TrainingStep(model, random_pixels(frozen, 4))
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
    if min(images, size, rounds) < 1:
        raise ConfigError(
            f"images={images}, batch_size={size}, rounds={rounds}: each must be 1 or more."
        )
    with tempfile.TemporaryDirectory() as place:
        files = _draw_files(Path(place), images)
        test = build_transform(model.config.training.transform, backbone.img_size).test
        began = time.perf_counter()
        pixels = torch.stack([test(decode(file)) for file in files])
        decode_seconds = time.perf_counter() - began
        ways: dict[str, Callable[[], object]] = {
            "bare": lambda: _each(pixels, size, lambda x: backbone(backbone.normalise(x)).cls),
            "model": lambda: _each(pixels, size, model.logits),
            "predict": lambda: predict(classifier, files, size),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, way in ways.items():
                began = now(backbone.device)
                way()
                if turn:  # the first is for warming up
                    seconds[name].append(now(backbone.device) - began)

    def share(of: str) -> float:
        pairs = zip(seconds[of], seconds["predict"], strict=True)
        return statistics.median(floor / whole for floor, whole in pairs)

    return {
        "method": model.config.training.method,
        **setting(backbone, size),
        "images": images,
        "rounds": rounds,
        **{f"{k}_images_per_second": images / statistics.median(v) for k, v in seconds.items()},
        "share_of_bare": share("bare"),
        "share_of_model": share("model"),
        "decode_ms_per_image": 1e3 * decode_seconds / images,
        "import_seconds": _import_seconds(),
        "load_seconds": load_seconds,
        "peak_memory_mib": peak_memory(backbone.device),
    }


@torch.no_grad()
def _each(pixels: UInt8[Tensor, "n 3 s s"], size: int, compute: Callable[[Tensor], object]) -> None:
    for part in pixels.split(size):
        compute(part)


def _draw_files(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of soft shapes with some noise, as photographs have it."""
    draw = np.random.Generator(np.random.PCG64(0))
    contents = []
    for _ in range(min(count, _DISTINCT)):
        shapes = Image.fromarray(draw.integers(0, 256, (25, 32, 3), dtype=np.uint8))
        soft = np.asarray(shapes.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(soft + draw.integers(-12, 13, soft.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "drawn.jpg", quality=QUALITY)
        contents.append((folder / "drawn.jpg").read_bytes())
    files = [folder / f"{number:06d}.jpg" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(contents[number % len(contents)])
    return files


def _import_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import perdure.learner.predict_files"], check=True)
    return time.perf_counter() - began
