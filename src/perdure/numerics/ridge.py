"""Ridge regression on one-hot classes: sums over images, then one solve for any penalty.

G = Σ φφᵀ and Q = Σ φyᵀ over images with features φ, the last of which is 1, give the weights
W = (G + λI)⁻¹Q, and φᵀW scores the classes. Penalties are given as ratios, λ = ratio · tr(G)/m,
because no fixed λ serves several backbones.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perdure.numerics.leave_one_out import LeftOut
from perdure.numerics.spectrum import Spectrum, spectrum_of

RATIOS = tuple(10 ** (step / 2) for step in range(-14, 3))
"""Ratios that are compared, from 1e-7 to 10."""
WIDEST_SPECTRUM = 4000
"""Columns up to which a Gram is decomposed once; wider ones are factored for each penalty."""
MOST_FREEDOM = 0.9
"""Effective degrees of freedom per image above which a penalty is rejected: it interpolates."""


def with_bias(features: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
    """Append the column of ones, in float64; it is regularised like the others. m = d + 1."""
    x = features.double()
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def one_hot(labels: Int[Tensor, "n"], classes: int) -> Float[Tensor, "n c"]:
    """Targets y in float64."""
    return torch.nn.functional.one_hot(labels, classes).double()


class Regularised(abc.ABC):
    """(G + λI)⁻¹ of one penalty λ."""

    @abc.abstractmethod
    def solve(self, sums: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
        """(G + λI)⁻¹ Q, for columns in the span of the rows that G sums over."""

    @abc.abstractmethod
    def leverage(self, rows: Float[Tensor, "n m"]) -> Float[Tensor, "n"]:
        """φᵀ(G + λI)⁻¹φ of rows that G sums over, in [0, 1)."""

    @abc.abstractmethod
    def freedom(self) -> float:
        """Effective degrees of freedom, tr G(G + λI)⁻¹: the leverages of all rows, summed."""


@dataclass(frozen=True)
class System:
    """A Gram matrix that is to be solved with under several penalties.

    Attributes:
        gram: G, or its spectrum, thin while rows are fewer than columns.
        trace: trace of G.
        width: columns m, the bias included.
    """

    gram: Spectrum | Float[Tensor, "m m"]
    trace: float
    width: int

    @classmethod
    def of(cls, gram: Spectrum | Float[Tensor, "m m"]) -> System:
        """Prepare G: decomposed up to `WIDEST_SPECTRUM` columns, as it is above."""
        if isinstance(gram, Spectrum):
            return cls(gram, float(gram.values.sum()), gram.width)
        g = gram.double()
        wide = len(g) > WIDEST_SPECTRUM
        return cls(g if wide else spectrum_of(g), float(g.diagonal().sum()), len(g))

    @property
    def images(self) -> int:
        """Rows that G sums over, those of forgotten classes included: the last column of each is 1."""
        if isinstance(self.gram, Spectrum):
            return round(float(self.gram.values @ self.gram.basis[-1].square()))
        return round(float(self.gram[-1, -1]))

    def penalty(self, ratio: float) -> float:
        """λ = ratio · tr(G)/m.

        Raises:
            ValueError: it is not positive.
        """
        penalty = ratio * self.trace / self.width
        if not penalty > 0:
            raise ValueError(
                f"ratio {ratio} of a Gram with trace {self.trace:g}: λ must be above 0"
            )
        return penalty

    def at(self, ratio: float) -> Regularised:
        """Prepare (G + λI)⁻¹ of one ratio.

        Raises:
            ValueError: λ is not positive.
        """
        penalty = self.penalty(ratio)
        if isinstance(self.gram, Spectrum):
            return _Decomposed(self.gram, penalty)
        shifted = self.gram.clone()
        shifted.diagonal().add_(penalty)
        return _Factored(torch.linalg.cholesky(shifted), penalty)


@dataclass(frozen=True)
class _Decomposed(Regularised):
    spectrum: Spectrum
    penalty: float

    def solve(self, sums: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
        basis = self.spectrum.basis
        inside = (basis.T @ sums.to(basis)) / (self.spectrum.values + self.penalty)[:, None]
        return basis @ inside

    def leverage(self, rows: Float[Tensor, "n m"]) -> Float[Tensor, "n"]:
        along = rows.to(self.spectrum.basis) @ self.spectrum.basis
        return (along.square() / (self.spectrum.values + self.penalty)).sum(dim=1)

    def freedom(self) -> float:
        values = self.spectrum.values
        return float((values / (values + self.penalty)).sum())


@dataclass(frozen=True)
class _Factored(Regularised):
    factor: Float[Tensor, "m m"]
    penalty: float

    def solve(self, sums: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
        return torch.cholesky_solve(sums.to(self.factor), self.factor)

    def leverage(self, rows: Float[Tensor, "n m"]) -> Float[Tensor, "n"]:
        turned = rows.to(self.factor).T
        solved: Tensor = torch.linalg.solve_triangular(self.factor, turned, upper=False)
        return solved.square().sum(dim=0)

    def freedom(self) -> float:
        inverse = torch.cholesky_inverse(self.factor)
        return float(len(inverse) - self.penalty * inverse.diagonal().sum())


@dataclass(frozen=True)
class RidgeLeftOut:
    """Leave-one-out results at every ratio: images, right answers, loss.

    Attributes:
        answers: right answers, and summed squared error over all classes.
        allowed: ratios that do not interpolate, see `MOST_FREEDOM`.
    """

    answers: LeftOut
    allowed: Bool[Tensor, "g"]


def ridge_left_out(
    system: System,
    sums: Float[Tensor, "m c"],
    rows: Float[Tensor, "n m"],
    labels: Int[Tensor, "n"],
    counts: Int[Tensor, "c"],
    ratios: Sequence[float] = RATIOS,
    class_of: Int[Tensor, "c"] | None = None,
) -> RidgeLeftOut:
    """Judge every ratio by the scores of images that are left out in turn; λ stays as it is.

    Images that are the only one of their class are not judged.

    Args:
        system: G of all images so far, those given included.
        sums: Q of the same.
        rows: features φ of the images to leave out, bias included.
        labels: their columns in ``sums``.
        counts: images so far per class; 0 for a class that is no answer.
        ratios: the grid, each above 0.
        class_of: class that each column stands for; columns of one class are right for each other.
            None: every column is a class of its own.

    Raises:
        ValueError: λ is not positive.
    """
    judged = counts[labels] > 1
    rows, labels, images = rows[judged], labels[judged], system.images
    targets = one_hot(labels, sums.shape[1])
    columns = torch.arange(len(counts)) if class_of is None else class_of
    columns = columns.to(labels.device)
    right, loss, allowed = [], [], []
    # There are no more degrees of freedom than columns; counting them costs a factored Gram dear.
    most = MOST_FREEDOM * images
    for ratio in ratios:
        solver = system.at(ratio)
        scores = _left_out(solver, sums, rows, targets)
        named = scores.masked_fill(counts == 0, -torch.inf).argmax(dim=1)
        right.append((columns[named] == columns[labels]).sum())
        loss.append((targets - scores).square().sum())
        allowed.append(system.width <= most or solver.freedom() <= most)
    answers = LeftOut(torch.stack(right).cpu(), torch.stack(loss).cpu(), len(labels))
    return RidgeLeftOut(answers, torch.tensor(allowed))


def ridge_scores_left_out(
    system: System,
    sums: Float[Tensor, "m c"],
    rows: Float[Tensor, "n m"],
    labels: Int[Tensor, "n"],
    ratio: float,
) -> Float[Tensor, "n c"]:
    """Score images that are left out in turn, exactly: ŷ′ = ŷ − h/(1 − h) (y − ŷ).

    h is the image's leverage (Golub, Heath and Wahba 1979, for ridge regression). Equal to solving
    anew without the image at the same λ, to 1e-10.

    Args:
        system: G of all images so far, those given included.
        sums: Q of the same.
        rows: features φ of the images, bias included.
        labels: their columns in ``sums``.
        ratio: ratio of the penalty.

    Raises:
        ValueError: λ is not positive.
    """
    return _left_out(system.at(ratio), sums, rows, one_hot(labels, sums.shape[1]))


def ridge_scores_class_left_out(
    solver: Regularised, sums: Float[Tensor, "m c"], rows: Float[Tensor, "n m"]
) -> Float[Tensor, "n c"]:
    """Score images of one class, as if all of them had been left out: (I − H)⁻¹ φᵀ(G + λI)⁻¹Q.

    H is their block of the hat matrix. For every other class equal to solving anew without them at
    the same λ, to 1e-9, as their rows add nothing to its column of Q.

    Args:
        solver: of G of all images, those given included.
        sums: Q of the same.
        rows: features φ of the images of the class, bias included.
    """
    rest = -rows.double() @ solver.solve(rows.double().T)
    rest.diagonal().add_(1)
    solved: Tensor = torch.linalg.solve(rest, rows.double() @ solver.solve(sums))
    return solved


def _left_out(
    solver: Regularised,
    sums: Float[Tensor, "m c"],
    rows: Float[Tensor, "n m"],
    targets: Float[Tensor, "n c"],
) -> Float[Tensor, "n c"]:
    scores = rows.double() @ solver.solve(sums)
    leverage = solver.leverage(rows)[:, None]
    return scores - leverage / (1 - leverage) * (targets - scores)
