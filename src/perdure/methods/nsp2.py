"""VPT-NSP²: prompt updates are projected into the null space of old tasks' features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perdure.methods.catalog import METHODS
from perdure.methods.deep_prompts import DeepPromptMethod, PromptMatrices
from perdure.methods.null_space import Gram, Grams, NullSpaceGuard, WeightedImages
from perdure.methods.options import NSP2Config, NullSpaceOptions
from perdure.numerics.subspace import affinity_gram
from perdure.types import BackboneSpec, BlockView, Generators, Survey, Task


class QueryStatistics(WeightedImages):
    """Observer of NSP²: sums, per prompted block, the statistics of both conditions.

    Per block: Σ w qᵀq of each head (d × d each) for the affinity Gram, and Σ w SᵀS over the attention
    weights S on the prompts (M × M) for the aggregation Gram. Every image weighs ``w``/(H · N).
    Where images choose from a pool, every entry has an aggregation Gram of its own, over the images
    that chose it; without a pool, ``pool`` is None.
    """

    def __init__(
        self, blocks: Iterable[int], options: NullSpaceOptions, pool: int | None = None
    ) -> None:
        super().__init__(blocks, options)
        self._pool = pool

    def add(self, index: int, view: BlockView) -> None:
        """Add one block of one batch."""
        assert view.prompt_attention is not None
        assert view.queries is not None
        _, heads, tokens, _ = view.queries.shape
        weights = (self.weights / (heads * tokens)).sqrt().to(view.queries).view(-1, 1, 1, 1)
        scaled = (view.queries * weights).transpose(0, 1).flatten(1, 2)
        self.sum(Gram("queries", index), scaled.transpose(1, 2) @ scaled)
        shares = view.prompt_attention * weights
        self.sum(Gram("aggregation", index), self._shares_gram(shares, view))

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


class NSP2Guard(NullSpaceGuard):
    """NSP²'s two conditions, affinity and aggregation, and its LayerNorm term.

    Beside Grams and projectors it keeps, per prompted block, mean and deviation of each prompt row at
    the end of the last task.
    """

    RIGHT = "affinity"
    LEFT = "aggregation"

    def __init__(
        self,
        spec: BackboneSpec,
        options: Any,
        prompts: PromptMatrices,
        keys: nn.Parameter | None = None,
    ) -> None:
        super().__init__(spec, options, prompts, keys)
        for block, matrix in self.prompts.items():
            self.register_buffer(f"old_mean_{block}", torch.zeros(matrix.shape[:-1]))
            self.register_buffer(f"old_std_{block}", torch.zeros(matrix.shape[:-1]))

    def penalties(self, task: Task) -> dict[str, Float[Tensor, ""]]:
        """The LayerNorm term, from the second task on."""
        if task.index == 0 or self.options.ln_weight == 0:
            return {}
        return {"layer_norm": self.options.ln_weight * self.norm_drift()}

    def norm_drift(self) -> Float[Tensor, ""]:
        """Σ over blocks of mean |μ − μ_old| + mean |σ − σ_old| over prompt rows (biased σ)."""
        prompts = torch.stack(list(self.prompts.values()))
        drift = (prompts.std(-1, correction=0) - self._stacked("old_std")).abs()
        if self.options.ln_terms == "both":
            drift = drift + (prompts.mean(-1) - self._stacked("old_mean")).abs()
        return drift.flatten(1).mean(-1).sum()

    def end_task(self, task: Task, survey: Survey) -> None:
        """Accumulate both Grams, renew the projectors, note the prompts' means and deviations."""
        super().end_task(task, survey)
        for block, matrix in self.prompts.items():
            prompts = matrix.detach()
            self.get_buffer(f"old_mean_{block}").copy_(prompts.mean(-1))
            self.get_buffer(f"old_std_{block}").copy_(prompts.std(-1, correction=0))

    def statistics(self) -> QueryStatistics:
        """Sums queries and attention weights."""
        first = next(iter(self.prompts.values()))
        pool = len(first) if first.ndim > 2 else None  # noqa: PLR2004  entries × vectors × D
        return QueryStatistics(self.prompts, self.options, pool)

    def grams(self, seen: WeightedImages) -> Grams:
        """C₁ from the queries' Grams and the key weights; the others as they were summed."""
        found = dict(seen.sums)
        for block in self.prompts:
            queries = found.pop(Gram("queries", block))
            found[Gram(self.RIGHT, block)] = affinity_gram(queries, self.spec.key_weight[block])
        return found

    def condition(self, gram: Gram) -> tuple[Float[Tensor, "*e n n"], float]:
        """The Gram as accumulated, or with the LayerNorm scales that the exact conditions keep."""
        matrix, eta = super().condition(gram)
        if gram.block is None:
            return matrix, eta
        exact = self.options.conditions == "exact"
        if gram.of == self.RIGHT and exact:
            scale = self.spec.norm_scale[gram.block].double()
            matrix = scale[:, None] * matrix * scale
        if gram.of == self.LEFT:
            eta = self.options.eta2
            if exact:
                prompts = self.prompts[gram.block].detach().double()
                spread = (prompts.var(-1, correction=0) + self.spec.norm_eps).sqrt()
                matrix = matrix / spread[..., :, None] / spread[..., None, :]
        return matrix, eta

    def _stacked(self, name: str) -> Float[Tensor, "l *e m"]:
        return torch.stack([self.get_buffer(f"{name}_{block}") for block in self.prompts])


@METHODS.register("nsp2")
class NSP2(DeepPromptMethod):
    """Visual prompt tuning in null space (Lu et al., NeurIPS 2024)."""

    def __init__(self, spec: BackboneSpec, config: NSP2Config, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.guard = NSP2Guard(spec, config, self.prompts)
