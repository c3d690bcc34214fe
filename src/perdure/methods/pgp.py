"""Prompt gradient projection: updates orthogonal to the input tokens of old tasks."""

from __future__ import annotations

from collections.abc import Iterable

from perdure.methods.catalog import METHODS
from perdure.methods.deep_prompts import DeepPromptMethod
from perdure.methods.null_space import Gram, NullSpaceGuard, WeightedImages
from perdure.methods.options import PGPConfig, PGPOptions
from perdure.types import BackboneSpec, BlockView, Generators


class InputStatistics(WeightedImages):
    """Sums Σ w XᵀX over the input tokens of every prompted block; an image weighs ``w``/N."""

    def __init__(self, blocks: Iterable[int], options: PGPOptions) -> None:
        super().__init__(blocks, options)
        self._after = options.inputs == "after"

    def add(self, index: int, view: BlockView) -> None:
        """Add one block of one batch."""
        tokens = view.normed if self._after else view.inputs
        weights = (self.weights / tokens.shape[1]).sqrt().to(tokens)
        rows = (tokens * weights.view(-1, 1, 1)).flatten(0, 1)
        self.sum(Gram("inputs", index), rows.T @ rows)


class PGPGuard(NullSpaceGuard):
    """The condition X ΔPᵀ = 0 on the input tokens X of old tasks."""

    RIGHT = "inputs"

    def statistics(self) -> InputStatistics:
        """Sums XᵀX per block."""
        return InputStatistics(self.prompts, self.options)


@METHODS.register("pgp")
class PGP(DeepPromptMethod):
    """VPT-PGP: the null space of old input tokens (Qiao et al., ICLR 2024), in NSP²'s recipe."""

    def __init__(self, spec: BackboneSpec, config: PGPConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.guard = PGPGuard(spec, config, self.prompts)
