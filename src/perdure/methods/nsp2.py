"""VPT-NSP²: prompt updates are projected into the null space of old tasks' features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perdure.errors import ConfigError
from perdure.methods.base import METHODS
from perdure.methods.deep_prompts import DeepPromptConfig, DeepPromptMethod
from perdure.numerics.subspace import (
    SHORTEST_SPECTRUM,
    RankRule,
    affinity_gram,
    damping,
    image_weights,
    null_space,
)
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
class NSP2Config(DeepPromptConfig):
    """Options of VPT-NSP²; the defaults follow the released program at 10S-CIFAR-100.

    Attributes:
        eta1: strength of the affinity projection, 1 full, 0 none (η₁).
        eta2: strength of the aggregation projection (η₂).
        projector: ``damped`` divides Π by its Frobenius norm (published); ``orthogonal`` keeps Π.
        conditions: ``published`` drops the LayerNorm scales from both conditions; ``exact`` keeps them.
        rank_rule: where the null space begins: ``reference`` (the program) or ``paper`` (eq. 28).
        statistics: ``sum``: batches of ``statistics_batch`` images add their means, over all tasks;
            ``mean``: the plain mean over all images of all tasks.
        statistics_batch: images per batch under ``sum``, in data set order.
        ln_weight: weight of the LayerNorm-invariance term from the second task on (λ_LN).
        ln_terms: which statistics of a prompt row it holds: ``both``, or ``std`` alone.
    """

    eta1: float = 0.97
    eta2: float = 0.97
    projector: Literal["damped", "orthogonal"] = "damped"
    conditions: Literal["published", "exact"] = "published"
    rank_rule: RankRule = "reference"
    statistics: Literal["sum", "mean"] = "sum"
    statistics_batch: int = 100
    ln_weight: float = 1.0
    ln_terms: Literal["both", "std"] = "both"

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: a strength outside [0, 1], a negative weight, or too few prompts for a knee.
        """
        super().__post_init__()
        for key in ("eta1", "eta2"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"{key}={getattr(self, key)}: it must lie in 0 to 1.")
        if not self.ln_weight >= 0:
            raise ConfigError(f"ln_weight={self.ln_weight}: it must be 0 or more.")
        if self.statistics_batch < 1:
            raise ConfigError(f"statistics_batch={self.statistics_batch}: it must be 1 or more.")
        if self.eta2 > 0 and self.prompt_length < SHORTEST_SPECTRUM:
            raise ConfigError(
                f"prompt_length={self.prompt_length}: the aggregation projection finds its null "
                f"space at a knee and needs at least {SHORTEST_SPECTRUM} prompts; "
                f"set prompt_length={SHORTEST_SPECTRUM} or eta2=0."
            )


class QueryStatistics:
    """Watches a survey and sums, per prompted block, what both conditions need.

    Per block: Σ w qᵀq of each head (d × d each) for the affinity Gram, and Σ w SᵀS over the attention
    weights S on the prompts (M × M) for the aggregation Gram. Every image weighs ``w``/(H · N).

    Args:
        blocks: the blocks that have prompts.
        config: how images are weighed.
    """

    def __init__(self, blocks: tuple[int, ...], config: NSP2Config) -> None:
        self.query_grams: dict[int, Float[Tensor, "h c c"]] = {}
        self.prompt_grams: dict[int, Float[Tensor, "p p"]] = {}
        self.images = 0
        self._blocks = frozenset(blocks)
        self._config = config
        self._weights: Float[Tensor, "b"] = torch.zeros(0)

    def start_batch(
        self, positions: Int[Tensor, "b"], total: int, labels: Int[Tensor, "b"]
    ) -> None:
        """Look up the weights of the next images."""
        self.images = total
        if self._config.statistics == "mean":
            self._weights = torch.ones(len(positions), dtype=torch.float64)
        else:
            self._weights = image_weights(total, self._config.statistics_batch)[positions]

    def block(self, index: int, view: BlockView) -> None:
        """Add one block of one batch."""
        if index not in self._blocks or view.prompt_attention is None:
            return
        _, heads, tokens, _ = view.queries.shape
        weights = (self._weights / (heads * tokens)).sqrt().to(view.queries)
        scaled = (view.queries * weights.view(-1, 1, 1, 1)).transpose(0, 1).flatten(1, 2)
        shares = (view.prompt_attention * weights.view(-1, 1, 1, 1)).flatten(0, 2)
        for store, gram in (
            (self.query_grams, scaled.transpose(1, 2) @ scaled),
            (self.prompt_grams, shares.T @ shares),
        ):
            store[index] = store[index] + gram.double() if index in store else gram.double()


