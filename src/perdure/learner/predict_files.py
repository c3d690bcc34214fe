"""Predict image files lazily: input order, bounded memory, unreadable files become error rows."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from perdure.errors import ConfigError, UnreadableImageError
from perdure.learner.state import LearnerState, Prediction
from perdure.streams.decoding import ImageFile, decode
from perdure.streams.images.find_images import Listed

READERS = min(16, os.cpu_count() or 1)
"""Threads that decode; PIL lets the others work meanwhile."""
AHEAD = (os.cpu_count() or 1) > 2  # noqa: PLR2004  a pair of cores
"""Whether they decode while the backbone computes; on two cores they would only be in its way."""


@dataclass(frozen=True)
class Answer:
    """Predictions for one file, or the reason why there are none.

    Attributes:
        path: the file, or its content.
        ranking: the most likely classes, the best first; empty where it could not be read.
        fault: why it could not be read; empty where it could.
        familiarity: share of known images that look at least as strange, in (0, 1]; None where it
            could not be read, or no lesson has measured it.
        rejected: whether it is too strange to be of any known class, by the ``reject`` asked for.
    """

    path: ImageFile
    ranking: tuple[Prediction, ...] = ()
    fault: str = ""
    familiarity: float | None = None
    rejected: bool = False

    def to_dict(self) -> dict[str, object]:
        """JSON-ready values, as ``perdure predict --json`` writes them.

        Of a rejected image class and probability are None; ``familiarity`` is there where it was
        measured.
        """
        if self.fault:
            return {"path": str(self.path), "error": self.fault}
        top = [{"class": one.name, "probability": one.probability} for one in self.ranking]
        first: dict[str, object] = dict.fromkeys(top[0]) if self.rejected else {**top[0]}
        if self.familiarity is not None:
            first["familiarity"] = self.familiarity
        return {"path": str(self.path), **first, "top": top}


def read_image(
    path: ImageFile, transform: Callable[[Image.Image], UInt8[Tensor, "3 s s"]]
) -> Answer | UInt8[Tensor, "3 s s"]:
    """Return the pixels of an image file, or the answer that says why it cannot be read."""
    try:
        return transform(_decoded(path))
    except UnreadableImageError as error:
        return Answer(path, fault=str(error).removeprefix(f"{path}: "))


def answered(
    path: ImageFile, ranking: tuple[Prediction, ...], share: float | None, reject: float | None
) -> Answer:
    """Return the answer to an image of this familiarity: rejected where it is below ``reject``."""
    strange = reject is not None and share is not None and share < reject
    return Answer(path, ranking, familiarity=share, rejected=strange)


def predict_files(
    state: LearnerState,
    files: Iterable[ImageFile | Listed],
    *,
    head: str | None = None,
    top: int = 5,
    batch_size: int | None = None,
    reject: float | None = None,
) -> Generator[Answer, None, None]:
    """Predict image files one after the other; see `ContinualClassifier.predict_files`."""
    chosen = state.head_name(head)
    state.check_reject(reject, chosen)
    size = state.model.config.runtime.eval_batch_size if batch_size is None else batch_size
    for name, value in (("top", top), ("batch_size", size)):
        if value < 1:
            raise ConfigError(f"{name}={value} is too small. Allowed: 1 and above, as {name}=5.")
    listed = (one if isinstance(one, Listed) else Listed(one) for one in files)
    return _predictions(state, chosen, listed, top, size, reject)


def _predictions(
    state: LearnerState,
    head: str,
    files: Iterator[Listed],
    top: int,
    size: int,
    reject: float | None,
) -> Generator[Answer, None, None]:
    transform, pool = state.transform, ThreadPoolExecutor(READERS, "read")

    def read(one: Listed) -> Answer | UInt8[Tensor, "3 s s"]:
        return Answer(one.path, fault=one.fault) if one.fault else read_image(one.path, transform)

    def begin() -> list[tuple[ImageFile, Future[Answer | Tensor]]]:
        return [(one.path, pool.submit(read, one)) for one in itertools.islice(files, size)]

    try:
        batch = begin()
        while batch:
            ahead = begin() if AHEAD else None
            results = [(path, future.result()) for path, future in batch]
            pixels = [result for _, result in results if isinstance(result, Tensor)]
            rankings: Iterator[tuple[Prediction, ...]] = iter(())
            shares: Iterator[float | None] = itertools.repeat(None)
            if pixels:
                scores, familiar = state.familiarity([torch.stack(pixels)], head)
                rankings = iter(state.rank(scores, head, top))
                shares = shares if familiar is None else iter(familiar.tolist())
            for path, result in results:
                if isinstance(result, Answer):
                    yield result
                else:
                    yield answered(path, next(rankings), next(shares), reject)
            batch = begin() if ahead is None else ahead
    finally:
        pool.shutdown(cancel_futures=True)


def _decoded(path: ImageFile) -> Image.Image:
    with contextlib.suppress(OSError, ValueError):  # `decode` says why
        if isinstance(path, Path) and not stat.S_ISREG(path.stat().st_mode):
            # One might wait for a pipe for ever.
            raise UnreadableImageError(f"{path}: this is no file")
    return decode(path)
