"""Key matching of two-pass methods: similarity of keys and queries, top-k selection."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from perdure.methods.options import Vote


def cosine(query: Float[Tensor, "b d"], keys: Float[Tensor, "m d"]) -> Float[Tensor, "b m"]:
    """Similarity of every query to every key, in [-1, 1]."""
    return F.normalize(query, dim=-1) @ F.normalize(keys, dim=-1).T


def choose(similarity: Float[Tensor, "b m"], count: int, vote: Vote) -> Int[Tensor, "b k"]:
    """Choose the ``count`` most similar keys of every image.

    Under ``batch`` all images get the keys that most of them chose, as the published programs do:
    a prediction then depends on the batch.
    """
    chosen = similarity.topk(count, dim=-1).indices
    if vote == "image":
        return chosen
    votes = torch.bincount(chosen.flatten(), minlength=similarity.shape[1])
    most = votes.topk(count).indices
    return most.expand(similarity.shape[0], -1)


def share(chosen: Int[Tensor, "b k"], size: int) -> Float[Tensor, "b m"]:
    """How much of an image's choice falls on each of ``size`` prompts; rows sum to 1."""
    return F.one_hot(chosen, size).float().mean(dim=1)
