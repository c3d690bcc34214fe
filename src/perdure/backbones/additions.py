"""Additions to the frozen backbone: prompt tokens, prefixes, input tokens, residuals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from perdure.errors import BackboneError
from perdure.types import BackboneSpec

ResidualFn = Callable[
    [Float[Tensor, "b n d"], Float[Tensor, "b n d"]],
    tuple[Float[Tensor, "b n d"], Mapping[str, Tensor], Mapping[str, Tensor]],
]
"""Maps a block's tokens and the keys its attention has just computed to (delta, penalties, records)."""


@dataclass(frozen=True)
class TokenResidual:
    """A change added to the tokens inside one block.

    Attributes:
        fn: computes the change for every row, prefix tokens included.
        where: ``attention``: after the attention residual, before the MLP; ``mlp``: after the MLP
            residual, which is the input of the next block.
    """

    fn: ResidualFn
    where: Literal["attention", "mlp"] = "attention"


@dataclass(frozen=True)
class Additions:
    """Additions to one forward; empty for the plain backbone.

    A leading dimension of 1 means the same addition for every image.

    Attributes:
        tokens: per block, extra keys and values of its attention, normalised by its norm1 (VPT-Deep).
        prefix: per block, raw keys and values, all heads concatenated (DualPrompt, CODA-Prompt).
        input: tokens that join the sequence once and travel through all blocks (L2P).
        residual: per block, a change of its tokens (I-Prompt).
        penalties: named scalars known before the forward (key matching, orthogonality).
        records: named values known before the forward, to be logged (what was chosen).
    """

    tokens: Mapping[int, Float[Tensor, "_ p d"]] = field(default_factory=dict)
    prefix: Mapping[int, tuple[Float[Tensor, "_ p d"], Float[Tensor, "_ p d"]]] = field(
        default_factory=dict
    )
    input: Float[Tensor, "_ p d"] | None = None
    residual: Mapping[int, TokenResidual] = field(default_factory=dict)
    penalties: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    records: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def blocks(self) -> frozenset[int]:
        """Numbers of the blocks with additions."""
        return frozenset(self.tokens) | frozenset(self.prefix) | frozenset(self.residual)

    @property
    def first_block(self) -> int | None:
        """Number of the first block that an addition reaches; None without additions."""
        return 0 if self.input is not None else min(self.blocks, default=None)


def block_numbers(spec: BackboneSpec, blocks: tuple[int, ...], key: str) -> tuple[int, ...]:
    """Return block numbers counted from the first, and refuse those that the backbone lacks.

    Args:
        spec: the backbone.
        blocks: block numbers: 0 for the first, or -1 for the last.
        key: the configuration key they came from, for the error text.

    Raises:
        BackboneError: a block is out of range or named twice.
    """
    outside = [block for block in blocks if not -spec.blocks <= block < spec.blocks]
    numbers = tuple(block % spec.blocks for block in blocks)
    if outside or len(set(numbers)) != len(numbers):
        wrong = f"{outside} outside" if outside else "repeated numbers in"
        raise BackboneError(
            f"{key}={list(blocks)}: {wrong} the blocks of '{spec.name}', which are 0 to "
            f"{spec.blocks - 1} (or -{spec.blocks} to -1, from the last), each at most once."
        )
    return numbers


def residual_of(
    fn: ResidualFn,
    x: Float[Tensor, "b n d"],
    keys: Float[Tensor, "b h k c"],
    penalties: dict[str, Tensor],
    records: dict[str, Tensor],
) -> Float[Tensor, "b n d"]:
    """Return a residual's change of the tokens; take in its penalties and records."""
    flat = keys[:, :, : x.shape[1]].transpose(1, 2).flatten(2)
    delta, more_penalties, more_records = fn(x, flat)
    for name, value in more_penalties.items():
        penalties[name] = penalties[name] + value if name in penalties else value
    records.update(more_records)
    return delta
