"""`perdure bench data`: rate of reading images against the rate of training steps."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from perdure.bench.training import TrainingStep, check_trained, random_pixels, setting, timed
from perdure.bench.verdict import Reading, verdict
from perdure.engine.build import make_backbone
from perdure.engine.config import Config
from perdure.engine.model import Model
from perdure.errors import ConfigError
from perdure.randomness import generator
from perdure.streams import FileImages, ImageSet, StreamConfig, Subset, batches, load_source
from perdure.streams.workers import usable_cores, worker_count

LATER = 2
"""Passes that are timed after the first."""
LARGE = 1_000_000
"""Images of a data set that is worth as many workers as the machine bears."""
DRAWN = 32
"""Different photographs that are drawn where no data are named."""
PHOTOGRAPH = (500, 400)
"""Their width and height in pixels."""


def data_report(
    config: Config, data: str | None, workers: Sequence[int], images: int
) -> dict[str, Any]:
    """Time passes over training images, in turn with training steps of a method's second task.

    Weights are random and the step's images are in memory: time does not depend on them.

    Args:
        config: method, backbone, transform, batch size, and where the images are.
        data: what the images are called in the report; None draws JPEG files, which are read anew
            in every pass.
        workers: numbers of reading processes to measure.
        images: largest number of images per pass.

    Returns:
        JSON-ready figures. ``readings`` holds the images per second of the first pass and of later
        ones per number of workers, and the share of the time that the learner waits;
        ``verdict`` follows from them (`verdict`).

    Raises:
        ConfigError: the method is not trained, or a number of workers that makes no sense.
        StreamError: images that cannot be used.
    """
    _check(config, workers)
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        photos = drawn_photographs(Path(folder), images) if data is None else _training_set(config)
        subset = _some(photos, images)
        backbone = make_backbone(config)
        step = TrainingStep(
            Model(backbone, config), random_pixels(backbone, config.training.batch_size)
        )
        step()
        seconds, readings = [], []
        for count in workers:
            seconds += timed({"step": step}, 1, backbone.device, warm_up=False)["step"]
            readings.append(read(subset, config, backbone.img_size, count))
    size = 3 * backbone.img_size**2
    needed = config.training.batch_size / statistics.median(seconds)
    judged = verdict(needed, readings, usable_cores())
    return {
        "data": data or f"{DRAWN} drawn JPEG files of {PHOTOGRAPH[0]} × {PHOTOGRAPH[1]} px",
        "images": len(subset),
        "decoded_in_memory": photos.in_memory,
        "transform": config.training.transform,
        "method": config.training.method,
        **setting(backbone, config.training.batch_size),
        "cores": usable_cores(),
        "auto_workers": worker_count("auto", LARGE, size * config.training.batch_size),
        "learner_images_per_second": needed,
        "readings": [_figures(one, needed) for one in readings],
        "starves": judged.starves,
        "workers": judged.workers,
        "verdict": judged.text,
    }


def read(subset: Subset, config: Config, img_size: int, workers: int) -> Reading:
    """Time a first pass and later ones as a run makes them, over a set that has computed nothing."""
    # A copy shares what is decoded, and leaves behind what transforms made of it.
    fresh = Subset(copy.copy(subset.images), subset.indices, subset.labels)
    began = time.perf_counter()
    seen, ended = 0, 0.0
    for batch in batches(
        fresh,
        config.training.batch_size,
        transform=config.training.transform,
        side="train",
        img_size=img_size,
        seed=config.training.seed,
        task=0,
        epoch=range(1 + LATER),
        workers=workers,
    ):
        seen += len(batch.labels)
        if seen == len(subset):
            ended = time.perf_counter()
    later = LATER * len(subset) / (time.perf_counter() - ended)
    return Reading(workers, len(subset) / (ended - began), later)


def drawn_photographs(folder: Path, count: int) -> FileImages:
    """Draw JPEG files with the smooth areas and the noise of photographs.

    Args:
        folder: where they go.
        count: images of the set; there are `DRAWN` files, and each is used again and again.
    """
    width, height = PHOTOGRAPH
    paths = []
    for number in range(min(DRAWN, count)):
        draw = generator(0, "photograph", number)
        coarse = torch.randint(0, 256, (14, 17, 3), generator=draw).numpy().astype(np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(PHOTOGRAPH, Image.Resampling.BICUBIC))
        noise = 8 * torch.randn(height, width, 3, generator=draw).numpy()
        pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    repeated = [paths[number % len(paths)] for number in range(count)]
    return FileImages(repeated, np.zeros(count, dtype=np.int64))


def _training_set(config: Config) -> ImageSet:
    stream = config.stream
    asked = StreamConfig(stream.data, stream.image_column, stream.label_column)
    return load_source(asked).train


def _some(images: ImageSet, most: int) -> Subset:
    """Return at most so many images, spread over the set."""
    count = min(len(images), most)
    indices = np.linspace(0, len(images) - 1, count).round().astype(np.int64)
    return Subset(images, indices, torch.from_numpy(images.labels[indices]))


def _figures(reading: Reading, needed: float) -> dict[str, Any]:
    return {
        "workers": reading.workers,
        "first_images_per_second": reading.first,
        "later_images_per_second": reading.later,
        "times_needed": reading.later / needed,
        "waiting_first": reading.waiting(needed, first=True),
        "waiting": reading.waiting(needed),
    }


def _check(config: Config, workers: Sequence[int]) -> None:
    check_trained(config)
    most = max(2, usable_cores())
    wrong = [count for count in workers if not 0 <= count <= most]
    if wrong or not workers or len(set(workers)) < len(workers):
        raise ConfigError(
            f"--workers {','.join(map(str, workers))}: allowed on this machine are 0 to {most}, "
            "each once, as --workers 0,1,2."
        )
