"""Separation of known from unknown images by a score: histograms, AUROC, and the choice of a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

SCORES = ("mahalanobis", "energy", "probability")
"""Scores that are higher for known images; of equally good ones the first is taken."""
KEPT = 0.95
"""Share of known images that are kept where unknown ones are counted that are taken for known."""


@dataclass(frozen=True)
class Separation:
    """Images per bin of one score, summed over lessons; see `perdure.learner.familiarity.bins`.

    Attributes:
        known: training images, each left out in turn, or images held out.
        unknown: the same images, scored by a head without their class.
        negatives: images of `none`, which are of no class.
    """

    known: dict[int, int] = field(default_factory=dict)
    unknown: dict[int, int] = field(default_factory=dict)
    negatives: dict[int, int] = field(default_factory=dict)

    def __add__(self, other: Separation) -> Separation:
        """The images of both."""
        return Separation(
            _sum(self.known, other.known),
            _sum(self.unknown, other.unknown),
            _sum(self.negatives, other.negatives),
        )

    @property
    def images(self) -> int:
        """Known images, by which familiarity is measured."""
        return sum(self.known.values())

    @property
    def auroc(self) -> float | None:
        """Chance that a known image scores above an unknown one, in [0, 1]; None without either.

        Where there are negatives, the mean of the chance against them and against classes left out.
        """
        areas = [area(self.known, others) for others in (self.unknown, self.negatives)]
        found = [one for one in areas if one is not None]
        return sum(found) / len(found) if found else None

    @property
    def accepted(self) -> float | None:
        """Share of unknown images and negatives taken for known where `KEPT` of the known are kept."""
        others = _sum(self.unknown, self.negatives)
        if not self.known or not others:
            return None
        left, lowest = (1 - KEPT) * self.images, min(self.known)
        for lowest in sorted(self.known):
            left -= self.known[lowest]
            if left < 0:
                break
        return sum(n for place, n in others.items() if place >= lowest) / sum(others.values())


def area(high: Mapping[int, int], low: Mapping[int, int]) -> float | None:
    """Area under the ROC curve of two histograms: ties count half.

    Example:
        >>> area({1: 1, 3: 1}, {1: 1, 2: 1})
        0.625
    """
    if not high or not low:
        return None
    below, won = 0, 0.0
    for place in sorted({*high, *low}):
        won += high.get(place, 0) * (below + low.get(place, 0) / 2)
        below += low.get(place, 0)
    return won / (sum(high.values()) * below)


def best_score(
    separations: Mapping[str, Separation], available: Collection[str] = SCORES
) -> str | None:
    """The available score that separates best; None where none is.

    Where nothing was unknown yet, the first of `SCORES`.
    """
    known = (name for name, one in separations.items() if one.known and name in available)
    names = sorted(known, key=SCORES.index)
    return max(names, key=lambda name: separations[name].auroc or 0.0, default=None)


def described_separations(
    separations: Mapping[str, Mapping[str, Separation]],
) -> dict[str, list[dict[str, Any]]]:
    """Per head a row per score: images, AUROC, share accepted where `KEPT` are kept, whether used."""
    return {
        head: [
            {
                "score": score,
                "used": score == best_score(scores),
                "known": scores[score].images,
                "unknown": sum(scores[score].unknown.values()),
                "negatives": sum(scores[score].negatives.values()),
                "auroc": scores[score].auroc,
                "accepted": scores[score].accepted,
            }
            for score in sorted(scores, key=SCORES.index)
        ]
        for head, scores in separations.items()
    }


def _sum(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return dict(sorted((Counter(one) + Counter(other)).items()))
