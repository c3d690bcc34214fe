"""What a classifier is after some lessons: replaced as a whole, never changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from perdure.engine.model import Model
from perdure.engine.survey import ordered_batches
from perdure.learner.class_columns import Outputs
from perdure.learner.history import History
from perdure.streams import ImageSet, Subset


@dataclass(frozen=True)
class Learned:
    """A model and what it has been through.

    Attributes:
        model: backbone, method and heads.
        history: its lessons, temperatures and forgotten classes.
    """

    model: Model
    history: History

    @property
    def outputs(self) -> Outputs:
        """Which output stands for which class."""
        return Outputs(self.model.label_names, self.history.forgotten)

    def score(self, pixels: UInt8[Tensor, "n 3 s s"], head: str) -> Float[Tensor, "n c"]:
        """Scores of the known classes for one batch of transformed images, untempered."""
        return self.outputs.known(self.model.logits(pixels)[head])

    def scores(self, images: Subset) -> dict[str, Float[Tensor, "n c"]]:
        """Scores of the known classes under every evaluated head, untempered, in float64."""
        found: dict[str, list[Tensor]] = {}
        for batch in ordered_batches(self.model, images):
            for head, scores in self.model.logits(batch.images).items():
                found.setdefault(head, []).append(self.outputs.known(scores).double().cpu())
        return {head: torch.cat(parts) for head, parts in found.items()}

    def temperature(self, head: str) -> float:
        """What the scores of a head are divided by before the softmax."""
        return self.history.temperatures.get(head, 1.0)

    def probabilities(self, scores: Float[Tensor, "n c"], head: str) -> Float64[Tensor, "n c"]:
        """Tempered probabilities.

        Args:
            scores: of the known classes, as `Outputs.known` has them.
            head: that gave them.
        """
        return (scores.double() / self.temperature(head)).softmax(dim=1).cpu()


def all_of(images: ImageSet) -> Subset:
    """Every image of a set, under the set's own labels."""
    return Subset(images, np.arange(len(images)), torch.from_numpy(images.labels))
