"""The object that is left when learning is done: it predicts, is saved and is loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from perdure.backbones.vit import FrozenViT
from perdure.engine.model import Model
from perdure.errors import ConfigError
from perdure.learner.card import Publication
from perdure.learner.history import History
from perdure.learner.hub import fetch, is_repository, push
from perdure.learner.pictures import Picture, open_picture
from perdure.learner.saving import Sizes, read_model, write_model
from perdure.streams import build_transform


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
        history: what it has been through, where that is known.
    """

    def __init__(self, model: Model, history: History | None = None) -> None:
        self.model = model
        self.history_ = history or History()

    @classmethod
    def from_model(cls, model: Model, history: History | None = None) -> ContinualClassifier:
        """Make a classifier of a model that has learned already; the arguments are the class's."""
        return cls(model, history)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes, in order of arrival."""
        return self.model.class_names

    def logits(self, pictures: Sequence[Picture], head: str | None = None) -> Float[Tensor, "n c"]:
        """Score every class for every picture.

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
            self.model.logits(torch.stack([test(open_picture(picture)) for picture in part]))[head]
            for part in _parts(pictures, run.eval_batch_size)
        ]
        return torch.cat(scores)

    def predict(self, pictures: Sequence[Picture], head: str | None = None) -> list[Prediction]:
        """Name the most likely class of every picture; see `logits`."""
        best = self.logits(pictures, head).softmax(dim=1).max(dim=1)
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [Prediction(self.classes[label], label, share) for share, label in pairs]

    def save(self, folder: Path | str, *, inference_only: bool = False) -> Sizes:
        """Write weights, classes, description and card; the backbone's weights are not part of it.

        Whenever this is interrupted, the folder holds the old model or the new one.

        Args:
            folder: created if need be; a model found there is replaced.
            inference_only: leave out what only learning on reads.

        Returns:
            Bytes of its tensors.

        Raises:
            OutputError: the folder cannot be written.
        """
        return write_model(Path(folder), self.model, self.history_, inference_only=inference_only)

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
        saved = read_model(Path(folder), backbone, device)
        return cls(saved.model, saved.history)

    @classmethod
    def from_pretrained(
        cls,
        name: Path | str,
        revision: str | None = None,
        backbone: FrozenViT | None = None,
        device: str = "auto",
    ) -> ContinualClassifier:
        """Load a model from a folder or from the model hub.

        Args:
            name: a folder, or a repository of the hub, as ``me/model``.
            revision: branch, tag or commit of the repository; the newest by default.
            backbone: see `load`.
            device: see `load`.

        Raises:
            CheckpointError: the model cannot be fetched, is damaged, or the backbone is another one.
        """
        if not is_repository(name):
            return cls.load(name, backbone, device)
        return cls.load(fetch(str(name), revision, backbone is None), backbone, device)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = False,
        inference_only: bool = False,
        licence: str = "unknown",
    ) -> str:
        """Publish the model on the model hub.

        Args:
            repository: as ``me/model``; created if need be.
            private: whether a new repository is for you alone.
            inference_only: leave out what only learning on reads.
            licence: that you publish it under, as the hub spells it: ``apache-2.0``.

        Returns:
            The address of the commit.

        Raises:
            OutputError: it cannot be published.
        """
        with tempfile.TemporaryDirectory() as folder:
            write_model(
                Path(folder),
                self.model,
                self.history_,
                inference_only=inference_only,
                publication=Publication(repository, licence),
            )
            return push(Path(folder), repository, private)


def _parts(pictures: Sequence[Picture], size: int) -> list[Sequence[Picture]]:
    return [pictures[start : start + size] for start in range(0, len(pictures), size)]
