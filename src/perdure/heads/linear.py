"""One linear layer per task, trained with the prompts on that task's classes only."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perdure.heads.base import HEADS, Head, HeadConfig
from perdure.types import Generators, Survey, Task


@HEADS.register("linear")
class LinearHead(Head):
    """Concatenates the tasks' layers at prediction: no task id, no temperature."""

    closed_form: ClassVar[bool] = False

    def __init__(self, dim: int, config: HeadConfig, generator: Generators) -> None:
        super().__init__(dim, config, generator)
        self.layers = nn.ModuleList()

    def start_task(self, task: Task) -> None:
        """Add the task's layer: U(±1/√D), or a copy of the first task's layer (`HeadConfig`)."""
        # nn.Linear's own initialisation would draw from torch's global generator
        layer = nn.utils.skip_init(nn.Linear, self.dim, len(task.classes))
        bound = self.dim**-0.5
        for name, parameter in layer.named_parameters():
            random = self.generator(f"head.linear.{task.index}.{name}")
            with torch.no_grad():
                parameter.uniform_(-bound, bound, generator=random)
        if self.config.head_init == "reference" and task.index == 1:
            first = self.layers[0].state_dict()
            if first["weight"].shape == layer.weight.shape:
                layer.load_state_dict(first)
        self.layers.append(layer)

    def task_logits(self, features: Float[Tensor, "b d"], task: Task) -> Float[Tensor, "b k"]:
        """Score one task's classes only; what training minimises the loss of."""
        scores: Tensor = self.layers[task.index](features)
        return scores

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Score every class seen so far."""
        return torch.cat([layer(features) for layer in self.layers], dim=1)

    def end_task(self, task: Task, survey: Survey) -> None:
        """Nothing to fit: this head is trained by gradient."""
