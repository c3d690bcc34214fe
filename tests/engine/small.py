"""Runs of a second or two on random weights and drawn images."""

from __future__ import annotations

from typing import Any

from perdure.engine.config import Config, make_config

SMALL = {
    "backbone": "test_vit",
    "weights": "random",
    "img_size": 32,
    "stream": "synthetic",
    "tasks": "2+2+2+2+2",
    "images_per_class": 8,
    "test_images_per_class": 4,
    "batch_size": 4,
    "epochs": 2,
    "device": "cpu",
    "precision": "fp32",
    "checkpoint_every": 3,
}
STEPS_PER_TASK = 8
TASKS = 5


def small_config(method: str, **changes: Any) -> Config:
    """A small run of a method."""
    return make_config({**SMALL, "method": method, **changes})
