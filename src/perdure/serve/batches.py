"""Micro-batches: requests that arrive together share a forward, each under the state it began with."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from perdure.engine.config import votes
from perdure.learner.state import LearnerState

Scored = tuple[Tensor, float | None]
"""Scores of an image, columns as in its state, and how familiar it is, where that was measured."""
WAIT = 0.02
"""Seconds that the first of a batch waits for others at most."""
MOST = 16
"""Images of a batch: on a processor larger ones are no faster, and everybody waits for them."""


@dataclass(frozen=True)
class _Waiting:
    state: LearnerState
    head: str
    pixels: UInt8[Tensor, "3 s s"]
    scored: Future[Scored]


class MicroBatches:
    """A thread that scores images in batches, whoever they are from.

    Args:
        most: images of a batch.
        wait: seconds that the first of a batch waits for others.
        on_batch: receives the number of images of every batch and its seconds.
    """

    def __init__(
        self,
        most: int = MOST,
        wait: float = WAIT,
        on_batch: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self._most, self._wait, self._on_batch = most, wait, on_batch
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of images that wait."""
        return len(self._queue)

    def submit(
        self, state: LearnerState, head: str, pixels: Sequence[UInt8[Tensor, "3 s s"]]
    ) -> list[Future[Scored]]:
        """Hand in the images of a request; a future for each."""
        parts = [_Waiting(state, head, one, Future()) for one in pixels]
        with self._changed:
            self._queue.extend(parts)
            self._changed.notify()
        return [part.scored for part in parts]

    def close(self) -> None:
        """End the thread; what waits is cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        for part in self._queue:
            part.scored.cancel()

    def _work(self) -> None:
        while batch := self._next():
            began = time.monotonic()
            try:
                scored = _scored(batch)
            except BaseException as error:  # whatever it is, each request is told
                for part in batch:
                    part.scored.set_exception(error)
            else:
                for part, one in zip(batch, scored, strict=True):
                    part.scored.set_result(one)
            self._on_batch(len(batch), time.monotonic() - began)

    def _next(self) -> list[_Waiting]:
        """The next batch: the images that can join the one that waits longest; empty at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return []
                size = _size(self._queue[0].state, self._most)
                self._changed.wait_for(
                    lambda size=size: len(self._queue) >= size or self._closed,  # type: ignore[misc]
                    timeout=self._wait,
                )
                first, batch, others = self._queue[0], list[_Waiting](), deque[_Waiting]()
                for part in self._queue:
                    same = part.state is first.state and part.head == first.head
                    (batch if same and len(batch) < size else others).append(part)
                self._queue = others
                # Those whose client has gone are left out.
                batch = [part for part in batch if part.scored.set_running_or_notify_cancel()]
                if batch:
                    return batch


def _size(state: LearnerState, most: int) -> int:
    """Images of a batch; one where a model's answers depend on the batch on purpose."""
    config = state.model.config
    return 1 if votes(config.flat()) else min(most, config.runtime.eval_batch_size)


def _scored(batch: Sequence[_Waiting]) -> list[Scored]:
    first = batch[0]
    pixels = torch.stack([part.pixels for part in batch])
    scores, shares = first.state.familiarity([pixels], first.head)
    familiar = [None] * len(batch) if shares is None else shares.tolist()
    return list(zip(scores.cpu(), familiar, strict=True))
