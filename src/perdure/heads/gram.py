"""Gram matrix of rows taken in lesson by lesson: thin while rows are fewer than columns."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perdure.numerics.spectrum import Spectrum, add_rows, empty_spectrum, spectrum_of


class GramMatrix(nn.Module):
    """G = Σ row rowᵀ over all rows so far, in float64.

    While rows are fewer than its columns m, it is its eigenvalues and eigenvectors, m + 1 numbers a
    row; from then on, or once it was replaced, it is the matrix, m² numbers whatever is added. Both
    are exact.

    Args:
        width: columns m.
    """

    values: Tensor
    basis: Tensor
    matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("values", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("basis", torch.zeros(width, 0, dtype=torch.float64))
        self.register_buffer("matrix", torch.zeros(0, 0, dtype=torch.float64))

    @property
    def thin(self) -> bool:
        """Whether it is decomposed still."""
        return not len(self.matrix)

    @property
    def trace(self) -> float:
        """Sum of the rows' squared lengths."""
        return float(self.values.sum() + self.matrix.diagonal().sum())

    def spectrum(self) -> Spectrum:
        """Decomposed; a whole matrix is decomposed anew."""
        return Spectrum(self.values, self.basis) if self.thin else spectrum_of(self.matrix)

    def add(self, rows: Float[Tensor, "n m"]) -> None:
        """Add rows; shapes change by how many there are."""
        rows = rows.to(self.basis)
        if self.thin and len(self.values) + len(rows) < self.width:
            self._decompose(add_rows(self.spectrum(), rows))
            return
        if self.thin:
            self.matrix = self.spectrum().gram()
            self._decompose(empty_spectrum(self.width))
        self.matrix += rows.T @ rows

    def replace(self, gram: Float[Tensor, "m m"]) -> None:
        """Take another Gram in its place, whole."""
        self._decompose(empty_spectrum(self.width))
        self.matrix = gram.to(self.matrix)

    def _decompose(self, spectrum: Spectrum) -> None:
        self.values, self.basis = spectrum.values.to(self.values), spectrum.basis.to(self.basis)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the sizes of what is loaded: they depend on images, not on tasks."""
        for name in ("values", "basis", "matrix"):
            if prefix + name in state_dict:
                own = self.get_buffer(name)
                setattr(self, name, own.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
