"""The object that is left when learning is done: it predicts, is saved and is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from perdure.atomic import atomic_write
from perdure.backbones.vit import FrozenViT
from perdure.engine.build import make_backbone
from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.errors import CheckpointError, ConfigError, OutputError
from perdure.streams import build_transform
from perdure.streams.decoding import decode, to_rgb
from perdure.types import Task

FORMAT = 1
Picture = str | Path | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """What a picture is taken for.

    Attributes:
        name: the class.
        label: its position in order of arrival.
        probability: softmax of the head's scores, in [0, 1].
    """

    name: str
    label: int
    probability: float


class ContinualClassifier:
    """A classifier that has learned one or more tasks.

    A prediction for a picture is the same alone or among others, and needs no task id.

    Args:
        model: backbone, method and heads after some tasks.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes, in order of arrival."""
        return self.model.class_names

    def logits(self, pictures: Sequence[Picture], head: str | None = None) -> Float[Tensor, "n c"]:
        """Score every class for every picture; the best of its scores where it has one per domain.

        Args:
            pictures: files, PIL images or uint8 arrays (height, width[, 3]).
            head: one of the evaluated heads; the last one named in the configuration by default.

        Raises:
            ConfigError: no such head, or nothing to predict.
            UnreadableImageError: a file that cannot be decoded.
        """
        names = self.model.config.head_names
        head = names[-1] if head is None else head
        if head not in names:
            raise ConfigError(f"This model has no head '{head}'. It has: {', '.join(names)}.")
        if not pictures:
            raise ConfigError("There is no picture to predict.")
        run = self.model.config.run
        test = build_transform(run.transform, self.model.backbone.img_size).test
        scores = [
            self.model.logits(torch.stack([test(_open(picture)) for picture in part]))[head]
            for part in _parts(pictures, run.eval_batch_size)
        ]
        return self.model.class_scores(torch.cat(scores))

    def predict(self, pictures: Sequence[Picture], head: str | None = None) -> list[Prediction]:
        """Name the most likely class of every picture; see `logits`."""
        best = self.logits(pictures, head).softmax(dim=1).max(dim=1)
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [Prediction(self.classes[label], label, share) for share, label in pairs]

    def save(self, folder: Path | str) -> None:
        """Write weights and description; the backbone's weights are not part of it.

        Raises:
            OutputError: the folder cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"'{folder}' cannot be created ({error.strerror}).") from error
        state = {k: v.detach().cpu().contiguous() for k, v in self.model.state().items()}
        data = safetensors.torch.save(state)
        about = {
            "format": FORMAT,
            "config": self.model.config.flat(),
            "preset": self.model.config.preset,
            "tasks": [list(task.names) for task in self.model.tasks],
            "backbone_sha256": self.model.backbone.digest(),
            "weights_sha256": hashlib.sha256(data).hexdigest(),
        }
        atomic_write(folder / "weights.safetensors", data)
        atomic_write(folder / "model.json", json.dumps(about, indent=1).encode())

    @classmethod
    def load(
        cls, folder: Path | str, backbone: FrozenViT | None = None, device: str = "auto"
    ) -> ContinualClassifier:
        """Read what `save` wrote.

        Args:
            folder: the model's folder.
            backbone: the backbone it was trained on; built anew from the configuration by default.
            device: where to run, when the backbone is built here.

        Raises:
            CheckpointError: a file is missing or damaged, or the backbone is another one.
        """
        folder = Path(folder)
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
        return cls(model)


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


def _open(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    if isinstance(picture, np.ndarray):
        return to_rgb(Image.fromarray(picture))
    return decode(Path(picture))


def _parts(pictures: Sequence[Picture], size: int) -> list[Sequence[Picture]]:
    return [pictures[start : start + size] for start in range(0, len(pictures), size)]
