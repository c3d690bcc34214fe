"""Rank rules by name: how the dimension of a null space is chosen; needs no torch."""

from typing import Literal

RankRule = Literal["paper", "reference"]
SHORTEST_SPECTRUM = 3
"""Fewer singular values have no knee."""
