"""Which outputs of the heads stand for which class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Outputs:
    """The classes that a classifier knows, and where the heads score them.

    Heads have an output per class that ever arrived, and one more for every further domain that it
    was learned in; those of forgotten classes are passed over.

    Args:
        arrived: the class behind every output.
        forgotten: positions of outputs whose class was removed again.

    Example:
        >>> outputs = Outputs(("cat", "dog", "owl", "cat"), (1,))
        >>> outputs.names, outputs.positions("cat")
        (('cat', 'owl'), (0, 3))
    """

    def __init__(self, arrived: Sequence[str], forgotten: Sequence[int] = ()) -> None:
        gone = set(forgotten)
        self._positions: dict[str, tuple[int, ...]] = {}
        for position, name in enumerate(arrived):
            if position not in gone:
                self._positions[name] = (*self._positions.get(name, ()), position)

    def __contains__(self, name: object) -> bool:
        return name in self._positions

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in order of arrival."""
        return tuple(self._positions)

    def positions(self, name: str) -> tuple[int, ...]:
        """The outputs of a class, the oldest first."""
        return self._positions[name]

    def known(self, scores: Float[Tensor, "n a"]) -> Float[Tensor, "n c"]:
        """The best score of every known class, in the order of `names`."""
        outputs, classes = self._pairs()
        found = scores[:, outputs.to(scores.device)]
        if len(outputs) == len(self):
            return found
        best = found.new_full((len(found), len(self)), -torch.inf)
        return best.scatter_reduce(1, classes.to(scores.device).expand_as(found), found, "amax")

    def local(self, arrival: Int64[Tensor, "n"]) -> Int64[Tensor, "n"]:
        """Outputs as positions of their classes in `names`."""
        outputs, classes = self._pairs()
        order = outputs.argsort()
        return classes[order][torch.searchsorted(outputs[order], arrival.cpu())]

    def _pairs(self) -> tuple[Int64[Tensor, "a"], Int64[Tensor, "a"]]:
        """Every output that counts, with the place of its class in `names`."""
        pairs = [
            (output, place)
            for place, outputs in enumerate(self._positions.values())
            for output in outputs
        ]
        outputs, classes = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
        return outputs, classes
