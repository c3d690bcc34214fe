"""Columns of class scores: which of the heads' outputs stand for which class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from perdure.numerics.evidence import Evidence


class ClassColumns:
    """The known classes in order, and where the heads score them.

    Heads have an output per label that ever arrived. Those of forgotten classes are passed over; of
    labels that share a name, the highest score is the class's. Columns are sorted as scikit-learn
    expects it: by name, or by value where labels are numbers.

    Args:
        arrived: name of every label, in order of arrival.
        forgotten: labels that were removed again.
        numbered: whether names are those of numbers.

    Examples:
        >>> columns = ClassColumns(("owl", "dog", "cat"), (1,))
        >>> columns.names, columns.labels("owl")
        (('cat', 'owl'), (0,))
    """

    def __init__(
        self, arrived: Sequence[str], forgotten: Sequence[int] = (), numbered: bool = False
    ) -> None:
        gone = set(forgotten)
        labels: dict[str, tuple[int, ...]] = {}
        for label, name in enumerate(arrived):
            if label not in gone:
                labels[name] = (*labels.get(name, ()), label)
        order: Callable[[str], Any] = int if numbered else str
        self._labels = {name: labels[name] for name in sorted(labels, key=order)}

    def __contains__(self, name: object) -> bool:
        return name in self._labels

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return tuple(self._labels)

    def labels(self, name: str) -> tuple[int, ...]:
        """The labels of a class, the newest last."""
        return self._labels[name]

    def class_scores(self, logits: Float[Tensor, "n a"]) -> Float[Tensor, "n c"]:
        """Scores of the known classes, in the order of `names`, from those of all labels."""
        column_of = self._column_of()
        labels = torch.tensor(list(column_of), device=logits.device)
        columns = torch.tensor(list(column_of.values()), device=logits.device)
        chosen = logits[:, labels]
        if len(column_of) == len(self._labels):
            return chosen
        # Not len(): an exported graph would take the number of images for a constant.
        scores = logits.new_full((logits.shape[0], len(self._labels)), -math.inf)
        return scores.scatter_reduce(1, columns.expand_as(chosen), chosen, "amax")

    def class_evidence(self, evidence: Evidence) -> Evidence:
        """Evidence with a score per known class, from that with one per label."""
        return replace(evidence, scores=self.class_scores(evidence.scores))

    def of(self, labels: Int64[Tensor, "n"]) -> Int64[Tensor, "n"]:
        """The column of `class_scores` for each of some labels."""
        column_of = self._column_of()
        return torch.tensor([column_of[label] for label in labels.tolist()], dtype=torch.int64)

    def _column_of(self) -> dict[int, int]:
        return {
            label: column for column, labels in enumerate(self._labels.values()) for label in labels
        }
