"""Traits: fixed properties of a method, read by the engine, the docs and the conformance suite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perdure.capabilities import Capability

Read = Literal["cls", "tokens", "input", "cls_attention", "layers"]
"""Rows of the backbone's last block, or the class tokens of all blocks."""


@dataclass(frozen=True)
class Traits:
    """Properties of a method that hold whatever its options.

    Attributes:
        paper: where the method was published.
        summary: one line.
        reads: which rows of the last block it needs, unless its options say otherwise.
        needs: what it needs of a backbone, unless its options say otherwise; on frozen features no
            more than these.
        trains: whether anything is learned by gradient.
        frozen_features: whether features never change (no additions at all).
        needs_query: whether a plain forward must come first.
        projects_updates: whether optimiser updates pass through ``project``.
        protects_features: whether that promises that old features stay where they are.
        stores_statistics: statistics kept of old images, in words; empty for none.
        state_growth: growth of the method's own state, heads apart.
        cumulative: whether the engine supplies the union of all tasks so far.
        heads: the heads it runs under when none are named.
        trained_head: the head whose loss its training minimises, whatever heads are evaluated.
        fixed_heads: whether only those heads make sense for it.
        selects: whether it chooses prompts by image, and records ``selection.*``: per image, how much
            it chose each.
        prompts_of_tasks: whether prompts belong to tasks, so that `Method.oracle` can tell which an
            image of a known task would get.
        weak: whether it may stay near chance on the synthetic stream.
    """

    paper: str
    summary: str
    reads: frozenset[Read] = frozenset({"cls"})
    needs: frozenset[Capability] = frozenset({"key_value_prompts"})
    trains: bool = True
    frozen_features: bool = False
    needs_query: bool = False
    projects_updates: bool = False
    protects_features: bool = False
    stores_statistics: str = ""
    state_growth: Literal["none", "per task", "per class"] = "none"
    cumulative: bool = False
    heads: tuple[str, ...] = ("linear",)
    trained_head: str = "linear"
    fixed_heads: bool = False
    selects: bool = False
    prompts_of_tasks: bool = False
    weak: bool = False
