"""A backbone and pictures whose bits are the same on every machine and under every torch.

Weights that torch draws may differ in their last bits elsewhere, and a stored model refuses a
backbone that differs in one.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perdure.backbones.catalog import describe
from perdure.backbones.vit import FrozenViT
from tests.reference.small_vits import SIDE, named


def portable_backbone() -> FrozenViT:
    """test_vit with weights that are multiples of 2⁻¹⁰, made of hashes of their names."""
    vit, about = named("test_vit"), describe("test_vit")
    for name, value in vit.state_dict().items():
        scale = name.endswith(("norm.weight", "norm1.weight", "norm2.weight"))
        value.copy_(_drawn(name, value) + float(scale))
    return FrozenViT(vit, name=about.name, mean=about.mean, std=about.std)


def portable_pictures(count: int = 3) -> list[NDArray[np.uint8]]:
    """Noise of 32 × 32 pixels."""
    size = SIDE * SIDE * 3
    return [
        np.frombuffer(hashlib.shake_256(f"picture {k}".encode()).digest(size), np.uint8)
        .reshape(SIDE, SIDE, 3)
        .copy()
        for k in range(count)
    ]


def _drawn(name: str, like: Tensor) -> Tensor:
    """Multiples of 2⁻¹⁰ in [−1/8, 1/8), exact in float32."""
    data = hashlib.shake_256(name.encode()).digest(like.numel())
    numbers = np.frombuffer(data, np.int8).astype(np.float32) / 1024
    return torch.from_numpy(numbers).view(like.shape)
