"""The upper bound: the same prompts trained on all classes at once. It alone sees old images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from perdure.methods.base import METHODS
from perdure.methods.deep_prompts import DeepPromptConfig, DeepPromptMethod
from perdure.types import Traits


@dataclass(frozen=True)
class JointConfig(DeepPromptConfig):
    """Options of joint training.

    Attributes:
        train_after: ``last``: train once, on everything, after the last task; ``each``: start anew
            after every task on the union so far, which fills the whole accuracy matrix.
    """

    train_after: Literal["last", "each"] = "last"


@METHODS.register("joint")
class Joint(DeepPromptMethod):
    """Deep prompts and one linear layer trained once on the union of all tasks."""

    traits: ClassVar[Traits] = Traits(
        paper="upper bound in Lu et al., NeurIPS 2024",
        summary="the same prompts trained once on all classes: the upper bound, sees old images",
        cumulative=True,
    )
    Config = JointConfig
    config: JointConfig
