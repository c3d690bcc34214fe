"""Following of a task's drift: features before and after, and the maps that heads follow by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from perdure.cache import expanded
from perdure.engine.events import Event, Sink
from perdure.engine.model import Model
from perdure.engine.survey import ImageSurvey
from perdure.errors import ConfigError, StreamError
from perdure.numerics.drift_maps import Fit, linear_map
from perdure.numerics.feature_drift import FeatureDrift
from perdure.streams import Subset, TaskData
from perdure.streams.images.file_sets import LabelledFiles, checked_images
from perdure.streams.images.find_images import walk


class Following:
    """Following of one task's drift by the heads that keep statistics of features.

    `before` is called before the task starts, `after` once method and prompts are what they will be.

    Args:
        model: changed in place.
        data: the task and its images.
        others: unlabelled images that are looked at beside them.
        sink: receives progress, and the drift's size.
    """

    def __init__(self, model: Model, data: TaskData, others: Subset | None, sink: Sink) -> None:
        self._model, self._data, self._sink = model, data, sink
        self._others = None if others is None else replace(data, train=others, val=None)

    @property
    def others(self) -> UInt8[Tensor, "32"]:
        """Checksum of the names of the unlabelled images, which a run that goes on must find again."""
        names = [] if self._others is None else self._others.train.images.names
        digest = hashlib.sha256("\n".join(map(str, names)).encode(errors="surrogateescape"))
        return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)

    def before(self, survey: ImageSurvey) -> Tensor:
        """Return the readouts of the task's images, and of the others, under the prompts of before.

        Args:
            survey: of the task's images under those prompts.
        """
        return self._with_others(survey)

    def after(self, survey: ImageSurvey, before: Float[Tensor, "n d"] | None) -> None:
        """Let heads follow from the features before, and anchors take the task in.

        Args:
            survey: of the task's images under the prompts of now.
            before: what `before` returned; None where there is nothing to follow.
        """
        task, anchors = self._data.task, self._model.anchors
        if before is None and anchors is None:
            return
        after = self._with_others(survey)
        groups = self._groups(len(after)).to(after.device)
        anchor, held = None, None
        if anchors is not None:
            anchor = linear_map(self._with_others(survey, plain=True), after, groups=groups)
            held = anchors.moments(task.classes[0], anchor.map)
        if before is not None and not torch.equal(before.to(after.device), after):
            known = task.classes[0]
            drift = FeatureDrift(before.to(after.device), after, known, groups, held)
            self._follow(drift, anchor)
        if anchors is not None and anchor is not None:
            features, labels = survey.features("train")
            anchors.end_task(task, survey.plain_readouts(), features, labels, anchor.map)

    def _follow(self, drift: FeatureDrift, anchor: Fit | None) -> None:
        task = self._data.task.index
        for name, head in self._model.heads.items():
            if head.drift == "none" or name not in self._model.config.head_names:
                continue
            head.follow(drift)
            fit = drift.fit(head.drift)
            fields: dict[str, Any] = {"head": name, "size": drift.size, "explained": fit.explained}
            if fit.ratio is not None:
                fields["ratio"] = fit.ratio
            if anchor is not None and head.drift in ("anchored", "mixed"):
                fields["anchor_explained"] = anchor.explained
            self._sink(Event("drift", task, fields))

    def _groups(self, count: int) -> Int[Tensor, "n"]:
        """The class of every image; each of the others is its own."""
        labels = self._data.train.labels
        others = torch.arange(count - len(labels)) + self._data.task.seen
        return torch.cat([labels, others])

    def _with_others(self, survey: ImageSurvey, plain: bool = False) -> Float[Tensor, "n d"]:
        surveys = [survey]
        if self._others is not None:
            surveys.append(ImageSurvey(self._model, self._others, self._sink))
        parts = [s.plain_readouts() if plain else s.features("train")[0] for s in surveys]
        return torch.cat(parts)


def unlabelled(folder: str) -> Subset:
    """Return all images in a folder and below it, without a class.

    Raises:
        ConfigError: no such folder.
        StreamError: it holds no image.
        UnreadableImageError: images that cannot be decoded, all of them listed.
    """
    path = expanded(folder)
    if not path.is_dir():
        raise ConfigError(
            f"drift_images={folder!r}: there is no such folder. Name one with photographs."
        )
    found = list(walk(path))
    if closed := [f"{one.path}: {one.fault}" for one in found if one.fault]:
        raise StreamError(
            f"drift_images={folder!r}: {closed[0]}. Make it readable, or move it out."
        )
    if not found:
        raise StreamError(
            f"drift_images={folder!r} holds no image. Put photographs there, or leave it out."
        )
    paths = [one.path for one in found]
    labels = np.zeros(len(paths), dtype=np.int64)
    images, _ = checked_images(LabelledFiles(paths, labels), skip_unreadable=False)
    return Subset(images, np.arange(len(paths)), torch.from_numpy(labels))


def refuse_test_images(others: Subset, tasks: Iterable[TaskData], folder: str) -> None:
    """Refuse unlabelled images that are test images of the stream, by their pixels.

    Raises:
        StreamError: the first of them, and how many there are.
    """
    tested = {digest for data in tasks for digest in _digests(data.test).values()}
    same = [name for name, digest in _digests(others).items() if digest in tested] if tested else []
    if same:
        raise StreamError(
            f"drift_images={folder!r} holds {len(same)} of the stream's test images, first "
            f"{same[0]}. What is tested must not be learned from: take them out."
        )


def _digests(subset: Subset) -> Mapping[str, bytes]:
    digests = {}
    for index in subset.indices:
        pixels = subset.images.image(int(index))
        content = str(pixels.size).encode() + pixels.tobytes()
        digests[subset.images.names[index]] = hashlib.sha256(content).digest()
    return digests
