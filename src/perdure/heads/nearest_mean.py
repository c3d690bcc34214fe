"""Nearest-mean head: one mean feature per class, updated once per task, no image kept."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perdure.heads.base import Head, set_known_means
from perdure.heads.catalog import HEADS
from perdure.heads.config import StatisticsConfig
from perdure.numerics.drift_statistics import Moments
from perdure.numerics.feature_drift import FeatureDrift
from perdure.numerics.gaussians import class_moments
from perdure.numerics.leave_one_out import can_be_left_out
from perdure.types import BackboneSpec, Generators, Survey, Task, Trace


@HEADS.register("ncm")
class NearestMeanHead(Head):
    """Cosine between the feature and the class mean: nearest class mean."""

    config: StatisticsConfig
    means: Tensor
    counts: Tensor

    def __init__(self, spec: BackboneSpec, config: StatisticsConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.register_buffer("means", torch.zeros(0, spec.dim))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))

    @property
    def stores_statistics(self) -> str:
        """The means."""
        return "per class one mean feature"

    def start_task(self, task: Task) -> None:
        """Add a row per new class."""
        self.means = torch.cat([self.means, self.means.new_zeros(len(task.classes), self.dim)])
        self.counts = torch.cat([self.counts, self.counts.new_zeros(len(task.classes))])

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Cosine similarity with every class mean, in [-1, 1]."""
        unit = torch.nn.functional.normalize
        return unit(features, dim=1) @ unit(self.means, dim=1).T

    def class_means(self) -> Float[Tensor, "c d"] | None:
        """The means of classes that are not forgotten."""
        return self.means[self.means.any(dim=1)].double()

    def follow(self, drift: FeatureDrift) -> None:
        """Move the means."""
        moved = drift.moved(self.drift, Moments(self.means[: drift.known].double()))
        set_known_means(self.means, moved.means)

    def end_task(self, task: Task, survey: Survey) -> None:
        """Store the mean feature of each of the task's classes, and how many images it is of."""
        moments = class_moments(*survey.features("train"), task.classes)
        self.means[list(task.classes)] = moments.means.to(self.means)
        self.counts[list(task.classes)] = moments.counts.to(self.counts)

    def scores_left_out(
        self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]
    ) -> tuple[Bool[Tensor, "n"], Float[Tensor, "j c"]]:
        """Cosines with every class mean, that of an image's own class being without it."""
        judged = can_be_left_out(self.counts.to(labels.device), labels)
        x, own = self.taught(features)[judged].double(), labels[judged]
        count = self.counts[own].double()[:, None]
        without = (count * self.means[own] - x) / (count - 1)
        unit = functools.partial(torch.nn.functional.normalize, dim=1)
        scores, alone = unit(x) @ unit(self.means.double()).T, (unit(x) * unit(without)).sum(dim=1)
        return judged, scores.scatter(1, own[:, None], alone[:, None])

    def refuses(self, labels: Sequence[int]) -> str:
        """Refuse only in models saved before counts were kept."""
        if all(int(self.counts[label]) for label in labels):
            return ""
        return "the model was saved by a version that did not keep how many images a mean is of"

    def take_in(self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]) -> None:
        """Move the means of these classes."""
        rows = labels.unique().tolist()
        new = class_moments(self.taught(features), labels, tuple(rows))
        total = self.counts[rows] + new.counts
        share = (new.counts.double() / total)[:, None]
        old = self.means[rows].double()
        self.means[rows] = (old + share * (new.means - old)).to(self.means)
        self.counts[rows] = total

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take over a saved state; counts are 0 where it is of a version that kept none."""
        counts = torch.zeros(len(self.means), dtype=torch.int64)
        return super().load_state_dict({"counts": counts, **state_dict}, strict, assign)

    def forget(self, label: int) -> list[Trace]:
        """Overwrite the class's mean and count; nothing else knows of it."""
        self.means[label] = 0
        self.counts[label] = 0
        return []
