"""Drift maps word by word: loops over pairs, normal equations solved anew for what is left out."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def mean_shift(before: Tensor, after: Tensor) -> Tensor:
    """Σ (z₁ − z₀) / n."""
    total = torch.zeros(before.shape[1], dtype=torch.float64)
    for old, new in zip(before, after, strict=True):
        total += new - old
    return total / len(before)


def linear(before: Tensor, after: Tensor, penalty: float, points: Tensor) -> Tensor:
    """z + d̄ + (z − m)V with V from its normal equations, at a given λ."""
    shift, centre = mean_shift(before, after), before.mean(dim=0)
    dim = before.shape[1]
    gram, cross = torch.zeros(dim, dim).double(), torch.zeros(dim, dim).double()
    for old, new in zip(before, after, strict=True):
        x, y = old - centre, new - old - shift
        gram += x[:, None] * x[None, :]
        cross += x[:, None] * y[None, :]
    slope = torch.linalg.pinv(gram + penalty * torch.eye(dim).double(), hermitian=True) @ cross
    return torch.stack([z + shift + (z - centre) @ slope for z in points])


def linear_error(
    before: Tensor, after: Tensor, penalty: float, groups: Tensor | None = None
) -> float:
    """Squared error of every group by the map of all others; each pair is one where none are given."""
    total = 0.0
    groups = torch.arange(len(before)) if groups is None else groups
    for group in groups.unique():
        out = groups == group
        found = linear(before[~out], after[~out], penalty, before[out])
        total += float((after[out] - found).square().sum())
    return total


def linear_spread(before: Tensor, after: Tensor, penalty: float, groups: Tensor) -> Tensor:
    """Covariance, around the mean of its group, of every pair's error by the map of other groups."""
    total = torch.zeros(before.shape[1], before.shape[1]).double()
    for group in groups.unique():
        out = groups == group
        errors = after[out] - linear(before[~out], after[~out], penalty, before[out])
        for error in errors:
            rest = error - errors.mean(dim=0)
            total += rest[:, None] * rest[None, :]
    return total / max(len(before) - len(groups.unique()), 1)


def linear_misses(before: Tensor, after: Tensor, penalty: float, groups: Tensor) -> Tensor:
    """Mean error of every group by the map of others, its length shrunk by chance; 0 for one pair."""
    found = []
    for group in groups.unique():
        out = groups == group
        errors = after[out] - linear(before[~out], after[~out], penalty, before[out])
        mean, square, chance = errors.sum(dim=0) / len(errors), 0.0, 0.0
        for number in mean:
            square += float(number) ** 2
        for error in errors:
            chance += float((error - mean).square().sum()) / max(len(errors) - 1, 1) / len(errors)
        share = max(1 - chance / square, 0) if len(errors) > 1 and square > 0 else 0
        found.append(mean * math.sqrt(share))
    return torch.stack(found)


def score_lost(misses: Tensor, covariance: Tensor) -> float:
    """(k − 2)/k · ½ (tr A⁻¹P − log |I + A⁻¹P|), P the mean of e eᵀ over the k rows that are not 0."""
    rows = [row for row in misses if row.any()]
    if len(rows) < 3:
        return 0.0
    spread = torch.zeros_like(covariance)
    for row in rows:
        spread += row[:, None] * row[None, :] / len(rows)
    ratio = torch.linalg.inv(covariance) @ spread
    one = torch.eye(len(covariance)).double()
    lost = ratio.trace() - torch.linalg.det(one + ratio).log()
    return float(lost) / 2 * (len(rows) - 2) / len(rows)


def mean_error(before: Tensor, after: Tensor) -> float:
    """The same of the mean shift."""
    total = 0.0
    for index in range(len(before)):
        rest = torch.arange(len(before)) != index
        found = before[index] + mean_shift(before[rest], after[rest])
        total += float((after[index] - found).square().sum())
    return total


def local(points: Tensor, before: Tensor, after: Tensor, narrowness: float) -> Tensor:
    """Σ wᵢ (z₁ᵢ − z₀ᵢ) with wᵢ of a Gaussian kernel, point by point."""
    distances = [[float((z - old).norm()) for old in before] for z in points]
    width = narrowness * sum(map(sum, distances)) / (len(points) * len(before))
    shifts = []
    for row in distances:
        nearest = min(row)
        weights = [math.exp(-(d**2 - nearest**2) / (2 * width**2)) for d in row]
        shift = torch.zeros(before.shape[1], dtype=torch.float64)
        for weight, old, new in zip(weights, before, after, strict=True):
            shift += weight / sum(weights) * (new - old)
        shifts.append(shift)
    return torch.stack(shifts)


def moments(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Class means and pooled scatter."""
    classes = sorted(set(labels.tolist()))
    means = torch.stack([images[labels == c].mean(dim=0) for c in classes])
    scatter = torch.zeros(images.shape[1], images.shape[1], dtype=torch.float64)
    for image, label in zip(images, labels, strict=True):
        apart = image - means[classes.index(int(label))]
        scatter += apart[:, None] * apart[None, :]
    return means, scatter
