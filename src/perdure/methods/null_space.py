"""What methods share that keep prompt updates in a null space of old tasks' features."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from perdure.methods.base import Method
from perdure.methods.deep_prompts import PromptMatrices
from perdure.methods.options import NullSpaceConfig
from perdure.numerics.subspace import damping, image_weights, null_space
from perdure.types import BackboneSpec, BlockView, Generators, Survey, Task

Grams = dict[str, Float[Tensor, "*e n n"]]
"""By ``SIDE_SITE``; those over a pool's own prompts have a leading dimension for its entries."""


class WeightedImages(abc.ABC):
    """Watches a survey, weighs its images as the statistics ask, and sums Grams.

    Args:
        blocks: the blocks that have prompts.
        config: how images are weighed.

    Attributes:
        sums: the Grams so far, in float64.
        images: how many images the survey shows.
        weights: of the images of this batch.
    """

    def __init__(self, blocks: Iterable[int], config: NullSpaceConfig) -> None:
        self.sums: Grams = {}
        self.images = 0
        self.weights: Float[Tensor, "b"] = torch.zeros(0)
        self._blocks = frozenset(blocks)
        self._config = config

    def start_batch(
        self, positions: Int[Tensor, "b"], total: int, labels: Int[Tensor, "b"]
    ) -> None:
        """Look up the weights of the next images."""
        self.images = total
        if self._config.statistics == "mean":
            self.weights = torch.ones(len(positions), dtype=torch.float64)
        else:
            self.weights = image_weights(total, self._config.statistics_batch)[positions]

    def block(self, index: int, view: BlockView) -> None:
        """Add one block of one batch, where it has prompts; and once the queries of a pool's keys."""
        if index in self._blocks:
            self.add(index, view)
        if index == min(self._blocks) and "query" in view.records:
            queries = F.normalize(view.records["query"], dim=-1)
            rows = queries * self.weights.sqrt().to(queries)[:, None]
            self.sum("queries_keys", rows.T @ rows)

    def merge(self, other: WeightedImages) -> None:
        """Add the Grams of other batches; images are weighed by their place in the whole survey."""
        self.images = max(self.images, other.images)
        for name, gram in other.sums.items():
            self.sum(name, gram)

    def sum(self, name: str, gram: Float[Tensor, "*e n n"]) -> None:
        """Add to a Gram."""
        gram = gram.double()
        self.sums[name] = self.sums[name] + gram if name in self.sums else gram

    @abc.abstractmethod
    def add(self, index: int, view: BlockView) -> None:
        """Add one prompted block of one batch."""


class NullSpaceMethod(Method):
    """Prompts whose updates are projected into null spaces of accumulated Grams.

    It stands before a class that holds ``prompts`` (one matrix per block, or one per block and entry
    of a pool) and, where these are chosen by keys, ``keys``.

    Buffers, per place that is learned and side: the Gram accumulated over tasks, and the damped
    projector made from it. Their size does not grow with the number of tasks.

    Args:
        spec: the backbone.
        config: a `NullSpaceConfig`.
        generator: gives the generator of each initialisation.
    """

    RIGHT: ClassVar[str]
    """Name of the Gram over the prompts' dimensions, which projects an update from the right."""
    LEFT: ClassVar[str] = ""
    """Name of the Gram over the prompts, which projects from the left; empty for none."""
    learning_only: ClassVar[tuple[str, ...]] = ("gram_*", "projector_*", "images_seen")
    config: Any
    prompts: PromptMatrices

    def __init__(self, spec: BackboneSpec, config: Any, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        for block, matrix in self.prompts.matrices.items():
            self._register(f"{self.RIGHT}_{block}", (spec.dim, spec.dim))
            if self.LEFT:
                self._register(f"{self.LEFT}_{block}", (*matrix.shape[:-1], matrix.shape[-2]))
        if "keys" in dict(self.named_parameters()):
            self._register("queries_keys", (spec.dim, spec.dim))
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))

    @abc.abstractmethod
    def statistics(self) -> WeightedImages:
        """A new observer that sums what `grams` needs."""

    @abc.abstractmethod
    def grams(self, seen: WeightedImages) -> Grams:
        """The Grams that a survey of the task's training images adds."""

    def condition(self, name: str) -> tuple[Float[Tensor, "*e n n"], float]:
        """The Gram ``SIDE_SITE`` to decompose, in float64, and the strength of its projection."""
        return self.get_buffer(f"gram_{name}").double(), self.config.eta1

    def end_task(self, task: Task, survey: Survey) -> None:
        """Accumulate the Grams over the task's training images and renew the projectors."""
        seen = self.statistics()
        survey(seen)
        old = int(self.get_buffer("images_seen"))
        new = old + seen.images
        keep, share = (old / new, 1 / new) if self.config.statistics == "mean" else (1.0, 1.0)
        self.get_buffer("images_seen").fill_(new)
        for name, gram in self.grams(seen).items():
            buffer = self.get_buffer(f"gram_{name}")
            buffer.copy_(buffer.double() * keep + gram * share)
            self._renew_projector(name)

    def project(self, name: str, delta: Tensor) -> Tensor:
        """ΔP = B₂ · P_G · B₁ for the prompts of one block (NSP², Algorithm 2); Δk · B for keys."""
        site = name.rpartition(".")[2]
        if site == "keys":
            return delta @ self.get_buffer("projector_queries_keys")
        if self.LEFT:
            delta = self.get_buffer(f"projector_{self.LEFT}_{site}") @ delta
        return delta @ self.get_buffer(f"projector_{self.RIGHT}_{site}")

    def _register(self, name: str, shape: tuple[int, ...]) -> None:
        self.register_buffer(f"gram_{name}", torch.zeros(shape))
        self.register_buffer(f"projector_{name}", torch.eye(shape[-1]).expand(shape).clone())

    def _renew_projector(self, name: str) -> None:
        gram, eta = self.condition(name)
        if eta == 0:
            return
        normalise = self.config.projector == "damped"
        buffer = self.get_buffer(f"projector_{name}")
        for one, into in zip(
            gram.view(-1, *gram.shape[-2:]), buffer.view(-1, *gram.shape[-2:]), strict=True
        ):
            into.copy_(damping(null_space(one, self.config.rank_rule), eta, normalise=normalise))
