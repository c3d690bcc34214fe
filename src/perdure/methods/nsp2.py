"""VPT-NSP²: prompt updates are projected into the null space of old tasks' features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perdure.errors import ConfigError
from perdure.methods.base import METHODS
from perdure.methods.null_space import NullSpaceConfig, NullSpacePrompts, WeightedImages
from perdure.numerics.subspace import SHORTEST_SPECTRUM, affinity_gram
from perdure.types import (
    BackboneSpec,
    BlockView,
    Features,
    Generators,
    Loss,
    Survey,
    Task,
    Traits,
)


@dataclass(frozen=True)
class NSP2Config(NullSpaceConfig):
    """Options of VPT-NSP²; the defaults follow the released program at 10S-CIFAR-100.

    Attributes:
        eta2: strength of the aggregation projection, over the prompts of a block (η₂).
        conditions: ``published`` drops the LayerNorm scales from both conditions; ``exact`` keeps them.
        ln_weight: weight of the LayerNorm-invariance term from the second task on (λ_LN).
        ln_terms: which statistics of a prompt row it holds: ``both``, or ``std`` alone.
    """

    eta2: float = 0.97
    conditions: Literal["published", "exact"] = "published"
    ln_weight: float = 1.0
    ln_terms: Literal["both", "std"] = "both"

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: a strength outside [0, 1], a negative weight, or too few prompts for a knee.
        """
        super().__post_init__()
        if not 0 <= self.eta2 <= 1:
            raise ConfigError(f"eta2={self.eta2}: it must lie in 0 to 1.")
        if not self.ln_weight >= 0:
            raise ConfigError(f"ln_weight={self.ln_weight}: it must be 0 or more.")
        if self.eta2 > 0 and self.prompt_length < SHORTEST_SPECTRUM:
            raise ConfigError(
                f"prompt_length={self.prompt_length}: the aggregation projection finds its null "
                f"space at a knee and needs at least {SHORTEST_SPECTRUM} prompts; "
                f"set prompt_length={SHORTEST_SPECTRUM} or eta2=0."
            )


class QueryStatistics(WeightedImages):
    """Sums, per prompted block, what both conditions need.

    Per block: Σ w qᵀq of each head (d × d each) for the affinity Gram, and Σ w SᵀS over the attention
    weights S on the prompts (M × M) for the aggregation Gram. Every image weighs ``w``/(H · N).

    Args:
        blocks: the blocks that have prompts.
        config: how images are weighed.
    """

    def __init__(self, blocks: tuple[int, ...], config: NullSpaceConfig) -> None:
        super().__init__(blocks, config)
        self.query_grams: dict[int, Float[Tensor, "h c c"]] = {}
        self.prompt_grams: dict[int, Float[Tensor, "p p"]] = {}

    def add(self, index: int, view: BlockView) -> None:
        """Add one block of one batch."""
        assert view.prompt_attention is not None
        _, heads, tokens, _ = view.queries.shape
        weights = (self.weights / (heads * tokens)).sqrt().to(view.queries)
        scaled = (view.queries * weights.view(-1, 1, 1, 1)).transpose(0, 1).flatten(1, 2)
        shares = (view.prompt_attention * weights.view(-1, 1, 1, 1)).flatten(0, 2)
        for store, gram in (
            (self.query_grams, scaled.transpose(1, 2) @ scaled),
            (self.prompt_grams, shares.T @ shares),
        ):
            store[index] = store[index] + gram.double() if index in store else gram.double()


@METHODS.register("nsp2")
class NSP2(NullSpacePrompts):
    """Visual prompt tuning in null space (Lu et al., NeurIPS 2024).

    Beside Grams and projectors it keeps, per prompted block, mean and deviation of each prompt row at
    the end of the last task.
    """

    traits: ClassVar[Traits] = Traits(
        paper="Lu et al., NeurIPS 2024, arXiv 2406.05658",
        summary="prompt updates projected into the null space of old tasks' features",
        projects_updates=True,
        protects_features=True,
        stores_statistics="per block one D × D and one M × M Gram of old features",
    )
    Config = NSP2Config
    RIGHT = "affinity"
    LEFT = "aggregation"
    config: NSP2Config

    def __init__(self, spec: BackboneSpec, config: Any, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        for block in self.prompts.blocks:
            self.register_buffer(f"old_mean_{block}", torch.zeros(config.prompt_length))
            self.register_buffer(f"old_std_{block}", torch.zeros(config.prompt_length))

    def loss(
        self,
        logits: Float[Tensor, "b c"],
        features: Features,
        labels: Int[Tensor, "b"],
        task: Task,
    ) -> Loss:
        """Cross-entropy of the tempered logits and, from the second task on, the LayerNorm term."""
        terms = dict(super().loss(logits, features, labels, task).terms)
        if task.index > 0 and self.config.ln_weight > 0:
            terms["layer_norm"] = self.config.ln_weight * self.norm_drift()
        return Loss(terms)

    def norm_drift(self) -> Float[Tensor, ""]:
        """Σ over blocks of mean |μ − μ_old| + mean |σ − σ_old| over prompt rows (biased σ)."""
        prompts = torch.stack([self.prompts.matrices[str(b)] for b in self.prompts.blocks])
        drift = (prompts.std(-1, correction=0) - self._stacked("old_std")).abs()
        if self.config.ln_terms == "both":
            drift = drift + (prompts.mean(-1) - self._stacked("old_mean")).abs()
        return drift.mean(-1).sum()

    def end_task(self, task: Task, survey: Survey) -> None:
        """Accumulate both Grams, renew the projectors, note the prompts' means and deviations."""
        super().end_task(task, survey)
        for block in self.prompts.blocks:
            prompts = self.prompts.matrices[str(block)].detach()
            self.get_buffer(f"old_mean_{block}").copy_(prompts.mean(-1))
            self.get_buffer(f"old_std_{block}").copy_(prompts.std(-1, correction=0))

    def survey_grams(self, survey: Survey) -> tuple[int, dict[str, Float[Tensor, "n n"]]]:
        """C₁ from the queries' Grams and the key weights, C₂ as it was summed."""
        seen = QueryStatistics(self.prompts.blocks, self.config)
        survey(seen)
        grams = {}
        for block in self.prompts.blocks:
            queries, keys = seen.query_grams[block], self.spec.key_weight[block]
            grams[f"affinity_{block}"] = affinity_gram(queries, keys)
            grams[f"aggregation_{block}"] = seen.prompt_grams[block]
        return seen.images, grams

    def conditions(self, block: int) -> list[tuple[str, Float[Tensor, "n n"], float]]:
        """Both Grams as accumulated, or with the LayerNorm scales that the exact ones keep."""
        affinity = self.get_buffer(f"gram_affinity_{block}").double()
        aggregation = self.get_buffer(f"gram_aggregation_{block}").double()
        if self.config.conditions == "exact":
            prompts = self.prompts.matrices[str(block)].detach().double()
            spread = (prompts.var(-1, correction=0) + self.spec.norm_eps).sqrt()
            scale = self.spec.norm_scale[block].double()
            affinity = scale[:, None] * affinity * scale
            aggregation = aggregation / spread[:, None] / spread
        return [
            ("affinity", affinity, self.config.eta1),
            ("aggregation", aggregation, self.config.eta2),
        ]

    def _stacked(self, name: str) -> Float[Tensor, "l m"]:
        return torch.stack([self.get_buffer(f"{name}_{b}") for b in self.prompts.blocks])
