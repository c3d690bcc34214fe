"""Pairs of features before and after a drift."""

from __future__ import annotations

import torch
from torch import Tensor

from perdure.randomness import generator


def features(seed: int, count: int, dim: int) -> Tensor:
    """Rows with an offset, some directions wider than others."""
    random = generator(seed, "features", count, dim)
    scales = torch.linspace(0.2, 2, dim, dtype=torch.float64)
    return 3 + scales * torch.randn(count, dim, generator=random, dtype=torch.float64)


class Affine:
    """A known affine drift: z ↦ zW + b, W not far from the identity."""

    def __init__(self, seed: int, dim: int) -> None:
        random = generator(seed, "affine", dim)
        self.turn = torch.eye(dim).double() + 0.2 * torch.randn(
            dim, dim, generator=random, dtype=torch.float64
        )
        self.shift = torch.randn(dim, generator=random, dtype=torch.float64)

    def __call__(self, points: Tensor) -> Tensor:
        return points @ self.turn + self.shift


def noisy(seed: int, count: int, dim: int) -> tuple[Tensor, Tensor]:
    """Pairs that no affine map explains."""
    before = features(seed, count, dim)
    random = generator(seed, "noise", count, dim)
    noise = 0.3 * torch.randn(count, dim, generator=random, dtype=torch.float64)
    return before, Affine(seed, dim)(before) + noise + 0.1 * before.square()
