"""I-Prompt: prompts are matched to image tokens inside a block and added to them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from perdure.backbones.additions import Additions, TokenResidual, block_numbers
from perdure.errors import BackboneError
from perdure.methods.base import Method
from perdure.methods.catalog import METHODS
from perdure.methods.entry_use import UseGuard
from perdure.methods.matching import cosine
from perdure.methods.options import IPromptConfig
from perdure.methods.sensitivity import sensitivity_guard
from perdure.traits import Read
from perdure.types import BackboneSpec, BlockView, Features, Generators, Loss, Survey, Task, Trace

MOST_TOKENS = 8192
"""Clustered per block, evenly spaced over all tokens of the task."""


class TokenKeys:
    """Observer that keeps normalised attention keys of some target tokens, ``rows`` of each block."""

    def __init__(self, rows: Mapping[int, slice]) -> None:
        self._keys: dict[int, dict[int, Float[Tensor, "k d"]]] = {block: {} for block in rows}
        self._rows = rows
        self._positions, self._total = torch.zeros(0, dtype=torch.int64), 0

    def start_batch(
        self, positions: Int[Tensor, "b"], total: int, labels: Int[Tensor, "b"]
    ) -> None:
        """Note which of all images these are: which tokens are kept does not depend on batches."""
        self._positions, self._total = positions, total

    def block(self, index: int, view: BlockView) -> None:
        """Keep evenly spaced tokens of one block of one batch."""
        if index not in self._keys:
            return
        keys = view.keys.transpose(1, 2).flatten(2)[:, self._rows[index]]
        count = keys.shape[1]
        step = -(-self._total * count // MOST_TOKENS)
        of_all = self._positions[:, None] * count + torch.arange(count)
        kept = (of_all % step == 0).to(keys.device)
        self._keys[index][int(self._positions[0])] = F.normalize(keys[kept], dim=-1)

    def merge(self, other: TokenKeys) -> None:
        """Add the keys of other batches."""
        for block, keys in other._keys.items():
            self._keys[block].update(keys)

    def keys(self, block: int) -> Float[Tensor, "k d"]:
        """The keys kept of a block, in data set order."""
        return torch.cat([keys for _, keys in sorted(self._keys[block].items())])


@METHODS.register("iprompt")
class IPrompt(Method):
    """Semantic prompting with image tokens (Han et al., WACV 2025), reconstructed.

    Per block: keys and prompts of the pool. ``merged`` holds what earlier tasks have added up to,
    ``residual`` what the current one adds; a finished task's residual is merged, so that the state
    does not grow.
    """

    config: IPromptConfig

    def __init__(self, spec: BackboneSpec, config: IPromptConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        if config.target == "cls" and not spec.has_class_token:
            raise BackboneError(
                f"target='cls' adds prompts to the class token, but '{spec.name}' has none. Take "
                "target='patches', or a backbone with a class token."
            )
        if config.token_weights == "similarity" and spec.block_sizes:
            raise BackboneError(
                f"token_weights='similarity' weighs image tokens by what they matched in the "
                f"blocks, but '{spec.name}' has fewer tokens after every stage. Take "
                "token_weights=uniform."
            )
        third = range(spec.blocks // 3, max(spec.blocks * 2 // 3, spec.blocks // 3 + 1))
        self.blocks = block_numbers(spec, config.prompt_blocks or tuple(third), "prompt_blocks")
        first, patches = spec.prefix_tokens, config.target == "patches"
        self.rows = {
            block: slice(first, first + spec.patches_in(block)) if patches else slice(0, 1)
            for block in self.blocks
        }
        self.keys, self.residual = nn.ParameterDict(), nn.ParameterDict()
        entries = config.pool_limit if config.pool_growth else config.pool
        for block in self.blocks:
            size = (entries, spec.width(block))
            keys = torch.randn(size, generator=generator(f"keys.{block}"))
            self.keys[str(block)] = nn.Parameter(F.normalize(keys, dim=-1))
            self.residual[str(block)] = nn.Parameter(torch.zeros(size))
            self.register_buffer(f"merged_{block}", torch.zeros(size))
        self._learns_keys, self._trained = True, False
        self._entries = range(config.pool)  # that learn; older ones are before them
        if config.protect == "use":
            self.guard = UseGuard(config, self.residual, self._weigh)
        else:
            shapes = {name: tuple(one.shape) for name, one in self.residual.items()}
            self.guard = sensitivity_guard(config, self.residual, shapes, generator)

    @classmethod
    def rows_read(cls, config: Any, spec: BackboneSpec) -> frozenset[Read]:
        """The class token and the image tokens, as far as they are classified."""
        rows: set[Read] = set()
        if "cls" in config.readout:
            rows.add("cls")
        if "tokens" in config.readout:
            rows.add("tokens")
            if config.token_weights == "attention" and spec.has("class_attention"):
                rows.add("cls_attention")
        if config.target == "cls":
            rows.add("cls")
        return frozenset(rows)

    @property
    def first_block(self) -> int:
        """The first block that has a pool."""
        return min(self.blocks)

    def start_task(self, task: Task) -> None:
        """Let keys learn in the first task that trains, and later where they may; let entries in."""
        trained = self.config.key_pull > 0 or (
            self.config.scale_by_similarity or self.config.selection == "soft"
        )
        several = len(task.classes) > 1  # a task of one class takes no step
        self._learns_keys = trained and (not self._trained or self.config.keys == "residual")
        self._trained = self._trained or several
        self.keys.requires_grad_(self._learns_keys)
        self._entries = learning_entries(self.config, task.index)

    def prepare(self, task: Task, survey: Survey) -> bool:
        """Put the keys of the task's new entries at the centres of its token keys.

        A new entry of a later task starts with the prompt of the nearest older key, so that tokens
        that it draws away keep nearly what they had.
        """
        clusters = self.config.key_init == "kmeans"
        grown = task.index == 0 or self._entries != learning_entries(self.config, task.index - 1)
        if not grown or not (clusters or task.index):
            return False
        seen = TokenKeys(self.rows)
        if clusters:
            survey(seen)
        first = self._entries.start
        for block in self.blocks:
            keys = self.keys[str(block)].detach()
            if clusters:
                name = f"kmeans.{block}.{task.index}" if task.index else f"kmeans.{block}"
                centres = self._centres(seen.keys(block), name)
                keys[first : first + len(centres)] = centres.to(keys)
            if first:
                new = keys[first : self._entries.stop]
                nearest = cosine(new, keys[:first]).argmax(dim=1)
                merged = self.get_buffer(f"merged_{block}")
                merged[first : self._entries.stop] = merged[nearest]
        return True

    def _centres(self, tokens: Float[Tensor, "k d"], name: str) -> Float[Tensor, "c d"]:
        """Unit vectors at the centres of tokens, one per entry that learns, as far as they go."""
        seed = int(torch.randint(2**31 - 1, (1,), generator=self.generator(name)))
        groups = min(len(self._entries), len(tokens))
        with threadpool_limits(1, user_api="openmp"):  # several add up in the order they end in
            centres = KMeans(groups, n_init=1, random_state=seed).fit(tokens.cpu().numpy())
        return F.normalize(torch.from_numpy(centres.cluster_centers_), dim=-1)

    def merge(self, before: Mapping[str, Tensor], task: Task, exponent: float) -> None:
        """Scale the task's residual, and the change of keys of a pool that does not grow."""
        if self.config.pool_growth:
            before = {n: value for n, value in before.items() if not n.startswith("keys.")}
        super().merge(before, task, exponent)

    def traces(self, task: Task, later: int) -> list[Trace]:
        """Beside what was trained: keys that began at the centres of the first task's images."""
        found = super().traces(task, later)
        if task.index == 0 and self.config.key_init == "kmeans" and not found:
            names = tuple(self.state_dict())
            what = "keys, which began at the centres of its images, and what was trained with them"
            found.append(Trace(what, names))
        return found

    def additions(self, query: Float[Tensor, "b d"] | None, task: Task | None) -> Additions:
        """Match and add, inside the blocks."""
        return self._matched(self._prompts(), training=task is not None)

    def nothing_added(self) -> Additions:
        """Match, for weights of the readout by similarity, and add zeros."""
        zeros = {name: torch.zeros_like(one) for name, one in self._prompts().items()}
        return self._matched(zeros, training=False)

    def image_prompts(
        self, query: Float[Tensor, "b d"] | None, count: int
    ) -> dict[str, Float[Tensor, "b p d"]]:
        """The whole pool of every block."""
        return {name: one.expand(count, -1, -1) for name, one in self._prompts().items()}

    def additions_of(
        self, prompts: Mapping[str, Float[Tensor, "b p d"]], query: Float[Tensor, "b d"] | None
    ) -> Additions:
        """Match, and add from these pools."""
        return self._matched(prompts, training=False)

    def _prompts(self) -> dict[str, Float[Tensor, "p d"]]:
        """What earlier tasks and this one have added up to, by block; older entries are frozen."""
        first, found = self._entries.start, {}
        for name, residual in self.residual.items():
            own = torch.cat([residual[:first].detach(), residual[first:]]) if first else residual
            found[name] = self.get_buffer(f"merged_{name}") + own
        return found

    def _matched(self, prompts: Mapping[str, Float[Tensor, "*b p d"]], training: bool) -> Additions:
        return Additions(
            residual={
                block: TokenResidual(
                    functools.partial(self._match, block, prompts[str(block)], training),
                    self.config.where,
                )
                for block in self.blocks
            }
        )

    def readout(self, features: Features) -> Float[Tensor, "b d"]:
        """The class token plus Σ_n w_n h_n, or the part of it that was chosen."""
        if "tokens" not in self.config.readout:
            assert features.cls is not None
            return features.cls
        assert features.tokens is not None
        weights = self._token_weights(features)
        pooled = torch.einsum("bn,bnd->bd", weights.to(features.tokens), features.tokens)
        if self.config.readout == "tokens":
            return pooled
        assert features.cls is not None
        return features.cls + pooled

    def loss(
        self,
        logits: Float[Tensor, "b c"],
        features: Features,
        labels: Int[Tensor, "b"],
        task: Task,
    ) -> Loss:
        """Cross-entropy over the current task's classes (others masked), and the pull of the keys."""
        terms = {"cross_entropy": F.cross_entropy(logits, labels)}
        if self.config.key_pull > 0 and "key_pull" in features.penalties:
            terms["key_pull"] = self.config.key_pull * features.penalties["key_pull"]
        return Loss(terms)

    def end_task(self, task: Task, survey: Survey) -> None:
        """Merge the task's residual into the prompts."""
        for block in self.blocks:
            self.get_buffer(f"merged_{block}").add_(self.residual[str(block)].detach())
            self.residual[str(block)].detach().zero_()
        super().end_task(task, survey)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """The residuals, and the keys where they learn.

        Keys have no weight decay: on one that no token chose, Adam would take steps of full length
        along it.
        """
        groups: list[dict[str, Any]] = [{"params": list(self.residual.parameters()), "lr": lr}]
        if self._learns_keys:
            groups.append({"params": list(self.keys.parameters()), "lr": lr, "weight_decay": 0.0})
        return groups

    def _match(
        self,
        block: int,
        prompts: Float[Tensor, "*b p d"],
        training: bool,
        tokens: Float[Tensor, "b n d"],
        keys: Float[Tensor, "b n d"],
    ) -> tuple[Float[Tensor, "b n d"], Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Change of the tokens of one block; never more than target tokens × pool at once."""
        similarity = self._similarity(block, keys)
        best, chosen = similarity.max(dim=-1)
        weights, rows = entry_weights(similarity, self.config), self.rows[block]
        added = weights @ prompts[..., : self._entries.stop, :].to(tokens.dtype)
        delta = F.pad(added, (0, 0, rows.start, tokens.shape[1] - rows.stop))
        records = {f"similarity.{block}": best.float()}
        if training:
            penalties = {"key_pull": (1 - best.float()).mean() / len(self.blocks)}
            return delta, penalties if self._learns_keys else {}, records
        histogram = F.one_hot(chosen, self._entries.stop).float().mean(dim=1)
        return delta, {}, {**records, f"selection.{block}": histogram}

    def _similarity(self, block: int, keys: Float[Tensor, "b n d"]) -> Float[Tensor, "b m p"]:
        """Cosines of the target tokens' attention keys with the keys of the pool, as far as it goes."""
        first, stop = self._entries.start, self._entries.stop
        own = self.keys[str(block)]
        own = own[:stop] if not first else torch.cat([own[:first].detach(), own[first:stop]])
        own = F.normalize(own, dim=-1).to(keys.dtype)
        return F.normalize(keys[:, self.rows[block]], dim=-1) @ own.T

    def _weigh(self, block: int, keys: Float[Tensor, "b n d"]) -> Float[Tensor, "b m p"]:
        """Weight of every prompt for every target token."""
        return entry_weights(self._similarity(block, keys), self.config)

    def _token_weights(self, features: Features) -> Float[Tensor, "b n"]:
        assert features.tokens is not None
        uniform = features.tokens.new_full(features.tokens.shape[:2], 1 / features.tokens.shape[1])
        if self.config.token_weights == "attention" and features.cls_attention is not None:
            weights = features.cls_attention
        elif self.config.token_weights == "similarity":
            found = [features.records[f"similarity.{block}"] for block in self.blocks]
            weights = torch.stack(found).mean(0).clamp(min=0)
        else:
            return uniform
        return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-12)


def learning_entries(config: IPromptConfig, task: int) -> range:
    """Entries of a pool that learn in a task: all of one that does not grow, else the youngest.

    Once the pool is full, those that came last go on learning.

    Examples:
        >>> config = IPromptConfig(pool=4, pool_growth=2, pool_limit=7)
        >>> [learning_entries(config, task) for task in range(4)]
        [range(0, 4), range(4, 6), range(6, 7), range(6, 7)]
    """
    first, stop = 0, config.pool
    for _ in range(task):
        grown = min(stop + config.pool_growth, max(config.pool_limit, config.pool))
        if not config.pool_growth or grown == stop:
            break
        first, stop = stop, grown
    return range(first, stop)


def entry_weights(
    similarity: Float[Tensor, "b n p"], config: IPromptConfig
) -> Float[Tensor, "b n p"]:
    """Weight of every prompt for every token."""
    scale = similarity if config.scale_by_similarity else torch.ones_like(similarity)
    if config.selection == "soft":
        return (similarity / config.softness).softmax(dim=-1) * scale
    count = config.top_k if config.selection == "topk" else 1
    chosen = similarity.topk(count, dim=-1).indices
    kept = torch.zeros_like(similarity).scatter_(-1, chosen, 1 / count)
    return kept * scale
