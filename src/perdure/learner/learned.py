"""What a classifier is after some lessons: replaced as a whole, never changed."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.engine.model import Model
from perdure.learner.history import History
from perdure.learner.outputs import Outputs


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
        return Outputs(self.model.class_names, self.history.forgotten)

    def temperature(self, head: str) -> float:
        """What the scores of a head are divided by before the softmax."""
        return self.history.temperatures.get(head, 1.0)
