"""Gaussians of classes and of a background refitted without some images, word by word, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.leave_one_out_literal import covariance


def densities_without(
    images: Tensor, labels: Tensor, out: Tensor, asked: Tensor, rho: float
) -> tuple[dict[int, Tensor], Tensor]:
    """Log densities of the asked images, up to constants, fitted to all images but those out.

    The level t and the divisor n − 1 stay those of all images. The background is one Gaussian around
    the mean of all images that are left, its scatter that around this mean.

    Returns:
        Per class that is left, and of the background.
    """
    divisor = len(images) - 1
    level = covariance(images, labels, divisor)[1].trace() / images.shape[-1]
    left, names = images[~out], labels[~out]
    means, pooled = covariance(left, names, divisor)
    _, total = covariance(left, torch.zeros_like(names), divisor)
    identity = rho * level * torch.eye(images.shape[-1], dtype=torch.float64)
    found = {}
    for name, mean in means.items():
        found[name] = _density(asked, mean, (1 - rho) * pooled + identity)
    return found, _density(
        asked, left.reshape(-1, left.shape[-1]).mean(dim=0), (1 - rho) * total + identity
    )


def _density(asked: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    inverse = torch.linalg.inv(covariance)
    return torch.stack([-0.5 * (x - mean) @ inverse @ (x - mean) for x in asked])
