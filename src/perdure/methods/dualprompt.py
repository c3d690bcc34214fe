"""DualPrompt: general prefixes for every image, and expert prefixes, one per task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from perdure.backbones.additions import Additions, block_numbers
from perdure.errors import ConfigError
from perdure.methods.base import Method
from perdure.methods.catalog import METHODS
from perdure.methods.matching import choose, cosine, share
from perdure.methods.options import DualPromptConfig
from perdure.methods.sensitivity import sensitivity_guard
from perdure.types import BackboneSpec, Generators, Task

SMALL = 0.01
"""Prefixes start in [0, SMALL]: raw keys and values of size 1 would drown a frozen block's own."""


@METHODS.register("dualprompt")
class DualPrompt(Method):
    """DualPrompt (Wang et al., ECCV 2022): an expert and a key are added with every task."""

    config: DualPromptConfig

    def __init__(self, spec: BackboneSpec, config: DualPromptConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.general_blocks = block_numbers(spec, config.general_blocks, "general_blocks")
        self.expert_blocks = block_numbers(spec, config.expert_blocks, "expert_blocks")
        both = set(self.general_blocks) & set(self.expert_blocks)
        if both:
            raise ConfigError(
                f"Blocks {sorted(both)} are in general_blocks and in expert_blocks. "
                "Each block takes one of them."
            )
        self.general = nn.ParameterDict()
        for block in self.general_blocks:
            start = torch.empty(2, config.general_length, spec.dim)
            start.uniform_(0, SMALL, generator=generator(f"general.{block}"))
            self.general[str(block)] = nn.Parameter(start)
        self.experts, self.keys = nn.ParameterList(), nn.ParameterList()
        shapes = dict.fromkeys(self.general, (2 * config.general_length, spec.dim))
        self.guard = sensitivity_guard(config, self.general, shapes, generator)

    @property
    def first_block(self) -> int:
        """The first block that gets a prefix."""
        return min((*self.general_blocks, *self.expert_blocks))

    def start_task(self, task: Task) -> None:
        """Add the task's expert, a copy of the last one, and its key; freeze the earlier ones."""
        blocks, length, dim = len(self.expert_blocks), self.config.expert_length, self.spec.dim
        expert, key = torch.empty(blocks, 2, length, dim), torch.empty(dim)
        if self.experts:
            expert = self.experts[-1].detach().clone()
        else:
            expert.uniform_(0, SMALL, generator=self.generator("experts"))
        key.uniform_(-1, 1, generator=self.generator(f"keys.{task.index}"))
        self.experts.requires_grad_(False)
        self.keys.requires_grad_(False)
        self.experts.append(nn.Parameter(expert))
        self.keys.append(nn.Parameter(key))

    def additions(self, query: Float[Tensor, "b d"] | None, task: Task | None) -> Additions:
        """Give the task's own expert in training, and the one of the closest key at test time."""
        assert query is not None
        similarity = cosine(query, torch.stack(list(self.keys)))
        if task is not None:
            pull = (1 - similarity[:, task.index]).mean()
            penalties = {"key_pull": self.config.key_pull * pull}
            return Additions(prefix=self._prefix(self._expert_of(task)), penalties=penalties)
        chosen = choose(similarity, 1, self.config.vote)
        records = {"selection": share(chosen, len(self.keys))}
        return Additions(prefix=self._prefix(self._experts_at(chosen)), records=records)

    def image_prompts(
        self, query: Float[Tensor, "b d"] | None, count: int
    ) -> dict[str, Float[Tensor, "b p d"]]:
        """The general prefixes, keys before values; an expert belongs to its task."""
        return {name: one.flatten(0, 1).expand(count, -1, -1) for name, one in self.general.items()}

    def additions_of(
        self, prompts: Mapping[str, Float[Tensor, "b p d"]], query: Float[Tensor, "b d"] | None
    ) -> Additions:
        """Add these general prefixes, and the experts of the closest keys."""
        assert query is not None
        chosen = choose(cosine(query, torch.stack(list(self.keys))), 1, self.config.vote)
        halves = {block: prompts[str(block)].chunk(2, dim=1) for block in self.general_blocks}
        prefix = self._prefix(self._experts_at(chosen))
        return Additions(prefix={**prefix, **{b: (one[0], one[1]) for b, one in halves.items()}})

    def _experts_at(self, chosen: Int[Tensor, "b 1"]) -> Float[Tensor, "b l 2 p d"]:
        return torch.stack(list(self.experts))[chosen[:, 0]]

    def oracle(self, query: Float[Tensor, "b d"] | None, task: Task) -> Additions:
        """The task's own expert."""
        return Additions(prefix=self._prefix(self._expert_of(task)))

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """The general prefixes, and the task's own expert and key."""
        own = [self.experts[-1], self.keys[-1]]
        return [{"params": [*self.general.parameters(), *own], "lr": lr}]

    def _expert_of(self, task: Task) -> Float[Tensor, "1 l 2 p d"]:
        expert: Tensor = self.experts[task.index]
        return expert.unsqueeze(0)

    def _prefix(self, expert: Float[Tensor, "_ l 2 p d"]) -> dict[int, tuple[Tensor, Tensor]]:
        """Keys and values per block: general ones, the same for all, and those of the experts."""
        general = {block: self.general[str(block)] for block in self.general_blocks}
        prefix = {block: (pair[:1], pair[1:]) for block, pair in general.items()}
        for position, block in enumerate(self.expert_blocks):
            prefix[block] = (expert[:, position, 0], expert[:, position, 1])
        return prefix
