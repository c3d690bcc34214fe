"""A slow, literal twin of `perdure.methods.nsp2`, written from the paper's formulas in float64.

Ω₁ and Ω₂ are formed and stacked, spectra come from an SVD, projectors from loops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.reference.vit_literal import LiteralViT


def affinity_rows(queries: Tensor, key_weight: Tensor) -> Tensor:
    """Ω₁ = [Q_h W_{k,h}ᵀ]_h of one image, (H·N, D), from queries (H, N, d) and W_k as stored."""
    width = queries.shape[-1]
    rows = []
    for head, q in enumerate(queries):
        rows.append(q @ key_weight[head * width : (head + 1) * width])
    return torch.cat(rows)


def aggregation_rows(weights: Tensor, prompts: int) -> Tensor:
    """Ω₂ = [S_{P,h}]_h of one image, (H·N, M): the last columns of the softmax (H, N, N + M)."""
    return torch.cat([head[:, -prompts:] for head in weights])


def gaussian_smooth(values: list[float], sigma: float) -> list[float]:
    """Convolution with a normalised Gaussian cut at four σ; the ends are mirrored."""
    radius = int(4 * sigma + 0.5)
    kernel = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    total, count = sum(kernel), len(values)

    def at(index: int) -> float:
        index %= 2 * count
        return values[index if index < count else 2 * count - 1 - index]

    return [
        sum(kernel[k + radius] * at(i + k) for k in range(-radius, radius + 1)) / total
        for i in range(count)
    ]


def knee(values: list[float], trim: int = 0) -> int:
    """Position, from 0, of the largest second difference λ_{j−1} − 2λ_j + λ_{j+1}."""
    inner = range(1 + trim, len(values) - 1 - trim)
    return max(inner, key=lambda j: values[j - 1] - 2 * values[j] + values[j + 1])


def nullity(spectrum: list[float], rule: str) -> int:
    """R: [P] eq. 28 with j counted from 1, or [R] with the knee vector in the null space."""
    count = len(spectrum)
    if rule == "paper":
        return count - (knee(spectrum) + 1)
    position = knee(spectrum)
    if count >= 128:
        position = knee(gaussian_smooth(spectrum, 10.0), int(0.03 * count / 2))
    threshold = spectrum[position]
    first = max(i for i, value in enumerate(spectrum) if value >= threshold)
    return count - first


def damped_projector(gram: Tensor, rule: str, eta: float, normalise: bool) -> Tensor:
    """η B + (1 − η) I with B = Π/‖Π‖_F or Π, and Π = U₀U₀ᵀ from the last R right singular vectors."""
    values, right = torch.linalg.svd(gram)[1:]
    spectrum = values.tolist()
    basis = right[len(spectrum) - nullity(spectrum, rule) :]
    dim = len(gram)
    plain = torch.zeros(dim, dim, dtype=torch.float64)
    for vector in basis:
        plain += vector[:, None] * vector[None, :]
    scaled = plain / (plain**2).sum().sqrt() if normalise else plain
    return eta * scaled + (1 - eta) * torch.eye(dim, dtype=torch.float64)


def row_moments(prompts: Tensor) -> tuple[list[float], list[float]]:
    """Mean and biased deviation of every row."""
    means = [float(row.sum() / len(row)) for row in prompts]
    spreads = [
        float((((row - mean) ** 2).sum() / len(row)).sqrt())
        for row, mean in zip(prompts, means, strict=True)
    ]
    return means, spreads


def deviations(prompts: Tensor, eps: float) -> Tensor:
    """√(σ² + ε) of every row, as LayerNorm divides by it."""
    spreads = row_moments(prompts.double())[1]
    return torch.tensor([math.sqrt(spread**2 + eps) for spread in spreads], dtype=torch.float64)


def norm_term(prompts: dict[int, Tensor], old: dict[int, Tensor], terms: str) -> float:
    """Σ over blocks of mean |μ − μ_prev| + mean |σ − σ_prev|, the first only where both count."""
    total = 0.0
    for block, now in prompts.items():
        (means, spreads), (old_means, old_spreads) = row_moments(now), row_moments(old[block])
        rows = len(means)
        if terms == "both":
            total += sum(abs(a - b) for a, b in zip(means, old_means, strict=True)) / rows
        total += sum(abs(a - b) for a, b in zip(spreads, old_spreads, strict=True)) / rows
    return total


@dataclass
class LiteralNSP2:
    """Grams and projectors of every block, task after task.

    Attributes:
        twin: the backbone.
        options: those of the method under their own names.
    """

    twin: LiteralViT
    options: dict[str, Any]
    affinity: dict[int, Tensor] = field(default_factory=dict)
    aggregation: dict[int, Tensor] = field(default_factory=dict)
    tasks: list[Tensor] = field(default_factory=list)

    def end_task(self, prompts: dict[int, Tensor], images: Tensor) -> None:
        """Add the Grams of one task's images under the prompts at its end."""
        passed = self.twin.forward(images, tokens={b: p[None] for b, p in prompts.items()})
        batch = self.options["statistics_batch"]
        seen = sum(len(task) for task in self.tasks)
        for index, weight in self.key_weights(prompts).items():
            literal, count = passed.blocks[index], len(prompts[index])
            first = [affinity_rows(queries, weight) for queries in literal.queries]
            second = [aggregation_rows(weights, count) for weights in literal.weights]
            for store, rows in ((self.affinity, first), (self.aggregation, second)):
                old = store.get(index, torch.zeros(rows[0].shape[1], rows[0].shape[1]).double())
                if self.options["statistics"] == "sum":
                    new = sum(mean_gram(rows[i : i + batch]) for i in range(0, len(rows), batch))
                    store[index] = old + new
                else:
                    store[index] = (old * seen + mean_gram(rows) * len(rows)) / (seen + len(rows))
        self.tasks.append(images)

    def key_weights(self, prompts: dict[int, Tensor]) -> dict[int, Tensor]:
        """W_k of every prompted block, without bias."""
        blocks = self.twin.vit.blocks
        return {index: blocks[index].attn.qkv.weight.chunk(3)[1] for index in prompts}

    def projectors(self, prompts: dict[int, Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
        """B₁ (D × D) and B₂ (M × M) of every block."""
        found, options = {}, self.options
        for index, matrix in prompts.items():
            first, second = self.affinity[index], self.aggregation[index]
            if options["conditions"] == "exact":
                norm = self.twin.vit.blocks[index].norm1
                variances = [spread**2 for spread in row_moments(matrix.double())[1]]
                spreads = torch.tensor(
                    [math.sqrt(v + norm.eps) for v in variances], dtype=torch.float64
                )
                first = torch.diag(norm.weight) @ first @ torch.diag(norm.weight)
                second = torch.diag(1 / spreads) @ second @ torch.diag(1 / spreads)
            rule, damped = options["rank_rule"], options["projector"] == "damped"
            found[index] = (
                damped_projector(first, rule, options["eta1"], damped),
                damped_projector(second, rule, options["eta2"], damped),
            )
        return found


def mean_gram(rows: list[Tensor]) -> Tensor:
    """ΩᵀΩ/(b·H·N) of the stacked rows of b images."""
    stacked = torch.cat(rows)
    return stacked.T @ stacked / len(stacked)
