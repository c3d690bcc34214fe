"""The upper bound: the same prompts trained on all classes at once. It alone sees old images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from perdure.backbones.additions import Additions
from perdure.methods.base import METHODS, Method
from perdure.methods.deep_prompts import DeepPromptConfig, DeepPrompts
from perdure.types import BackboneSpec, Features, Generators, Loss, Task, Traits


@dataclass(frozen=True)
class JointConfig(DeepPromptConfig):
    """Options of joint training.

    Attributes:
        train_after: ``last``: train once, on everything, after the last task; ``each``: start anew
            after every task on the union so far, which fills the whole accuracy matrix.
    """

    train_after: Literal["last", "each"] = "last"


@METHODS.register("joint")
class Joint(Method):
    """Deep prompts and one linear layer trained once on the union of all tasks."""

    traits: ClassVar[Traits] = Traits(
        paper="upper bound in Lu et al., NeurIPS 2024",
        summary="the same prompts trained once on all classes: the upper bound, sees old images",
        cumulative=True,
    )
    Config = JointConfig
    config: JointConfig

    def __init__(self, spec: BackboneSpec, config: JointConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.prompts = DeepPrompts(spec, config, generator)

    def additions(self, query: Float[Tensor, "b d"] | None, task: Task | None) -> Additions:
        """Add the prompts to their blocks."""
        return self.prompts.additions()

    def loss(
        self,
        logits: Float[Tensor, "b c"],
        features: Features,
        labels: Int[Tensor, "b"],
        task: Task,
    ) -> Loss:
        """Cross-entropy of the tempered logits."""
        return Loss({"cross_entropy": F.cross_entropy(logits / self.config.temperature, labels)})
