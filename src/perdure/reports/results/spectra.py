"""The spectra of the Grams that a saved model holds, and the null spaces found in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from safetensors import SafetensorError, safe_open
from torch import Tensor

from perdure.numerics.rank_rule import SHORTEST_SPECTRUM, RankRule
from perdure.numerics.subspace import nullity

_GRAM = re.compile(r"method\.gram_([a-z]+)_(\d+)")
_MATRIX = 2


@dataclass(frozen=True)
class BlockSpectrum:
    """One Gram of one block.

    Attributes:
        side: kind of the Gram: ``affinity``, ``aggregation`` or ``inputs``.
        block: the block.
        values: eigenvalues over the largest one, largest first, in [0, 1]; all 0 for an empty Gram.
        nullity: dimension of the null space.
    """

    side: str
    block: int
    values: Float64[np.ndarray, "n"]
    nullity: int


def read_spectra(weights: Path, config: Mapping[str, Any]) -> list[BlockSpectrum]:
    """Decompose the Grams in the weights of a saved model, block after block, side after side.

    Grams that are no square matrices, such as one per prompt of a pool, are passed over. Where a
    null space begins follows from ``rank_rule`` in the run's configuration.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is damaged.
    """
    rule: RankRule = "paper" if config.get("rank_rule") == "paper" else "reference"
    spectra = []
    try:
        with safe_open(weights, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  no mapping
                match = _GRAM.fullmatch(name)
                shape = tensors.get_slice(name).get_shape() if match else []
                if match and len(shape) == _MATRIX and shape[0] == shape[1]:
                    gram = tensors.get_tensor(name)
                    spectra.append(_decompose(match[1], int(match[2]), gram, rule))
    except SafetensorError as error:
        raise ValueError(f"it is damaged ({error})") from error
    return sorted(spectra, key=lambda one: (one.side, one.block))


def _decompose(side: str, block: int, gram: Float[Tensor, "n n"], rule: RankRule) -> BlockSpectrum:
    gram = gram.double()
    if not gram.isfinite().all():
        raise ValueError(f"the Gram '{side}' of block {block} is not finite")
    values = torch.linalg.eigvalsh((gram + gram.T) / 2).flip(0).clamp(min=0)
    if not values.any():
        return BlockSpectrum(side, block, values.numpy(), len(values))
    dimension = nullity(values, rule) if len(values) >= SHORTEST_SPECTRUM else 0
    return BlockSpectrum(side, block, (values / values[0]).numpy(), dimension)