@METHODS.register("nsp2")
class NSP2(DeepPromptMethod):
    """Visual prompt tuning in null space (Lu et al., NeurIPS 2024).

    Buffers, per prompted block: both Grams accumulated over tasks, both damped projectors made from
    them, and mean and deviation of each prompt row at the end of the last task. Their size does not
    grow with the number of tasks.
    """

    traits: ClassVar[Traits] = Traits(
        paper="Lu et al., NeurIPS 2024, arXiv 2406.05658",
        summary="prompt updates projected into the null space of old tasks' features",
        projects_updates=True,
        stores_statistics="per block one D × D and one M × M Gram of old features",
    )
    Config = NSP2Config
    config: NSP2Config

    def __init__(self, spec: BackboneSpec, config: NSP2Config, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        length, dim = config.prompt_length, spec.dim
        for block in self.prompts.blocks:
            self.register_buffer(f"gram_affinity_{block}", torch.zeros(dim, dim))
            self.register_buffer(f"gram_aggregation_{block}", torch.zeros(length, length))
            self.register_buffer(f"projector_affinity_{block}", torch.eye(dim))
            self.register_buffer(f"projector_aggregation_{block}", torch.eye(length))
            self.register_buffer(f"old_mean_{block}", torch.zeros(length))
            self.register_buffer(f"old_std_{block}", torch.zeros(length))
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))

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
        """Accumulate both Grams over the task's training images and renew the projectors."""
        seen = QueryStatistics(self.prompts.blocks, self.config)
        survey(seen)
        old = int(self.get_buffer("images_seen"))
        new = old + seen.images
        keep, share = (old / new, 1 / new) if self.config.statistics == "mean" else (1.0, 1.0)
        self.get_buffer("images_seen").fill_(new)
        for block in self.prompts.blocks:
            affinity = affinity_gram(seen.query_grams[block], self.spec.key_weight[block])
            self._accumulate(f"gram_affinity_{block}", affinity, keep, share)
            self._accumulate(f"gram_aggregation_{block}", seen.prompt_grams[block], keep, share)
            self._renew_projectors(block)
            prompts = self.prompts.matrices[str(block)].detach()
            self.get_buffer(f"old_mean_{block}").copy_(prompts.mean(-1))
            self.get_buffer(f"old_std_{block}").copy_(prompts.std(-1, correction=0))

    def project(self, name: str, delta: Tensor) -> Tensor:
        """ΔP = B₂ · P_G · B₁ for the prompts of one block (Algorithm 2)."""
        block = name.rpartition(".")[2]
        left = self.get_buffer(f"projector_aggregation_{block}")
        right = self.get_buffer(f"projector_affinity_{block}")
        return left @ delta @ right

    def _stacked(self, name: str) -> Float[Tensor, "l m"]:
        return torch.stack([self.get_buffer(f"{name}_{b}") for b in self.prompts.blocks])

    def _accumulate(self, name: str, gram: Tensor, keep: float, share: float) -> None:
        buffer = self.get_buffer(name)
        buffer.copy_(buffer.double() * keep + gram * share)

    def _renew_projectors(self, block: int) -> None:
        config = self.config
        affinity = self.get_buffer(f"gram_affinity_{block}").double()
        aggregation = self.get_buffer(f"gram_aggregation_{block}").double()
        if config.conditions == "exact":
            prompts = self.prompts.matrices[str(block)].detach().double()
            spread = (prompts.var(-1, correction=0) + self.spec.norm_eps).sqrt()
            scale = self.spec.norm_scale[block].double()
            affinity = scale[:, None] * affinity * scale
            aggregation = aggregation / spread[:, None] / spread
        for name, gram, eta in (
            ("projector_affinity", affinity, config.eta1),
            ("projector_aggregation", aggregation, config.eta2),
        ):
            if eta == 0:
                continue
            basis = null_space(gram, config.rank_rule)
            damped = damping(basis, eta, normalise=config.projector == "damped")
            self.get_buffer(f"{name}_{block}").copy_(damped)
