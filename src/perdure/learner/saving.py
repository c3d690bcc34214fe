"""The folder of a saved model: weights, and a description that vouches for them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch

from perdure.atomic import atomic_write
from perdure.backbones.vit import FrozenViT
from perdure.engine.build import make_backbone
from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.errors import CheckpointError, OutputError
from perdure.types import Task

FORMAT = 1


def write_model(folder: Path, model: Model) -> None:
    """Write weights and description; the backbone's weights are not part of it.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"'{folder}' cannot be created ({error.strerror}).") from error
    state = {k: v.detach().cpu().contiguous() for k, v in model.state().items()}
    data = safetensors.torch.save(state)
    about = {
        "format": FORMAT,
        "config": model.config.flat(),
        "preset": model.config.preset,
        "tasks": [list(task.names) for task in model.tasks],
        "backbone_sha256": model.backbone.digest(),
        "weights_sha256": hashlib.sha256(data).hexdigest(),
    }
    atomic_write(folder / "weights.safetensors", data)
    atomic_write(folder / "model.json", json.dumps(about, indent=1).encode())


def read_model(folder: Path, backbone: FrozenViT | None, device: str) -> Model:
    """Read what `write_model` wrote.

    Args:
        folder: the model's folder.
        backbone: the backbone it was trained on; None builds it from the configuration.
        device: where to run, when the backbone is built here.

    Raises:
        CheckpointError: a file is missing or damaged, or the backbone is another one.
    """
    about, data = _read(folder)
    config = make_config({**about["config"], "device": device}, about["preset"])
    backbone = backbone or make_backbone(config)
    if backbone.digest() != about["backbone_sha256"]:
        raise CheckpointError(
            f"The model in '{folder}' was trained on other weights of '{config.run.backbone}' "
            "than those found here. Give the same weights with backbone=…"
        )
    model = Model(backbone, config)
    seen = 0
    for index, names in enumerate(about["tasks"]):
        classes = tuple(range(seen, seen + len(names)))
        seen += len(names)
        model.start_task(Task(index, classes, tuple(names), seen))
    model.load(safetensors.torch.load(data))
    return model


def _read(folder: Path) -> tuple[dict[str, Any], bytes]:
    try:
        about: dict[str, Any] = json.loads((folder / "model.json").read_text("utf-8"))
        data = (folder / "weights.safetensors").read_bytes()
        known, digest = about["format"] == FORMAT, about["weights_sha256"]
    except OSError as error:
        raise CheckpointError(
            f"'{error.filename}' cannot be read ({error.strerror}). A model's folder holds "
            "model.json and weights.safetensors."
        ) from error
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"'{folder / 'model.json'}' is damaged ({error}).") from error
    if not known:
        raise CheckpointError(
            f"The model in '{folder}' is of format {about['format']}, not {FORMAT}."
        )
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(
            f"'{folder / 'weights.safetensors'}' is damaged: its checksum is not the one noted when "
            "it was written. Take it from a backup or from the run's checkpoints."
        )
    return about, data
