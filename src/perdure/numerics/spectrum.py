"""Spectra of Gram matrices: full, or thin while images are fewer than columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and eigenvectors of a Gram matrix G = V diag(λ) Vᵀ, in float64.

    Directions outside the span of V have the eigenvalue 0. With r = n images, fewer than columns, it
    is exact and n·m numbers in place of m².

    Attributes:
        values: λ, none negative.
        basis: V, orthonormal columns.
    """

    values: Float[Tensor, "r"]
    basis: Float[Tensor, "m r"]

    @property
    def width(self) -> int:
        """Columns m of the rows that G sums over."""
        return len(self.basis)

    def gram(self) -> Float[Tensor, "m m"]:
        """G itself."""
        return (self.basis * self.values) @ self.basis.T


def spectrum_of(gram: Float[Tensor, "m m"]) -> Spectrum:
    """Decompose a symmetric positive semidefinite matrix; values that rounding made negative are 0.

    `Spectrum.gram` gives the matrix back, VᵀV = I, and the values rise.
    """
    g = gram.double()
    values, basis = torch.linalg.eigh((g + g.T) / 2)
    return Spectrum(values.clamp(min=0), basis)


def empty_spectrum(width: int) -> Spectrum:
    """The spectrum of no rows."""
    return Spectrum(torch.zeros(0).double(), torch.zeros(width, 0).double())


def add_rows(spectrum: Spectrum, rows: Float[Tensor, "n m"]) -> Spectrum:
    """Return the spectrum of G + Σ row rowᵀ, by a thin singular value decomposition.

    Whatever the division of all rows into calls, the Gram is that of one call with all rows (to
    about 1e-13 of its largest value). No value is dropped, so r grows with the rows up to m.

    Args:
        spectrum: spectrum of the rows before.
        rows: more of them.
    """
    before = (spectrum.basis * spectrum.values.sqrt()).T
    stacked = torch.cat([before, rows.to(before)])
    _, singular, right = torch.linalg.svd(stacked, full_matrices=False)
    return Spectrum(singular.square(), right.T.contiguous())
