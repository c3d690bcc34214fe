"""L2P: prompts selected from a pool by the image's query join the input, or some blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perdure.backbones.additions import Additions
from perdure.capabilities import Capability
from perdure.methods.base import Method
from perdure.methods.catalog import METHODS
from perdure.methods.deep_prompts import PromptMatrices
from perdure.methods.matching import choose, cosine, share
from perdure.methods.options import L2POptions
from perdure.methods.sensitivity import sensitivity_guard
from perdure.traits import Read
from perdure.types import BackboneSpec, Features, Generators, Task


@METHODS.register("l2p")
class L2P(Method):
    """Learning to prompt (Wang et al., CVPR 2022).

    What is classified is the mean of the prompts' output rows, or the class token where prompts join
    the blocks.
    """

    config: L2POptions

    def __init__(self, spec: BackboneSpec, config: L2POptions, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        shape = (config.pool, config.prompt_length)
        self.prompts = PromptMatrices(spec, config.prompt_blocks, shape, generator)
        if not self.prompts.blocks:
            self.prompts.add("input", shape, generator)
        keys = torch.empty(config.pool, spec.dim)
        self.keys = nn.Parameter(keys.uniform_(-1, 1, generator=generator("keys")))
        vectors = config.pool * config.prompt_length
        shapes = dict.fromkeys(self.prompts.matrices, (vectors, spec.dim))
        self.guard = sensitivity_guard(config, self.prompts.matrices, shapes, generator)

    @classmethod
    def rows_read(cls, config: Any, spec: BackboneSpec) -> frozenset[Read]:
        """The prompts' rows, or the class token where prompts have none."""
        return frozenset({"cls"} if config.prompt_blocks else {"input"})

    @classmethod
    def needs(cls, config: L2POptions) -> frozenset[Capability]:
        """Tokens at the input, or keys and values of the blocks that are named."""
        if not config.prompt_blocks:
            return cls.traits.needs
        return cls.traits.needs - {"input_tokens"} | {"key_value_prompts"}

    @property
    def first_block(self) -> int:
        """The first block that has prompts."""
        return min(self.prompts.blocks, default=0)

    def additions(self, query: Float[Tensor, "b d"] | None, task: Task | None) -> Additions:
        """Add the chosen prompts, and pull their keys."""
        assert query is not None
        similarity = cosine(query, self.keys)
        chosen = choose(similarity, self.config.top_k, self.config.vote)
        pull = (1 - similarity.gather(1, chosen)).sum(dim=1).mean()
        taken = {
            name: matrix[chosen].flatten(1, 2) for name, matrix in self.prompts.matrices.items()
        }
        return dataclasses.replace(
            self._joined(taken),
            penalties={"key_pull": self.config.key_pull * pull},
            records={
                "selection": share(chosen, self.config.pool),
                "chosen": chosen,
                "query": query,
            },
        )

    def image_prompts(
        self, query: Float[Tensor, "b d"] | None, count: int
    ) -> dict[str, Float[Tensor, "b p d"]]:
        """The whole pool, one entry's vectors after another's."""
        matrices = self.prompts.matrices
        return {name: one.flatten(0, 1).expand(count, -1, -1) for name, one in matrices.items()}

    def additions_of(
        self, prompts: Mapping[str, Float[Tensor, "b p d"]], query: Float[Tensor, "b d"] | None
    ) -> Additions:
        """Add those of these prompts that each image chooses."""
        assert query is not None
        chosen = choose(cosine(query, self.keys), self.config.top_k, self.config.vote)
        images = torch.arange(len(chosen), device=chosen.device)[:, None]
        pools = {name: one.unflatten(1, (self.config.pool, -1)) for name, one in prompts.items()}
        return self._joined(
            {name: one[images, chosen].flatten(1, 2) for name, one in pools.items()}
        )

    def _joined(self, taken: Mapping[str, Float[Tensor, "b p d"]]) -> Additions:
        """The chosen prompts where they belong: at the input, or in their blocks."""
        tokens = {block: taken[str(block)] for block in self.prompts.blocks}
        return Additions(input=taken.get("input"), tokens=tokens)

    def nothing_added(self) -> Additions:
        """Prompts of zeros where the prompts' rows are what is classified."""
        if self.prompts.blocks:
            return super().nothing_added()
        rows = self.config.top_k * self.config.prompt_length
        return Additions(input=self.keys.new_zeros(1, rows, self.spec.dim))

    def readout(self, features: Features) -> Float[Tensor, "b d"]:
        """The mean of the prompts' rows after the last block, or the class token."""
        if self.prompts.blocks:
            return super().readout(features)
        assert features.input is not None
        return features.input.mean(dim=1)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Prompts and keys, without weight decay.

        Prompts that no image chose have no gradient but the decay's, and Adam would take steps of
        full length along it.
        """
        return [{**group, "weight_decay": 0.0} for group in super().param_groups(lr)]
