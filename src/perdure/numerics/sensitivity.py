"""Sensitivity of readouts to prompts: directions that old readouts feel, and updates that spare them.

With J = ∂f/∂p the Jacobian of a readout with respect to its image's prompts, and M the metric in
which readouts are compared, the sensitivity Gram is E[Jᵀ M J]; gradients g of vᵀf with E[vvᵀ] = M
give it as E[g gᵀ].
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perdure.numerics.gaussians import centred_rows
from perdure.numerics.spectrum import Spectrum, spectrum_of

METRIC_SHRINKAGE = 0.3
"""ρ of the within-class covariance whose inverse is the metric: fixed, whatever heads there are."""


def metric_root(features: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> Float[Tensor, "d d"]:
    """Return the symmetric A^(-1/2), A = (1 − ρ) S/n + ρ tr(S)/(nD) I, in float64.

    S is the within-class scatter of these features. root · A · root = I; the identity where S is 0.

    Args:
        features: readouts of a task's images.
        labels: their classes.
    """
    _, _, rows = centred_rows(features, labels, tuple(labels.unique().tolist()))
    covariance = rows.T @ rows / len(rows)
    level = covariance.diagonal().mean()
    if float(level) <= 0:
        return torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    spectrum = spectrum_of(covariance)
    shrunk = (1 - METRIC_SHRINKAGE) * spectrum.values + METRIC_SHRINKAGE * level
    return (spectrum.basis * shrunk.rsqrt()) @ spectrum.basis.T


def slowed(energy: Float[Tensor, "*n"], mean: float, strength: float) -> Float[Tensor, "*n"]:
    """Return the gains of (I + c G/λ̄)⁻¹ along G's eigenvectors: 1/(1 + c λ/λ̄), all in (0, 1].

    Args:
        energy: eigenvalues λ of G.
        mean: λ̄, the mean of all of them, those included that ``energy`` leaves out.
        strength: c ≥ 0.
    """
    return energy if mean <= 0 else 1 / (1 + strength * energy / mean)


def least_felt(energy: Float[Tensor, "*n"], count: int) -> Bool[Tensor, "*n"]:
    """Mark the ``count`` directions of least energy: those that an update may keep.

    Args:
        energy: eigenvalues, in any order.
        count: from 0 to their number; of equal ones the first are marked.
    """
    marked = torch.zeros(energy.numel(), dtype=torch.bool, device=energy.device)
    marked[energy.flatten().argsort(stable=True)[:count]] = True
    return marked.view(energy.shape)


def free_count(share: float, directions: int) -> int:
    """Number of directions that a share of them is: rounded, at least one."""
    return max(1, round(share * directions))


def filtered(
    update: Float[Tensor, "*e p d"],
    gains: Float[Tensor, "#p d"],
    right: Float[Tensor, "d d"],
    left: Float[Tensor, "p p"] | None = None,
) -> Float[Tensor, "*e p d"]:
    """Return U_L (F ∘ (U_Lᵀ ΔP U_R)) U_Rᵀ: an update, scaled along the eigenvectors of L ⊗ R.

    With F = 1 − (1 − m_L)(1 − m_R)ᵀ of two masks it is ΔP − (I−Π_L) ΔP (I−Π_R). Linear in the
    update; the update itself where all gains are 1.

    Args:
        update: ΔP, or one per entry of a pool.
        gains: F, per pair of a left and a right eigenvector.
        right: U_R, orthonormal columns.
        left: U_L; None for the identity.
    """
    turned = update @ right
    if left is None:
        return (turned * gains) @ right.T
    return left @ ((left.T @ turned) * gains) @ right.T


def filtered_thin(
    update: Float[Tensor, "e m"], gains: Float[Tensor, "r"], basis: Float[Tensor, "m r"]
) -> Float[Tensor, "e m"]:
    """Return ΔP + U ((F − 1) ∘ UᵀΔP): an update, scaled along r directions and left as it is elsewhere.

    Args:
        update: ΔP as a row, or one row per entry of a pool.
        gains: F, one per direction.
        basis: U, orthonormal columns.
    """
    return update + ((update @ basis) * (gains - 1)) @ basis.T


def product_energy(left: Float[Tensor, "p"], right: Float[Tensor, "d"]) -> Float[Tensor, "p d"]:
    """Eigenvalues of (L ⊗ R) / tr L, which has the trace of R; zeros where L is 0."""
    total = left.sum()
    return torch.outer(left, right) / total if float(total) > 0 else torch.outer(left, right)


def truncated(spectrum: Spectrum, most: int) -> Spectrum:
    """Return the ``most`` directions of largest eigenvalue; the rest is dropped."""
    order = spectrum.values.argsort(descending=True)[:most]
    return Spectrum(spectrum.values[order], spectrum.basis[:, order])


def evenly_spaced(total: int, most: int) -> list[int]:
    """Positions of at most ``most`` of ``total`` images, evenly spaced, in order."""
    step = max(1, math.ceil(total / most))
    return list(range(0, total, step))
