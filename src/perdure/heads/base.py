"""The contract of a head: it classifies features and grows with classes."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from perdure.registry import Registry
from perdure.types import Generators, Survey, Task


@dataclass(frozen=True)
class HeadConfig:
    """What a user may set of the heads.

    Attributes:
        head_init: ``reference``: as NSP²'s released program, the second task's linear head continues
            from the first's weights when both have equally many classes; ``fresh``: each head starts
            from its own default initialisation.
        head_inputs: what the linear heads score: ``features`` as they are (the papers), or
            ``centred``: less the mean of the first task's training features before training, over
            their spread. Features share a large offset; without it the layers of small tasks learn
            in few steps, and their scores compare.
        shrinkage: of the Gaussian head's covariance: ``analytic`` (oracle-approximating) or
            ``validation`` (chosen on the current task's validation split).
    """

    head_init: Literal["reference", "fresh"] = "reference"
    head_inputs: Literal["features", "centred"] = "features"
    shrinkage: Literal["analytic", "validation"] = "analytic"


class Head(nn.Module, abc.ABC):
    """Classifies features of all classes seen so far.

    Args:
        dim: width of a feature.
        config: the heads' options.
        generator: gives the generator of each initialisation.
    """

    closed_form: ClassVar[bool]

    def __init__(self, dim: int, config: HeadConfig, generator: Generators) -> None:
        super().__init__()
        self.dim = dim
        self.config = config
        self.generator = generator

    @abc.abstractmethod
    def start_task(self, task: Task) -> None:
        """Grow by the task's classes. The only place where shapes change; replayed on load."""

    def prepare(self, task: Task, survey: Survey) -> bool:
        """Initialise from data before a task's first step; tells whether it did. Not replayed."""
        return False

    @abc.abstractmethod
    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Score every class seen so far, in order of arrival."""

    @abc.abstractmethod
    def end_task(self, task: Task, survey: Survey) -> None:
        """Take in the finished task, where the head is fitted in closed form."""


HEADS: Registry[type[Head]] = Registry("head")
