"""Conformance check of observers: those of two halves of a survey merge into that of the whole."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from perdure.engine.survey import ImageSurvey
from perdure.testing.trial import contained, make_trial
from perdure.types import BlockView, Observer, Split

RTOL = 1e-12
"""Of the norm of a float64 tensor: sums are taken in another order."""


class Shards:
    """Observer that passes batches to two others in turn.

    Args:
        observer: new; copied, not used.

    Attributes:
        parts: the two observers; the first batch goes to the second.
    """

    def __init__(self, observer: Observer) -> None:
        self.parts = (copy.deepcopy(observer), copy.deepcopy(observer))
        self._batches = 0

    def start_batch(
        self, positions: Int[Tensor, "b"], total: int, labels: Int[Tensor, "b"]
    ) -> None:
        """Turn to the other observer."""
        self._batches += 1
        self._current.start_batch(positions, total, labels)

    def block(self, index: int, view: BlockView) -> None:
        """Pass the block on."""
        self._current.block(index, view)

    def merge(self, other: Shards) -> None:
        """Merge part by part."""
        for part, more in zip(self.parts, other.parts, strict=True):
            part.merge(more)

    def merged(self) -> Observer:
        """Both parts in one observer."""
        self.parts[0].merge(self.parts[1])
        return self.parts[0]

    @property
    def _current(self) -> Observer:
        return self.parts[self._batches % 2]


@contained
def check_observers_merge(method_name: str) -> None:
    """Two observers of alternate batches, merged, hold what one observer of all batches holds.

    So the images of a survey may be shared out among processes. Compared is every tensor that an
    observer ends up with.
    """
    trial = make_trial(method_name, eval_batch_size=4)
    with _shared_out() as pairs:
        trial.run()
    for whole, merged in pairs:
        kind = type(whole).__name__
        ours, theirs = dict(_tensors(merged)), dict(_tensors(whole))
        assert ours.keys() == theirs.keys(), (
            f"'{method_name}': a merged {kind} holds {sorted(ours)}, one of all images "
            f"{sorted(theirs)}."
        )
        for name, tensor in theirs.items():
            assert _close(ours[name], tensor), (
                f"'{method_name}': {name} of a merged {kind} differs from that of one that saw all "
                "images. `merge` must add what the other one saw, whatever the order."
            )


@contextmanager
def _shared_out() -> Iterator[list[tuple[Observer, Observer]]]:
    """Make every pass with an observer twice; note the observer of all images and the merged one."""
    pairs: list[tuple[Observer, Observer]] = []
    original = ImageSurvey.__call__

    def twice(self: ImageSurvey, observer: Observer | None, split: Split = "train") -> None:
        if observer is not None:
            whole, shards = copy.deepcopy(observer), Shards(observer)
            for one in (whole, shards):
                original(self, one, split)
            pairs.append((whole, shards.merged()))
            for one in pairs[-1]:  # what they hold of the last batch is to be the same
                one.start_batch(torch.tensor([0]), 1, torch.tensor([0]))
        original(self, observer, split)

    ImageSurvey.__call__ = twice  # type: ignore[method-assign]
    try:
        yield pairs
    finally:
        ImageSurvey.__call__ = original  # type: ignore[method-assign]


def _tensors(item: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor that an observer holds, by where it is."""
    if isinstance(item, Tensor):
        yield name, item
    elif isinstance(item, Mapping):
        for key in sorted(item, key=str):
            yield from _tensors(item[key], f"{name}[{key}]")
    elif isinstance(item, list | tuple):
        for index, value in enumerate(item):
            yield from _tensors(value, f"{name}[{index}]")
    elif not name:
        for key, value in vars(item).items():
            yield from _tensors(value, key)


def _close(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    distance = (ours.double() - theirs.double()).norm()
    return bool(distance <= RTOL * theirs.double().norm())
