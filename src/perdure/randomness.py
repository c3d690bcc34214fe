"""Counter-based randomness: every random choice is a pure function of a seed and its own name.

No generator is carried along, so a result depends neither on the order in which choices are made,
nor on worker processes, nor on where a killed run was taken up again.
"""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, *name: int | str) -> int:
    """Return a 63-bit seed that is a pure function of ``seed`` and ``name``.

    Examples:
        >>> derived_seed(0, "order", 1, 2) == derived_seed(0, "order", 1, 2)
        True
        >>> derived_seed(0, "order", 1, 2) == derived_seed(0, "order", 12)
        False
    """
    text = repr((seed, *name)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(seed: int, *name: int | str) -> torch.Generator:
    """Return a CPU generator seeded by ``derived_seed(seed, *name)``."""
    return torch.Generator().manual_seed(derived_seed(seed, *name))


def permutation(count: int, seed: int, *name: int | str) -> list[int]:
    """Return a permutation of ``range(count)`` drawn from ``(seed, name)``."""
    order: list[int] = torch.randperm(count, generator=generator(seed, *name)).tolist()
    return order
