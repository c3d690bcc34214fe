"""VPT-NSP²: prompt updates are projected into the null space of old tasks' features."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perdure.methods.catalog import METHODS
from perdure.methods.deep_prompts import DeepPromptMethod
from perdure.methods.null_space import Grams, NullSpaceMethod, WeightedImages
from perdure.methods.options import NSP2Config, NullSpaceConfig
from perdure.numerics.subspace import affinity_gram
from perdure.types import BackboneSpec, BlockView, Features, Generators, Loss, Survey, Task


class QueryStatistics(WeightedImages):
    """Sums, per prompted block, what both conditions need.

    Per block: Σ w qᵀq of each head (d × d each) for the affinity Gram, and Σ w SᵀS over the attention
    weights S on the prompts (M × M) for the aggregation Gram. Every image weighs ``w``/(H · N).
    Where images choose from a pool, every entry has an aggregation Gram of its own, over the images
    that chose it.

    Args:
        blocks: the blocks that have prompts.
        config: how images are weighed.
        pool: entries of the pool; None where the prompts are the same for every image.
    """

    def __init__(
        self, blocks: tuple[int, ...], config: NullSpaceConfig, pool: int | None = None
    ) -> None:
        super().__init__(blocks, config)
        self._pool = pool

    def add(self, index: int, view: BlockView) -> None:
        """Add one block of one batch."""
        assert view.prompt_attention is not None
        _, heads, tokens, _ = view.queries.shape
        weights = (self.weights / (heads * tokens)).sqrt().to(view.queries).view(-1, 1, 1, 1)
        scaled = (view.queries * weights).transpose(0, 1).flatten(1, 2)
        self.sum(f"queries_{index}", scaled.transpose(1, 2) @ scaled)
        shares = view.prompt_attention * weights
        self.sum(f"aggregation_{index}", self._shares_gram(shares, view))

    def _shares_gram(
        self, shares: Float[Tensor, "b h n p"], view: BlockView
    ) -> Float[Tensor, "*e m m"]:
        if self._pool is None:
            rows = shares.flatten(0, 2)
            return rows.T @ rows
        chosen = view.records["chosen"]
        own = shares.flatten(1, 2).unflatten(-1, (chosen.shape[1], -1)).permute(0, 2, 1, 3)
        grams = (own.transpose(-1, -2) @ own).flatten(0, 1)
        total: Tensor = grams.new_zeros(self._pool, *grams.shape[1:])
        return total.index_add(0, chosen.flatten(), grams)


class NSP2Method(NullSpaceMethod):
    """NSP²'s two conditions and its LayerNorm term, for a class that holds prompts.

    Beside Grams and projectors it keeps, per prompted block, mean and deviation of each prompt row at
    the end of the last task.
    """

    RIGHT = "affinity"
    LEFT = "aggregation"
    learning_only = (*NullSpaceMethod.learning_only, "old_mean_*", "old_std_*")

    def __init__(self, spec: BackboneSpec, config: Any, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        for block, matrix in self.prompts.matrices.items():
            self.register_buffer(f"old_mean_{block}", torch.zeros(matrix.shape[:-1]))
            self.register_buffer(f"old_std_{block}", torch.zeros(matrix.shape[:-1]))

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
        return drift.flatten(1).mean(-1).sum()

    def end_task(self, task: Task, survey: Survey) -> None:
        """Accumulate both Grams, renew the projectors, note the prompts' means and deviations."""
        super().end_task(task, survey)
        for block in self.prompts.blocks:
            prompts = self.prompts.matrices[str(block)].detach()
            self.get_buffer(f"old_mean_{block}").copy_(prompts.mean(-1))
            self.get_buffer(f"old_std_{block}").copy_(prompts.std(-1, correction=0))

    def statistics(self) -> QueryStatistics:
        """Sums queries and attention weights."""
        first = self.prompts.matrices[str(self.prompts.blocks[0])]
        pool = len(first) if first.ndim > 2 else None  # noqa: PLR2004  entries × vectors × D
        return QueryStatistics(self.prompts.blocks, self.config, pool)

    def grams(self, seen: WeightedImages) -> Grams:
        """C₁ from the queries' Grams and the key weights; the others as they were summed."""
        found = dict(seen.sums)
        for block in self.prompts.blocks:
            queries = found.pop(f"queries_{block}")
            found[f"affinity_{block}"] = affinity_gram(queries, self.spec.key_weight[block])
        return found

    def condition(self, name: str) -> tuple[Float[Tensor, "*e n n"], float]:
        """The Gram as accumulated, or with the LayerNorm scales that the exact conditions keep."""
        gram, eta = super().condition(name)
        side, _, site = name.partition("_")
        exact = self.config.conditions == "exact"
        if side == "affinity" and exact:
            scale = self.spec.norm_scale[int(site)].double()
            gram = scale[:, None] * gram * scale
        if side == "aggregation":
            eta = self.config.eta2
            if exact:
                prompts = self.prompts.matrices[site].detach().double()
                spread = (prompts.var(-1, correction=0) + self.spec.norm_eps).sqrt()
                gram = gram / spread[..., :, None] / spread[..., None, :]
        return gram, eta

    def _stacked(self, name: str) -> Float[Tensor, "l *e m"]:
        return torch.stack([self.get_buffer(f"{name}_{b}") for b in self.prompts.blocks])


@METHODS.register("nsp2")
class NSP2(NSP2Method, DeepPromptMethod):
    """Visual prompt tuning in null space (Lu et al., NeurIPS 2024)."""

    config: NSP2Config
