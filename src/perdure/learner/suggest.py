"""Suggestions: which images of a pool are worth a label next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from perdure.errors import ConfigError
from perdure.learner.classes_left_out import features_of
from perdure.learner.familiarity import familiarity_scores
from perdure.learner.state import LearnerState
from perdure.numerics.evidence import Evidence
from perdure.streams import ImageSet, Subset

By = Literal["all", "uncertainty", "unknown", "diversity"]
"""What images are suggested by, see `suggest`."""
CANDIDATES = 5
"""Uncertain images among which diverse ones are chosen, per image asked for."""


@dataclass(frozen=True)
class Suggestion:
    """One image that is worth a label.

    Attributes:
        place: position in the pool.
        named: most likely class.
        probability: of that class, tempered, in [0, 1].
        other: second most likely class; empty where there is none.
    """

    place: int
    named: str
    probability: float
    other: str


def suggest(
    state: LearnerState,
    pool: ImageSet,
    count: int,
    head: str,
    by: By = "all",
    on_progress: Callable[[int], None] = lambda images: None,
) -> list[Suggestion]:
    """Choose images to label next, the most useful first.

    ``uncertainty``: smallest difference of the two best scores. ``unknown``: the most strange.
    ``diversity``: each in turn the one farthest from the means of all classes and from those chosen
    before (k-centre, Sener and Savarese 2018), by cosine. ``all``: so among the `CANDIDATES` ×
    ``count`` images that rank highest by uncertainty and strangeness together.

    Raises:
        ConfigError: no such way, or a count below 1.
    """
    if by not in get_args(By):
        raise ConfigError(f"by={by!r}: allowed are {', '.join(get_args(By))}.")
    if count < 1:
        raise ConfigError(f"count={count}: ask for at least one image, as count=20.")
    images = Subset(pool, np.arange(len(pool)), torch.zeros(len(pool), dtype=torch.int64))
    features = features_of(state, images, on_progress)
    part = state.model.heads[head]
    with torch.no_grad():
        scores = state.columns.class_scores(part.logits(features))
        evidence = state.columns.class_evidence(part.evidence(features))
    means = part.class_means()
    means = features[:0] if means is None else means.to(features.device)
    chosen = choose(features, evidence, means, count, by, state.temperature(head))
    return [
        Suggestion(place, best.name, best.probability, others[0].name if others else "")
        for place, (best, *others) in zip(chosen, state.rank(scores[chosen], head, 2), strict=True)
    ]


def choose(
    features: Float[Tensor, "n d"],
    evidence: Evidence,
    means: Float[Tensor, "c d"],
    count: int,
    by: By,
    temperature: float,
) -> list[int]:
    """Rows of the pool to label next, the most useful first; see `suggest`.

    Args:
        features: of the pool.
        evidence: of the pool, a column per class.
        means: mean features of the classes, as far as they are known.
        count: how many, at most all.
        by: what they are chosen by.
        temperature: what scores are divided by before the softmax.
    """
    # By the first of the scores that there is, turned round.
    strange = -next(iter(familiarity_scores(evidence, temperature).values()))
    two = evidence.scores.topk(min(2, evidence.scores.shape[1]), dim=1).values
    uncertain = two[:, -1] - two[:, 0]
    if by == "unknown":
        return _first(strange, count)
    if by == "uncertainty":
        return _first(uncertain, count)
    centre = features.double().mean(dim=0)
    unit = F.normalize(features.double() - centre, dim=1)
    centres = F.normalize(means.double() - centre, dim=1)
    if by == "diversity":
        return spread_out(unit, centres, count, list(range(len(unit))))
    ranks = _ranks(uncertain) + _ranks(strange)
    return spread_out(unit, centres, count, _first(ranks, CANDIDATES * count))


def spread_out(
    unit: Float[Tensor, "n d"], centres: Float[Tensor, "c d"], count: int, rows: list[int]
) -> list[int]:
    """Rows that are chosen in turn, each the farthest from the centres and from those before.

    Args:
        unit: rows of length 1.
        centres: of length 1; none for the first row to be the first given.
        count: how many, at most all.
        rows: those to choose from.
    """
    candidates = unit[rows]
    far = (
        (1 - candidates @ centres.T).amin(dim=1) if len(centres) else candidates.new_ones(len(rows))
    )
    chosen = []
    for _ in range(min(count, len(rows))):
        best = int(far.argmax())
        chosen.append(rows[best])
        far = far.minimum(1 - candidates @ candidates[best])
        far[best] = -torch.inf
    return chosen


def _first(values: Float[Tensor, "n"], count: int) -> list[int]:
    order: list[int] = values.argsort(descending=True, stable=True)[:count].tolist()
    return order


def _ranks(values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    return values.argsort(stable=True).argsort(stable=True).double()
