"""Long-tailed training sets: class sizes thinned to fall off exponentially."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from perdure.randomness import permutation

_ROUNDING = 1e-9  # 500 · 100^(−1) is to be 5, whatever the last bit says


def tail_sizes(largest: int, classes: int, imbalance: float) -> list[int]:
    """Return the number of images of each class, from the most frequent to the rarest.

    The k-th of C classes keeps ⌊largest · imbalance^(−k/(C−1))⌋ images, and at least one: the
    convention of the long-tailed CIFAR data sets.

    Examples:
        >>> tail_sizes(500, 10, 100.0)
        [500, 299, 179, 107, 64, 38, 23, 13, 8, 5]
    """
    steps = max(classes - 1, 1)
    return [
        max(1, int(largest * imbalance ** (-rank / steps) + _ROUNDING)) for rank in range(classes)
    ]


def thinned(
    outputs: NDArray[np.int64],
    parts: Sequence[Sequence[tuple[int, str]]],
    imbalance: float,
    seed: int,
) -> Bool[np.ndarray, "n"]:
    """Return a mask of the images that stay.

    Frequency ranks and kept images are drawn by the seed from the name of the class alone, so they
    depend on no order of classes. A class that has fewer images than its place in the tail allows
    keeps them all.

    Args:
        outputs: output of each image; −1 for those that are not to be counted.
        parts: outputs with the names of their classes; each part gets a long tail of its own, in
            which the same classes are rare.
        imbalance: ratio of the largest class to the smallest, at least 1.
        seed: seed of the run.
    """
    names = sorted({name for part in parts for _, name in part})
    ranks = dict(zip(names, permutation(len(names), seed, "imbalance"), strict=True))
    kept = np.zeros(len(outputs), dtype=bool)
    for number, part in enumerate(parts):
        positions_of = {name: np.flatnonzero(outputs == output) for output, name in part}
        sizes = tail_sizes(max(map(len, positions_of.values())), len(names), imbalance)
        for name, positions in positions_of.items():
            drawn = permutation(len(positions), seed, "imbalance", number, name)
            kept[positions[drawn[: sizes[ranks[name]]]]] = True
    return kept
