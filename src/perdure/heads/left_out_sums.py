"""Leave-one-out sums over lessons, by which a head chooses an option from a grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
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

    def remarks(self, option: str, chosen: float, counts: Int[Tensor, "c"]) -> list[str]:
        """What is to be said of a choice: classes without a say, and an end of the grid.

        Nothing while there is a single class, for which every choice is the same.

        Args:
            option: the option's name.
            chosen: its value.
            counts: images per class.
        """
        if int((counts > 0).sum()) <= 1:
            return []
        if not self.judged:
            return [f"no class has two images, so no {option} could be chosen by leaving one out"]
        texts = []
        if single := int((counts == 1).sum()):
            texts.append(f"{single} of {len(counts)} classes have one image: no say in {option}")
        if chosen in (self.grid[0], self.grid[-1]):
            lower, all_right = chosen == self.grid[0], int(self.right.max()) == int(self.judged)
            texts.append(
                f"{option}={chosen:g} was chosen, at the {'lower' if lower else 'upper'} end of what "
                f"is compared ({self.grid[0]:g} to {self.grid[-1]:g}): a "
                f"{'smaller' if lower else 'larger'} one might be better still"
                f"{', though all images left out were told right' if all_right else ''}"
            )
        return texts
