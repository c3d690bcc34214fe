"""L2P: prompts chosen from a pool by the image's own features join the input sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perdure.backbones.additions import Additions
from perdure.errors import ConfigError
from perdure.methods.base import METHODS, Method, MethodConfig
from perdure.methods.matching import Vote, choose, cosine, share
from perdure.types import BackboneSpec, Features, Generators, Task, Traits


@dataclass(frozen=True)
class L2PConfig(MethodConfig):
    """Options of L2P.

    Attributes:
        pool: prompts in the pool, each with a key.
        top_k: prompts per image.
        prompt_length: vectors per prompt.
        key_weight: weight of the pull of chosen keys to the query.
        selection: ``image``: every image chooses for itself; ``batch``: all take what most of the
            batch chose, as the published program does: breaks batch invariance.
    """

    pool: int = 10
    top_k: int = 5
    prompt_length: int = 5
    key_weight: float = 0.5
    selection: Vote = "image"

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: more prompts per image than the pool holds, a length below 1, a weight
                below 0.
        """
        if not 1 <= self.top_k <= self.pool:
            raise ConfigError(
                f"top_k={self.top_k}: it must lie in 1 to {self.pool}, the size of the pool."
            )
        if self.prompt_length < 1:
            raise ConfigError(f"prompt_length={self.prompt_length}: it must be 1 or more.")
        if not self.key_weight >= 0:
            raise ConfigError(f"key_weight={self.key_weight}: it must be 0 or more.")


@METHODS.register("l2p")
class L2P(Method):
    """Learning to prompt (Wang et al., CVPR 2022); reads the mean of the prompts' output rows."""

    traits: ClassVar[Traits] = Traits(
        paper="Wang et al., CVPR 2022 (L2P)",
        summary="prompts chosen from a pool by a plain pass's features join the input",
        reads=frozenset({"input"}),
        needs_query=True,
        selects=True,
    )
    Config = L2PConfig
    config: L2PConfig

    def __init__(self, spec: BackboneSpec, config: L2PConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        prompts = torch.empty(config.pool, config.prompt_length, spec.dim)
        keys = torch.empty(config.pool, spec.dim)
        self.prompts = nn.Parameter(prompts.uniform_(-1, 1, generator=generator("prompts")))
        self.keys = nn.Parameter(keys.uniform_(-1, 1, generator=generator("keys")))

    def additions(self, query: Float[Tensor, "b d"] | None, task: Task | None) -> Additions:
        """Add the chosen prompts to the input, and pull their keys."""
        assert query is not None
        similarity = cosine(query, self.keys)
        chosen = choose(similarity, self.config.top_k, self.config.selection)
        pull = (1 - similarity.gather(1, chosen)).sum(dim=1).mean()
        return Additions(
            input=self.prompts[chosen].flatten(1, 2),
            penalties={"key_pull": self.config.key_weight * pull},
            records={"selection": share(chosen, self.config.pool)},
        )

    def readout(self, features: Features) -> Float[Tensor, "b d"]:
        """The mean of the prompts' rows after the last block."""
        assert features.input is not None
        return features.input.mean(dim=1)
