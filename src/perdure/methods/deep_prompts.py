"""Deep prompts (VPT): a matrix of prompt vectors per block, under one linear layer per task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from perdure.backbones.additions import Additions, block_numbers
from perdure.methods.base import Method
from perdure.methods.options import DeepPromptConfig, MethodConfig
from perdure.types import BackboneSpec, Features, Generators, Loss, Task


class PromptMatrices(nn.Module):
    """Prompt matrices that join each block's attention as keys and values.

    Parameters are named ``0``, ``1``, … after their block; -1 is the last block. ``shape`` is that
    of a block's prompts: vectors, or pool entries and vectors of each.

    Raises:
        BackboneError: a block that the backbone lacks.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        blocks: tuple[int, ...],
        shape: tuple[int, ...],
        generator: Generators,
    ) -> None:
        super().__init__()
        self.blocks = block_numbers(spec, blocks, "prompt_blocks")
        self.matrices = nn.ParameterDict()
        self._dim = spec.dim
        for block in self.blocks:
            self.add(str(block), shape, generator)

    def add(self, name: str, shape: tuple[int, ...], generator: Generators) -> None:
        """Add a matrix that starts as U(−1, 1)."""
        start = torch.empty(*shape, self._dim)
        start.uniform_(-1, 1, generator=generator(f"prompts.{name}"))
        self.matrices[name] = nn.Parameter(start)


class DeepPromptMethod(Method):
    """Deep prompts, learned by cross-entropy on tempered logits."""

    Config: ClassVar[type[MethodConfig]] = DeepPromptConfig
    config: DeepPromptConfig

    def __init__(self, spec: BackboneSpec, config: DeepPromptConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        blocks = config.prompt_blocks or tuple(range(spec.blocks))
        self.prompts = PromptMatrices(spec, blocks, (config.prompt_length,), generator)

    @property
    def first_block(self) -> int:
        """The first block that has prompts."""
        return min(self.prompts.blocks)

    def additions(self, query: Float[Tensor, "b d"] | None, task: Task | None) -> Additions:
        """Add the prompts to their blocks, the same for every image."""
        return self.additions_of(self.image_prompts(query, 1), query)

    def image_prompts(
        self, query: Float[Tensor, "b d"] | None, count: int
    ) -> dict[str, Float[Tensor, "b p d"]]:
        """The prompts of every block."""
        return {name: one.expand(count, -1, -1) for name, one in self.prompts.matrices.items()}

    def additions_of(
        self, prompts: Mapping[str, Float[Tensor, "b p d"]], query: Float[Tensor, "b d"] | None
    ) -> Additions:
        """Add these prompts to their blocks."""
        return Additions(tokens={block: prompts[str(block)] for block in self.prompts.blocks})

    def loss(
        self,
        logits: Float[Tensor, "b c"],
        features: Features,
        labels: Int[Tensor, "b"],
        task: Task,
    ) -> Loss:
        """Cross-entropy of the tempered logits of the current task's classes, and what guards them."""
        return super().loss(logits / self.config.temperature, features, labels, task)
