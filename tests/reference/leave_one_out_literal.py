"""The Gaussian head refitted without each image in turn, word by word, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def covariance(images: Tensor, labels: Tensor, divisor: int) -> tuple[dict[int, Tensor], Tensor]:
    """Class means, and the pooled scatter over a given divisor.

    Of an image with several views, (n, v, d), each is an image that counts for 1/v.
    """
    dim, views = images.shape[-1], images.reshape(len(images), -1, images.shape[-1])
    means = {int(c): views[labels == c].reshape(-1, dim).mean(dim=0) for c in labels.unique()}
    total = torch.zeros(dim, dim, dtype=torch.float64)
    for image, label in zip(views, labels, strict=True):
        for view in image:
            apart = view - means[int(label)]
            total += apart[:, None] * apart[None, :] / len(image)
    return means, total / divisor


def scores_without(images: Tensor, labels: Tensor, index: int, rho: float) -> list[float]:
    """−½ (x − μ)ᵀ A⁻¹ (x − μ) of one image for all classes, fitted to all other images.

    The level t and the divisor n − 1 stay those of all images. Of several views the first is asked.
    """
    images = images.double()
    divisor = len(images) - 1
    level = covariance(images, labels, divisor)[1].trace() / images.shape[-1]
    rest = torch.arange(len(images)) != index
    means, pooled = covariance(images[rest], labels[rest], divisor)
    shrunk = (1 - rho) * pooled + rho * level * torch.eye(len(pooled), dtype=torch.float64)
    inverse = torch.linalg.inv(shrunk)
    x = images[index] if images.ndim == 2 else images[index, 0]
    return [float(-0.5 * (x - means[c]) @ inverse @ (x - means[c])) for c in sorted(means)]
