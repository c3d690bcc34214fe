"""Use guard: updates of a pool's entries are damped by how much old tokens used each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from perdure.methods.guard import Guard
from perdure.numerics.sensitivity import slowed
from perdure.types import BlockView, Survey, Task

Weigh = Callable[[int, Float[Tensor, "b n d"]], Float[Tensor, "b n p"]]
"""Weights of a block's pool entries for tokens, given the keys of their attention."""


class EntryUse:
    """Observer that sums, per block, the weight that tokens gave to each entry of its pool.

    Args:
        sizes: entries by block.
        weigh: gives the weights.
    """

    def __init__(self, sizes: Mapping[int, int], weigh: Weigh) -> None:
        self.sums = {block: torch.zeros(size).double() for block, size in sizes.items()}
        self._weigh = weigh

    def start_batch(
        self, positions: Int[Tensor, "b"], total: int, labels: Int[Tensor, "b"]
    ) -> None:
        """Every image counts alike."""

    def block(self, index: int, view: BlockView) -> None:
        """Add one block of one batch, where it has a pool."""
        if index in self.sums:
            weights = self._weigh(index, view.keys.transpose(1, 2).flatten(2))
            used = weights.double().abs().sum(dim=(0, 1)).to(self.sums[index])
            self.sums[index][: len(used)] += used

    def merge(self, other: EntryUse) -> None:
        """Add what other batches used."""
        for block, used in other.sums.items():
            self.sums[block] += used


class UseGuard(Guard):
    """Damping of each entry by its use: its updates are divided by 1 + c u/ū.

    u is the weight that tokens of all old images gave to the entry, ū its mean over the pool: a
    sensitivity Gram that is diagonal in the entries and knows no direction. One number per entry.

    Args:
        options: `ProtectOptions`, whose ``protect_strength`` is c.
        prompts: what is damped, by block, a row per entry.
        weigh: see `EntryUse`.
    """

    stores = "per block how much old tokens used each entry of the pool"

    def __init__(self, options: Any, prompts: nn.ParameterDict, weigh: Weigh) -> None:
        super().__init__()
        self.options = options
        self._held = {"prompts": prompts}  # in a dict: no module of the guard's own
        self._weigh = weigh
        for name, pool in prompts.items():
            self.register_buffer(f"use_{name}", torch.zeros(len(pool)))

    def end_task(self, task: Task, survey: Survey) -> None:
        """Add what the finished task's images used."""
        sizes = {int(name): len(pool) for name, pool in self._held["prompts"].items()}
        seen = EntryUse(sizes, self._weigh)
        survey(seen)
        for block, used in seen.sums.items():
            self.get_buffer(f"use_{block}").add_(used.to(self.get_buffer(f"use_{block}")))

    def project(self, parameter: nn.Parameter, delta: Tensor) -> Tensor:
        """Divide an entry's update by 1 + c u/ū; as it is before anything was used."""
        prompts = self._held["prompts"].items()
        name = next((name for name, one in prompts if one is parameter), None)
        if name is None:
            return delta
        use = self.get_buffer(f"use_{name}")
        if not use.any():
            return delta
        return delta * slowed(use, float(use.mean()), self.options.protect_strength)[:, None]
