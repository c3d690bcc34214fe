"""Null-space projection: prompt updates that lie in the null space of old tasks' Gram matrices."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from perdure.methods.deep_prompts import PromptMatrices
from perdure.methods.guard import Guard
from perdure.methods.options import NullSpaceOptions
from perdure.numerics.subspace import damping, image_weights, null_space
from perdure.types import BackboneSpec, BlockView, Survey, Task


class Gram(NamedTuple):
    """A Gram matrix that is summed over images, and the projector made from it.

    Attributes:
        of: what it is of.
        block: block whose prompts it conditions; None for the keys of a pool.
    """

    of: str
    block: int | None = None

    @property
    def total(self) -> str:
        """Name of the buffer that holds its sum over tasks."""
        return f"gram_{self}"

    @property
    def projector(self) -> str:
        """Name of the buffer that holds its projector."""
        return f"projector_{self}"

    def __str__(self) -> str:
        return f"{self.of}_{'keys' if self.block is None else self.block}"


KEYS = Gram("queries")
"""Of the queries that a pool's keys are compared with."""
Grams = dict[Gram, Float[Tensor, "*e n n"]]
"""Those over a pool's own prompts have a leading dimension for its entries."""


class WeightedImages(abc.ABC):
    """Observer that sums Grams over the weighted images of a survey, in blocks that have prompts.

    Attributes:
        sums: the Grams so far, in float64.
        images: number of images in the survey.
        weights: weights of the images of this batch.
    """

    def __init__(self, blocks: Iterable[int], options: NullSpaceOptions) -> None:
        self.sums: Grams = {}
        self.images = 0
        self.weights: Float[Tensor, "b"] = torch.zeros(0)
        self._blocks = frozenset(blocks)
        self._options = options

    def start_batch(
        self, positions: Int[Tensor, "b"], total: int, labels: Int[Tensor, "b"]
    ) -> None:
        """Look up the weights of the next images."""
        self.images = total
        if self._options.statistics == "mean":
            self.weights = torch.ones(len(positions), dtype=torch.float64)
        else:
            self.weights = image_weights(total, self._options.statistics_batch)[positions]

    def block(self, index: int, view: BlockView) -> None:
        """Add one block of one batch, where it has prompts; and once the queries of a pool's keys."""
        if index in self._blocks:
            self.add(index, view)
        if index == min(self._blocks) and "query" in view.records:
            queries = F.normalize(view.records["query"], dim=-1)
            rows = queries * self.weights.sqrt().to(queries)[:, None]
            self.sum(KEYS, rows.T @ rows)

    def merge(self, other: WeightedImages) -> None:
        """Add the Grams of other batches; images are weighed by their place in the whole survey."""
        self.images = max(self.images, other.images)
        for gram, added in other.sums.items():
            self.sum(gram, added)

    def sum(self, gram: Gram, added: Float[Tensor, "*e n n"]) -> None:
        """Add to a Gram."""
        added = added.double()
        self.sums[gram] = self.sums[gram] + added if gram in self.sums else added

    @abc.abstractmethod
    def add(self, index: int, view: BlockView) -> None:
        """Add one prompted block of one batch."""


class NullSpaceGuard(Guard):
    """Null-space guard: projects prompt updates into null spaces of Grams accumulated over tasks.

    Buffers, per Gram: the Gram, and the damped projector made from it. Their size does not grow with
    the number of tasks.

    Args:
        spec: the backbone.
        options: `NullSpaceOptions`, of the method or of its own.
        prompts: what it protects: one matrix per block, or one per block and entry of a pool.
        keys: those that prompts are chosen by, where they are.
    """

    RIGHT: ClassVar[str]
    """What the Gram over the prompts' dimensions is of; it projects an update from the right."""
    LEFT: ClassVar[str] = ""
    """What the Gram over the prompts is of, which projects from the left; empty for none."""

    def __init__(
        self,
        spec: BackboneSpec,
        options: Any,
        prompts: PromptMatrices,
        keys: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.options = options
        self.prompts = {block: prompts.matrices[str(block)] for block in prompts.blocks}
        self._sides: dict[nn.Parameter, tuple[Gram | None, Gram]] = {}
        for block, matrix in self.prompts.items():
            right = self._register(Gram(self.RIGHT, block), (spec.dim, spec.dim))
            shape = (*matrix.shape[:-1], matrix.shape[-2])
            left = self._register(Gram(self.LEFT, block), shape) if self.LEFT else None
            self._sides[matrix] = (left, right)
        if keys is not None:
            self._sides[keys] = (None, self._register(KEYS, (spec.dim, spec.dim)))
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))

    @abc.abstractmethod
    def statistics(self) -> WeightedImages:
        """Return a new observer that sums the statistics for `grams`."""

    def grams(self, seen: WeightedImages) -> Grams:
        """The Grams that a survey of the task's training images adds."""
        return seen.sums

    def condition(self, gram: Gram) -> tuple[Float[Tensor, "*e n n"], float]:
        """The matrix to decompose, in float64, and the strength of its projection."""
        return self.get_buffer(gram.total).double(), self.options.eta1

    def end_task(self, task: Task, survey: Survey) -> None:
        """Accumulate the Grams over the task's training images and renew the projectors."""
        seen = self.statistics()
        survey(seen)
        old = int(self.get_buffer("images_seen"))
        new = old + seen.images
        keep, share = (old / new, 1 / new) if self.options.statistics == "mean" else (1.0, 1.0)
        self.get_buffer("images_seen").fill_(new)
        for gram, added in self.grams(seen).items():
            total = self.get_buffer(gram.total)
            total.copy_(total.double() * keep + added * share)
            self._renew_projector(gram)

    def project(self, parameter: nn.Parameter, delta: Tensor) -> Tensor:
        """ΔP = B₂ · P_G · B₁ for the prompts of one block (NSP², Algorithm 2); Δk · B for keys."""
        if parameter not in self._sides:
            return delta
        left, right = self._sides[parameter]
        if left is not None:
            delta = self.get_buffer(left.projector) @ delta
        return delta @ self.get_buffer(right.projector)

    def _register(self, gram: Gram, shape: tuple[int, ...]) -> Gram:
        self.register_buffer(gram.total, torch.zeros(shape))
        self.register_buffer(gram.projector, torch.eye(shape[-1]).expand(shape).clone())
        return gram

    def _renew_projector(self, gram: Gram) -> None:
        matrix, eta = self.condition(gram)
        if eta == 0:
            return
        normalise = self.options.projector == "damped"
        buffer = self.get_buffer(gram.projector)
        for one, into in zip(
            matrix.view(-1, *matrix.shape[-2:]), buffer.view(-1, *matrix.shape[-2:]), strict=True
        ):
            into.copy_(damping(null_space(one, self.options.rank_rule), eta, normalise=normalise))
