"""Prompt gradient projection: updates orthogonal to the input tokens of old tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from perdure.methods.base import METHODS
from perdure.methods.deep_prompts import DeepPromptConfig, DeepPromptMethod
from perdure.methods.null_space import Grams, NullSpaceConfig, NullSpaceMethod, WeightedImages
from perdure.types import BlockView, Traits


@dataclass(frozen=True)
class PGPOptions(NullSpaceConfig):
    """Options of prompt gradient projection.

    Attributes:
        inputs: which tokens X the condition X ΔPᵀ = 0 speaks of: the block's, ``before`` its norm1
            or ``after``.
    """

    inputs: Literal["before", "after"] = "before"


@dataclass(frozen=True)
class PGPConfig(PGPOptions, DeepPromptConfig):
    """Options of VPT-PGP."""


class InputStatistics(WeightedImages):
    """Sums Σ w XᵀX over the input tokens of every prompted block; an image weighs ``w``/N.

    Args:
        blocks: the blocks that have prompts.
        config: how images are weighed, and which tokens are taken.
    """

    def __init__(self, blocks: tuple[int, ...], config: PGPOptions) -> None:
        super().__init__(blocks, config)
        self._after = config.inputs == "after"

    def add(self, index: int, view: BlockView) -> None:
        """Add one block of one batch."""
        tokens = view.normed if self._after else view.inputs
        weights = (self.weights / tokens.shape[1]).sqrt().to(tokens)
        rows = (tokens * weights.view(-1, 1, 1)).flatten(0, 1)
        self.sum(f"inputs_{index}", rows.T @ rows)


class PGPMethod(NullSpaceMethod):
    """The condition X ΔPᵀ = 0, for a class that holds prompts."""

    RIGHT = "inputs"

    def statistics(self) -> InputStatistics:
        """Sums XᵀX per block."""
        return InputStatistics(self.prompts.blocks, self.config)

    def grams(self, seen: WeightedImages) -> Grams:
        """As they were summed."""
        return seen.sums


@METHODS.register("pgp")
class PGP(PGPMethod, DeepPromptMethod):
    """VPT-PGP: the null space of old input tokens (Qiao et al., ICLR 2024), in NSP²'s recipe."""

    traits: ClassVar[Traits] = Traits(
        paper="Qiao et al., ICLR 2024 (PGP); VPT-PGP in Lu et al., NeurIPS 2024",
        summary="prompt updates orthogonal to old tasks' input tokens",
        projects_updates=True,
        stores_statistics="per block one D × D Gram of old tokens",
    )
    Config = PGPConfig
    config: PGPConfig
