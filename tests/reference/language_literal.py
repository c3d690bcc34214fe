"""A slow, literal twin of `perdure.heads.language`, in float64: one image, one class at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LR, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-4


def unit(vector: Tensor) -> Tensor:
    """The vector over its length."""
    return vector / math.sqrt(float((vector * vector).sum()))


class LiteralHead:
    """Scores and refines with loops; gradients are written out.

    Args:
        weight: of the image projection.
        bias: of the image projection.
        text: one unit vector per class.
        scale: logarithm of the factor on cosines.
    """

    def __init__(self, weight: Tensor, bias: Tensor, text: Tensor, scale: float) -> None:
        self.weight, self.bias = weight.detach().double().clone(), bias.detach().double()
        self.text = text.double()
        self.factor = math.exp(scale)
        self.velocity: Tensor | None = None

    def project(self, image: Tensor) -> Tensor:
        """W f + b of one image."""
        return torch.stack([(row * image.double()).sum() for row in self.weight]) + self.bias

    def logits(self, images: Tensor) -> Tensor:
        """exp(s) · cos(W f + b, text_c) for every image and class."""
        rows = []
        for image in images:
            direction = unit(self.project(image))
            rows.append(torch.stack([self.factor * (direction * unit(t)).sum() for t in self.text]))
        return torch.stack(rows)

    def mean_image(self, images: Tensor) -> Tensor:
        """The mean of the images' projected unit vectors, made one itself."""
        total = torch.zeros(len(self.weight), dtype=torch.float64)
        for image in images:
            total += unit(self.project(image))
        return unit(total / len(images))

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Of the mean cross-entropy by W: for u = v/‖v‖, ∂u/∂v = (I − uuᵀ)/‖v‖."""
        total = torch.zeros_like(self.weight)
        for image, label in zip(images, labels.tolist(), strict=True):
            projected = self.project(image)
            shares = self.logits(image[None])[0].softmax(0)
            shares[label] -= 1
            by_direction = self.factor * sum(p * t for p, t in zip(shares, self.text, strict=True))
            length, direction = float(projected.norm()), unit(projected)
            by_projected = (by_direction - direction * (direction * by_direction).sum()) / length
            total += torch.outer(by_projected, image.double())
        return total / len(images)

    def sgd_step(self, images: Tensor, labels: Tensor) -> None:
        """One step with momentum; the first step's velocity is its gradient."""
        step = self.gradient(images, labels) + WEIGHT_DECAY * self.weight
        self.velocity = step if self.velocity is None else MOMENTUM * self.velocity + step
        self.weight = self.weight - LR * self.velocity
