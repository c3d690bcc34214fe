"""Saving, loading and publishing a classifier."""

from __future__ import annotations

import abc
import tempfile
from pathlib import Path
from typing import TypeVar

from perdure.backbones.vit import FrozenViT
from perdure.engine.model import Model
from perdure.learner.history import History
from perdure.learner.saved.card import Publication
from perdure.learner.saved.hub import fetch, is_repository, push
from perdure.learner.saved.model import Sizes, read_model, write_model
from perdure.learner.state import Learned

K = TypeVar("K", bound="Kept")


class Kept(abc.ABC):
    """What a classifier does with folders and the model hub."""

    @classmethod
    @abc.abstractmethod
    def from_model(cls: type[K], model: Model, history: History | None = None) -> K:
        """Make a classifier of a model that has learned already.

        Args:
            model: backbone, method and heads after some tasks.
            history: what it has been through, where that is known.
        """

    @property
    @abc.abstractmethod
    def learned_(self) -> Learned:
        """What was learned."""

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
        learned = self.learned_
        return write_model(
            Path(folder), learned.model, learned.history, inference_only=inference_only
        )

    @classmethod
    def load(
        cls: type[K], folder: Path | str, backbone: FrozenViT | None = None, device: str = "auto"
    ) -> K:
        """Read what `save` wrote.

        Args:
            folder: the model's folder.
            backbone: the backbone it was trained on; built anew from the configuration by default.
            device: where to run, when the backbone is built here.

        Raises:
            CheckpointError: a file is missing or damaged, or the backbone is another one.
        """
        saved = read_model(Path(folder), backbone, device)
        return cls.from_model(saved.model, saved.history)

    @classmethod
    def from_pretrained(
        cls: type[K],
        name: Path | str,
        revision: str | None = None,
        backbone: FrozenViT | None = None,
        device: str = "auto",
    ) -> K:
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
        learned = self.learned_
        with tempfile.TemporaryDirectory() as folder:
            write_model(
                Path(folder),
                learned.model,
                learned.history,
                inference_only=inference_only,
                publication=Publication(repository, licence),
            )
            return push(Path(folder), repository, private)
