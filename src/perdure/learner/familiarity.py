"""Familiarity: how many known images look at least as strange as one, by the score chosen for it."""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from perdure.learner.separation import Separation
from perdure.numerics.evidence import Evidence

FINENESS = 200
"""Bins per factor e of a score; near 0, per unit."""
MOST = 1e6
"""Bound on the size of a score: log odds of the only class are infinite."""


def familiarity_scores(evidence: Evidence, temperature: float) -> dict[str, Float64[Tensor, "n"]]:
    """Scores of images by name, higher for known ones; those that the evidence allows.

    ``mahalanobis``: log density of the best class less that of the background (relative Mahalanobis
    distance, Ren et al. 2021). ``energy``: logarithm of the summed densities, tempered (Liu et al.
    2020). ``probability``: log odds of the best class against all others (Hendrycks and Gimpel 2017,
    in a form that does not round to 1).

    Args:
        evidence: a column per class.
        temperature: what scores are divided by before the softmax.
    """
    scores, found = evidence.scores.double(), {}
    if evidence.background is not None:
        found["mahalanobis"] = scores.amax(dim=1) - evidence.background.double()
    if evidence.whole:
        found["energy"] = temperature * (scores / temperature).logsumexp(dim=1)
    best = scores.max(dim=1, keepdim=True)
    others = scores.scatter(1, best.indices, -torch.inf)
    odds = best.values[:, 0] / temperature - (others / temperature).logsumexp(dim=1)
    return {**found, "probability": odds.clamp(-MOST, MOST)}


def bins(scores: Float64[Tensor, "n"]) -> Int64[Tensor, "n"]:
    """Bin of each score, rising with it: fine near 0, of a share of its size far from it."""
    return (FINENESS * scores.asinh()).floor().long()


def familiar_shares(scores: Float64[Tensor, "n"], separation: Separation) -> Float64[Tensor, "n"]:
    """Share of known images that look at least as strange, the image itself counted, in (0, 1].

    Of images like the known ones, a share r or less is below r (Vovk et al. 2005, as conformal
    p-values): to reject what is below r gives up about that many known images.
    """
    places = torch.tensor(list(separation.known), device=scores.device).double()
    counts = torch.tensor(list(separation.known.values()), device=scores.device).double()
    below = (scores[:, None] >= (places / FINENESS).sinh()).double() @ counts
    return (below + 1) / (separation.images + 1)
