"""Prompt gradient projection: updates orthogonal to the input tokens of old tasks."""

from __future__ import annotations

from perdure.methods.catalog import METHODS
from perdure.methods.deep_prompts import DeepPromptMethod
from perdure.methods.null_space import Grams, NullSpaceMethod, WeightedImages
from perdure.methods.options import PGPConfig, PGPOptions
from perdure.types import BlockView


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

    config: PGPConfig
