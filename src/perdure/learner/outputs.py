"""Which output of the heads stands for which class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Outputs:
    """The classes that a classifier knows, and where the heads score them.

    Heads have an output per class that ever arrived; those of forgotten classes are passed over.

    Args:
        arrived: names of all classes, in order of arrival.
        forgotten: positions among them that were removed again.

    Example:
        >>> outputs = Outputs(("cat", "dog", "owl"), (1,))
        >>> outputs.names, outputs.position("owl")
        (('cat', 'owl'), 2)
    """

    def __init__(self, arrived: Sequence[str], forgotten: Sequence[int] = ()) -> None:
        gone = set(forgotten)
        self._positions = {
            name: position for position, name in enumerate(arrived) if position not in gone
        }

    def __contains__(self, name: object) -> bool:
        return name in self._positions

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in order of arrival."""
        return tuple(self._positions)

    def position(self, name: str) -> int:
        """The position of a class among all that arrived."""
        return self._positions[name]

    def known(self, scores: Float[Tensor, "n a"]) -> Float[Tensor, "n c"]:
        """Scores of the known classes alone, in the order of `names`."""
        return scores[:, self._columns().to(scores.device)]

    def local(self, arrival: Int64[Tensor, "n"]) -> Int64[Tensor, "n"]:
        """Labels in order of arrival as positions in `names`."""
        return torch.searchsorted(self._columns(), arrival.cpu())

    def _columns(self) -> Int64[Tensor, "c"]:
        return torch.tensor(list(self._positions.values()), dtype=torch.int64)
