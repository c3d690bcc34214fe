"""Prompt gradient projection: updates orthogonal to the input tokens of old tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from perdure.methods.base import METHODS
from perdure.methods.null_space import NullSpaceConfig, NullSpacePrompts, WeightedImages
from perdure.types import BlockView, Survey, Traits


@dataclass(frozen=True)
class PGPConfig(NullSpaceConfig):
    """Options of prompt gradient projection.

    Attributes:
        inputs: which tokens X the condition X ΔPᵀ = 0 speaks of: the block's, ``before`` its norm1
            or ``after``.
    """

    inputs: Literal["before", "after"] = "before"


class InputStatistics(WeightedImages):
    """Sums Σ w XᵀX over the input tokens of every prompted block; an image weighs ``w``/N.

    Args:
        blocks: the blocks that have prompts.
        config: how images are weighed, and which tokens are taken.
    """

    def __init__(self, blocks: tuple[int, ...], config: PGPConfig) -> None:
        super().__init__(blocks, config)
        self.grams: dict[int, Float[Tensor, "d d"]] = {}
        self._after = config.inputs == "after"

    def add(self, index: int, view: BlockView) -> None:
        """Add one block of one batch."""
        tokens = view.normed if self._after else view.inputs
        weights = (self.weights / tokens.shape[1]).sqrt().to(tokens)
        rows = (tokens * weights.view(-1, 1, 1)).flatten(0, 1)
        gram = (rows.T @ rows).double()
        self.grams[index] = self.grams[index] + gram if index in self.grams else gram


@METHODS.register("pgp")
class PGP(NullSpacePrompts):
    """VPT-PGP: the null space of old input tokens (Qiao et al., ICLR 2024), in NSP²'s recipe."""

    traits: ClassVar[Traits] = Traits(
        paper="Qiao et al., ICLR 2024 (PGP); VPT-PGP in Lu et al., NeurIPS 2024",
        summary="prompt updates orthogonal to old tasks' input tokens",
        projects_updates=True,
        stores_statistics="per block one D × D Gram of old tokens",
    )
    Config = PGPConfig
    RIGHT = "inputs"
    config: PGPConfig

    def survey_grams(self, survey: Survey) -> tuple[int, dict[str, Float[Tensor, "n n"]]]:
        """XᵀX per block."""
        seen = InputStatistics(self.prompts.blocks, self.config)
        survey(seen)
        return seen.images, {f"inputs_{block}": gram for block, gram in seen.grams.items()}
