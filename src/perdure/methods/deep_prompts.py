"""The VPT family: one matrix of prompt vectors per block, learned under one linear layer per task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from perdure.backbones.additions import Additions, block_numbers
from perdure.errors import ConfigError
from perdure.methods.base import Method, MethodConfig
from perdure.types import BackboneSpec, Features, Generators, Loss, Task


@dataclass(frozen=True)
class DeepPromptConfig(MethodConfig):
    """Options shared by the methods that learn deep prompts.

    Attributes:
        prompt_length: prompt vectors per block (M).
        prompt_blocks: blocks that get prompts, -1 for the last; empty for all.
        temperature: the training logits are divided by it; prediction has none.
    """

    prompt_length: int = 4
    prompt_blocks: tuple[int, ...] = ()
    temperature: float = 28.0

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: prompt_length below 1 or a temperature that is not positive.
        """
        if self.prompt_length < 1:
            raise ConfigError(f"prompt_length={self.prompt_length}: it must be 1 or more.")
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature}: it must be above 0.")


class DeepPrompts(nn.Module):
    """Prompt matrices that join each block's attention as keys and values.

    Parameters are named ``0``, ``1``, … after their block and start as U(−1, 1).

    Args:
        spec: the backbone.
        config: length and blocks.
        generator: gives the generator of each block's initialisation.

    Raises:
        BackboneError: a block that the backbone lacks.
    """

    def __init__(self, spec: BackboneSpec, config: DeepPromptConfig, generator: Generators) -> None:
        super().__init__()
        wanted = config.prompt_blocks or tuple(range(spec.blocks))
        self.blocks = block_numbers(spec, wanted, "prompt_blocks")
        self.matrices = nn.ParameterDict()
        for block in self.blocks:
            start = torch.empty(config.prompt_length, spec.dim)
            start.uniform_(-1, 1, generator=generator(f"prompts.{block}"))
            self.matrices[str(block)] = nn.Parameter(start)

    def additions(self) -> Additions:
        """The prompts as extra keys and values, the same for every image."""
        return Additions(tokens={b: self.matrices[str(b)].unsqueeze(0) for b in self.blocks})


class DeepPromptMethod(Method):
    """Learns deep prompts by cross-entropy on tempered logits.

    Args:
        spec: the backbone.
        config: a `DeepPromptConfig`.
        generator: gives the generator of each block's initialisation.
    """

    Config: ClassVar[type[MethodConfig]] = DeepPromptConfig
    config: DeepPromptConfig

    def __init__(self, spec: BackboneSpec, config: DeepPromptConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.prompts = DeepPrompts(spec, config, generator)

    @property
    def first_block(self) -> int:
        """The first block that has prompts."""
        return min(self.prompts.blocks)

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
        """Cross-entropy of the tempered logits of the current task's classes."""
        return Loss({"cross_entropy": F.cross_entropy(logits / self.config.temperature, labels)})
