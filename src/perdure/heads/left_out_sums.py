"""Leave-one-out sums over lessons, by which a head chooses an option from a grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from perdure.numerics.leave_one_out import LeftOut


class LeftOutSums(nn.Module):
    """Leave-one-out answers of all lessons: three sums per point of a grid, of constant size.

    Images of a lesson are judged among the classes known at its end, under the features they had
    then; neither is known of old images later. So these sums choose, and nothing else.

    Args:
        grid: values of the option, rising.
    """

    right: Tensor
    loss: Tensor
    judged: Tensor

    def __init__(self, grid: Sequence[float]) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.register_buffer("right", torch.zeros(len(grid), dtype=torch.int64))
        self.register_buffer("loss", torch.zeros(len(grid), dtype=torch.float64))
        self.register_buffer("judged", torch.zeros((), dtype=torch.int64))

    def add(self, answers: LeftOut) -> None:
        """Add the answers to a lesson's images."""
        self.right += answers.right.to(self.right)
        self.loss += answers.loss.to(self.loss)
        self.judged += answers.judged

    def best(self, allowed: Bool[Tensor, "g"] | None = None) -> float | None:
        """The value with most right answers, of ties that with the least loss.

        Args:
            allowed: points that may be chosen; None for all.

        Returns:
            None where no image was judged, or no point may be chosen.
        """
        place = LeftOut(self.right, self.loss, int(self.judged)).best(allowed)
        return None if place is None else self.grid[place]

    def remark(self, option: str, chosen: float) -> str:
        """What is to be said of a value at an end of the grid; empty for any other."""
        if chosen not in (self.grid[0], self.grid[-1]):
            return ""
        end, beyond = ("lower", "a smaller") if chosen == self.grid[0] else ("upper", "a larger")
        return (
            f"{option}={chosen:g} was chosen, at the {end} end of what is compared "
            f"({self.grid[0]:g} to {self.grid[-1]:g}): {beyond} one might be better still"
        )
