"""Random features in front of a closed-form head, drawn from a seed and never stored."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from perdure.randomness import generator

COMPARED = 1000
"""Rows whose distances give the kernel's width."""


@dataclass(frozen=True)
class Lift:
    """A fixed random map from d features to m.

    Attributes:
        weight: R or Ω, in float32.
        phase: b of `cosine_lift`; None for `relu_lift`.
    """

    weight: Float[Tensor, "d m"]
    phase: Float[Tensor, "m"] | None = None

    def __call__(self, features: Float[Tensor, "*n d"]) -> Float[Tensor, "*n m"]:
        """relu(xR), or √(2/m) cos(xΩ + b); in the type of the features."""
        raised = features @ self.weight.to(features)
        if self.phase is None:
            return raised.relu()
        return math.sqrt(2 / len(self.phase)) * (raised + self.phase.to(features)).cos()

    def digest(self) -> str:
        """sha256 of the numbers drawn: a model that is loaded where they differ must be refused."""
        sha256 = hashlib.sha256(self.weight.cpu().numpy().tobytes())
        if self.phase is not None:
            sha256.update(self.phase.cpu().numpy().tobytes())
        return sha256.hexdigest()


def relu_lift(dim: int, width: int, seed: int, *name: int | str) -> Lift:
    """φ(x) = relu(xR) with R ~ N(0, 1): RanPAC's projection (McDonnell et al., NeurIPS 2023).

    Drawn in float64 and cast, because float32 normals differ between CPUs in their last bits.

    Args:
        dim: features d.
        width: width of the result, m.
        seed: seed of the run.
        name: under which the numbers are drawn.
    """
    return Lift(_normal(dim, width, seed, *name).float())


def cosine_lift(dim: int, width: int, gamma: float, seed: int, *name: int | str) -> Lift:
    """φ(x) = √(2/m) cos(xΩ + b): random Fourier features (Rahimi and Recht, NeurIPS 2007).

    Ω ~ N(0, 2γ) and b uniform in [0, 2π), so that φ(x)·φ(x′) tends to exp(−γ‖x − x′‖²) as m grows.

    Args:
        dim: features d.
        width: width of the result, m.
        gamma: γ of the kernel, positive; see `kernel_gamma`.
        seed: seed of the run.
        name: under which the numbers are drawn.

    Raises:
        ValueError: γ is not positive.
    """
    if not gamma > 0:
        raise ValueError(f"gamma {gamma}: allowed is what lies above 0")
    weight = math.sqrt(2 * gamma) * _normal(dim, width, seed, *name)
    uniform = torch.rand(width, generator=generator(seed, *name, "phase"), dtype=torch.float64)
    return Lift(weight.float(), (2 * math.pi * uniform).float())


def kernel_gamma(features: Float[Tensor, "n d"]) -> float:
    """γ = 1/median ‖x − x′‖² over pairs of `COMPARED` rows at most; 1 where all are alike."""
    x = features.double()
    if len(x) > COMPARED:
        x = x[torch.linspace(0, len(x) - 1, COMPARED).long()]
    if len(x) < 2:  # noqa: PLR2004
        return 1.0
    median = float(torch.pdist(x).square().median())
    return 1 / median if median > 0 else 1.0


def _normal(dim: int, width: int, seed: int, *name: int | str) -> Float[Tensor, "d m"]:
    return torch.randn(dim, width, generator=generator(seed, *name), dtype=torch.float64)
