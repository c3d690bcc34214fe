"""Where a null space begins: the rules by name; needs no torch."""

from typing import Literal

RankRule = Literal["paper", "reference"]
SHORTEST_SPECTRUM = 3
"""Fewer singular values have no knee."""
