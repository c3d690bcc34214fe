"""Anchors: class moments in the plain backbone's features, a space that never moves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from perdure.numerics.drift_maps import AffineMap
from perdure.numerics.drift_statistics import Moments, anchored, missed
from perdure.numerics.gaussians import ClassMoments, class_moments, merge_moments
from perdure.types import Task, Trace


class Anchors(nn.Module):
    """Moments of every class in the plain backbone's features, and what a map from there misses.

    With one map plain → now, fitted on the current task's images, they give the moments of old
    classes under the prompts of now; its error is another one than that of a chain of maps.

    State: per class two vectors and a count, and one D × D scatter, all in float64.

    Args:
        dim: D, the width of a feature.
    """

    stores_statistics = (
        "per class one mean plain feature and what a map misses of it; one D × D scatter of these"
    )

    means: Tensor
    counts: Tensor
    scatter: Tensor
    correction: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(0, dim, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("scatter", torch.zeros(dim, dim, dtype=torch.float64))
        self.register_buffer("correction", torch.zeros(0, dim, dtype=torch.float64))

    def start_task(self, task: Task) -> None:
        """Add a row per new class."""
        for name in ("means", "counts", "correction"):
            rows = self.get_buffer(name)
            setattr(
                self, name, torch.cat([rows, rows.new_zeros(len(task.classes), *rows.shape[1:])])
            )

    def moments(self, known: int, fit: AffineMap) -> Moments:
        """Moments of the first ``known`` labels under the prompts of now.

        Args:
            known: number of labels.
            fit: the map plain → now.
        """
        kept = Moments(self.means[:known], self.scatter, int(self.counts[:known].sum()))
        return anchored(kept, fit, self.correction[:known])

    def end_task(
        self,
        task: Task,
        plain: Float[Tensor, "n d"],
        features: Float[Tensor, "n d"],
        labels: Int[Tensor, "n"],
        fit: AffineMap,
    ) -> None:
        """Take in the task's classes, and what the map misses of them.

        Args:
            task: that ends.
            plain: readouts of its images with nothing added.
            features: readouts under the prompts of now.
            labels: classes in order of arrival.
            fit: the map plain → now.
        """
        rows = list(task.classes)
        new = class_moments(plain, labels, task.classes)
        now = class_moments(features, labels, task.classes)
        self.means[rows] = new.means.to(self.means)
        self.counts[rows] = new.counts.to(self.counts)
        self.scatter += new.scatter.to(self.scatter)
        self.correction[rows] = missed(fit, self.means[rows], now.means.to(self.means))

    def take_in(self, plain: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> None:
        """Merge more images of known classes; what the map missed of these stays as it was."""
        rows = labels.unique().tolist()
        old = ClassMoments(self.means[rows], self.counts[rows], self.scatter)
        merged = merge_moments(old, class_moments(plain, labels, tuple(rows)))
        self.means[rows], self.counts[rows] = merged.means, merged.counts
        self.scatter.copy_(merged.scatter)

    def forget(self, labels: Sequence[int]) -> list[Trace]:
        """Overwrite the vectors of these classes, and return what of them remains."""
        rows = list(labels)
        self.means[rows] = 0
        self.correction[rows] = 0
        what = "the scatter of all classes in the plain features, with the spread of its images"
        return [Trace(what, ("scatter", "counts"))]
