"""What methods share that keep prompt updates in a null space of old tasks' features."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perdure.errors import ConfigError
from perdure.methods.deep_prompts import DeepPromptConfig, DeepPromptMethod
from perdure.numerics.subspace import RankRule, damping, image_weights, null_space
from perdure.types import BackboneSpec, BlockView, Generators, Survey, Task


@dataclass(frozen=True)
class NullSpaceConfig(DeepPromptConfig):
    """Options of every projection; the defaults follow NSP²'s released program at 10S-CIFAR-100.

    Attributes:
        eta1: strength of the projection over the prompts' dimensions, 1 full, 0 none (η₁).
        projector: ``damped`` divides Π by its Frobenius norm (published); ``orthogonal`` keeps Π.
        rank_rule: where the null space begins: ``reference`` (the program) or ``paper`` (eq. 28).
        statistics: ``sum``: batches of ``statistics_batch`` images add their means, over all tasks;
            ``mean``: the plain mean over all images of all tasks.
        statistics_batch: images per batch under ``sum``, in data set order.
    """

    eta1: float = 0.97
    projector: Literal["damped", "orthogonal"] = "damped"
    rank_rule: RankRule = "reference"
    statistics: Literal["sum", "mean"] = "sum"
    statistics_batch: int = 100

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: a strength outside [0, 1], or a batch without images.
        """
        super().__post_init__()
        if not 0 <= self.eta1 <= 1:
            raise ConfigError(f"eta1={self.eta1}: it must lie in 0 to 1.")
        if self.statistics_batch < 1:
            raise ConfigError(f"statistics_batch={self.statistics_batch}: it must be 1 or more.")


class WeightedImages(abc.ABC):
    """Watches a survey and weighs its images as the statistics ask.

    Args:
        blocks: the blocks that have prompts.
        config: how images are weighed.
    """

    def __init__(self, blocks: tuple[int, ...], config: NullSpaceConfig) -> None:
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
        """Add one block of one batch, where it has prompts."""
        if index in self._blocks:
            self.add(index, view)

    @abc.abstractmethod
    def add(self, index: int, view: BlockView) -> None:
        """Add one prompted block of one batch."""


class NullSpacePrompts(DeepPromptMethod):
    """Deep prompts whose updates are projected into null spaces of accumulated Grams.

    Buffers, per prompted block and side: the Gram accumulated over tasks, and the damped projector
    made from it. Their size does not grow with the number of tasks.

    Args:
        spec: the backbone.
        config: a `NullSpaceConfig`.
        generator: gives the generator of each block's initialisation.
    """

    RIGHT: ClassVar[str]
    """Name of the Gram over the prompts' dimensions, which projects an update from the right."""
    LEFT: ClassVar[str] = ""
    """Name of the Gram over the prompts, which projects from the left; empty for none."""
    config: NullSpaceConfig

    def __init__(self, spec: BackboneSpec, config: Any, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        sizes = {self.RIGHT: spec.dim} | ({self.LEFT: config.prompt_length} if self.LEFT else {})
        for block in self.prompts.blocks:
            for side, size in sizes.items():
                self.register_buffer(f"gram_{side}_{block}", torch.zeros(size, size))
                self.register_buffer(f"projector_{side}_{block}", torch.eye(size))
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))

    @abc.abstractmethod
    def survey_grams(self, survey: Survey) -> tuple[int, dict[str, Float[Tensor, "n n"]]]:
        """Survey the task's training images once.

        Returns:
            Their number, and the Gram that they add per ``SIDE_BLOCK``.
        """

    def conditions(self, block: int) -> list[tuple[str, Float[Tensor, "n n"], float]]:
        """Sides of a block with the Gram to decompose, in float64, and the strength."""
        return [
            (self.RIGHT, self.get_buffer(f"gram_{self.RIGHT}_{block}").double(), self.config.eta1)
        ]

    def end_task(self, task: Task, survey: Survey) -> None:
        """Accumulate the Grams over the task's training images and renew the projectors."""
        images, grams = self.survey_grams(survey)
        old = int(self.get_buffer("images_seen"))
        new = old + images
        keep, share = (old / new, 1 / new) if self.config.statistics == "mean" else (1.0, 1.0)
        self.get_buffer("images_seen").fill_(new)
        for name, gram in grams.items():
            buffer = self.get_buffer(f"gram_{name}")
            buffer.copy_(buffer.double() * keep + gram * share)
        for block in self.prompts.blocks:
            self._renew_projectors(block)

    def project(self, name: str, delta: Tensor) -> Tensor:
        """ΔP = B₂ · P_G · B₁ for the prompts of one block (NSP², Algorithm 2)."""
        block = name.rpartition(".")[2]
        if self.LEFT:
            delta = self.get_buffer(f"projector_{self.LEFT}_{block}") @ delta
        return delta @ self.get_buffer(f"projector_{self.RIGHT}_{block}")

    def _renew_projectors(self, block: int) -> None:
        for side, gram, eta in self.conditions(block):
            if eta == 0:
                continue
            basis = null_space(gram, self.config.rank_rule)
            damped = damping(basis, eta, normalise=self.config.projector == "damped")
            self.get_buffer(f"projector_{side}_{block}").copy_(damped)
