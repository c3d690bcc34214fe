"""Pooled class means: means drawn together as far as their sampling errors say.

Means of classes spread by more than the classes do: each carries an error, which falls with the
number of its images and rises with the number of dimensions. Efron and Morris (1972, "Empirical Bayes
on vector observations", Biometrika 59) shrink such a matrix of means along its singular vectors.
Here it is the posterior mean under a prior over classes whose covariance is the means' own Gram
matrix: smooth, and defined for any number of classes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_ROUNDING = 1e-12


class PooledMeans:
    """Pooled class means m + H (M - m), H = K (K + E)⁻¹, K = (M - m) A⁻¹ (M - m)ᵀ.

    M are the means, m their mean, and E is diagonal: for class c the expected square of its mean's
    error by A, that of an image over the number of images.

    Args:
        means: mean feature per label; any where no image counts.
        solved: A⁻¹ times each of them.
        counts: images n_c per label; 0 for one that is no class any more, and is left as it is.
        error: expected square of an image's distance to the mean of its class, by A; positive.

    Attributes:
        means: the pooled means.
        known: labels of the classes that are pooled.
    """

    def __init__(
        self,
        means: Float[Tensor, "c d"],
        solved: Float[Tensor, "c d"],
        counts: Int[Tensor, "c"],
        error: float,
    ) -> None:
        self.known = (counts > 0).nonzero()[:, 0]
        known, weight = means[self.known].double(), solved[self.known].double()
        gram = _centred(known) @ _centred(weight).T
        self._gram = (gram + gram.T) / 2
        self._error = error
        # Where images of a class are all but alike, errors vanish in K's rounding.
        rounding = _ROUNDING * self._gram.diagonal().mean()
        self._errors = error / counts[self.known].double() + rounding
        self._inverse = _inverse_of(self._gram, self._errors)
        lost = _lost(known, self._inverse, self._errors)
        self._means = means.double()
        self.means = self._means.index_copy(0, self.known, known - lost)

    def without(self, labels: Int[Tensor, "l"]) -> Float[Tensor, "c d"]:
        """The pooled means as they were if these labels had no image; the error of an image stays."""
        rest = ~torch.isin(self.known, labels.to(self.known.device))
        rows, errors = self.known[rest], self._errors[rest]
        # A Gram matrix of rows around another middle is known from that around this one.
        gram = _centred(_centred(self._gram[rest][:, rest]).T)
        known = self._means[rows]
        lost = _lost(known, _inverse_of(gram, errors), errors)
        return self._means.index_copy(0, rows, known - lost)

    def distances_left_out(
        self,
        views: Float[Tensor, "b v r"],
        labels: Int[Tensor, "b"],
        counts: Float[Tensor, "b"],
        means: Float[Tensor, "k r"],
        kernel: Float[Tensor, "b v v"],
        thin: bool,
    ) -> Float[Tensor, "b k"]:
        """Squared distances of images to the pooled means of known classes, each image left out.

        Its class's mean and number of images and A lose the image, and means are pooled anew; the
        error of an image stays. Of the matrix K + E an image is a change of low rank, so that its
        inverse follows by Woodbury.

        Args:
            views: of every image, whitened by A; the first is the one that is asked about.
            labels: places of their classes among the known ones.
            counts: images of these classes, at least 2.
            means: of the known classes, whitened.
            kernel: Q of every image: without it the product of two vectors by A grows by gQhᵀ, g and
                h their products with the views less the mean.
            thin: whether means lie outside the whitened space, too.
        """
        middle = means.mean(dim=0)
        apart, centred = views - means[labels][:, None], means - middle
        beyond = self._gram - centred @ centred.T if thin else torch.zeros_like(self._gram)
        one = torch.eye(len(means), dtype=means.dtype, device=means.device)[labels]
        share = one - 1 / len(means)
        # The mean of the class moves by this, and the middle of all by its part.
        move = -apart.mean(dim=1) / (counts - 1)[:, None]
        x = views[:, 0] - middle - move / len(means)
        along = move @ centred.T
        products = x @ centred.T + beyond[labels] + share * (x * move).sum(dim=1, keepdim=True)
        seen = torch.einsum("bvr,br->bv", apart, x)
        shown = (apart @ centred.T).mT
        shown = shown + share[..., None] * torch.einsum("bvr,br->bv", apart, move)[:, None]
        weighed = shown @ kernel
        products = products + (weighed * seen[:, None]).sum(dim=2)
        square = x.square().sum(dim=1) + beyond.diagonal()[labels]
        square = square + torch.einsum("bv,bvw,bw->b", seen, kernel, seen)
        length = move.square().sum(dim=1)
        own = self._gram.diagonal() + 2 * share * along + share.square() * length[:, None]
        own = own + (weighed * shown).sum(dim=2)
        extra = self._error / (counts * (counts - 1))
        # K + E changes by V S Vᵀ, its inverse by -W B Wᵀ.
        v = torch.cat([share[..., None], along[..., None], shown, one[..., None]], dim=2)
        s = v.new_zeros(len(v), v.shape[2], v.shape[2])
        s[:, 0, 0], s[:, 0, 1], s[:, 1, 0], s[:, -1, -1] = length, 1, 1, extra
        s[:, 2:-1, 2:-1] = kernel
        w = self._inverse @ v
        inner = torch.eye(v.shape[2], dtype=v.dtype, device=v.device) + v.mT @ w @ s
        wb = w @ torch.linalg.solve(inner.mT, s.mT).mT
        errors = self._errors + extra[:, None] * one
        solved = products @ self._inverse - (wb @ (w.mT @ products[..., None]))[..., 0]
        diagonal = self._inverse.diagonal() - (wb * w).sum(dim=2)
        rows = torch.arange(len(labels), device=labels.device)
        column = self._inverse[labels] - (wb @ w[rows, labels][..., None])[..., 0]
        scaled = self._errors[:, None] * w
        squares = self._inverse.square() @ self._errors
        squares = squares - 2 * ((self._inverse @ scaled) * wb).sum(dim=2)
        squares = squares + ((wb @ (w.mT @ scaled)) * wb).sum(dim=2)
        squares = squares + extra[:, None] * column.square()
        pooled = own - 2 * errors + errors.square() * (3 * diagonal - squares)
        distances: Tensor = square[:, None] - 2 * (products - errors * solved) + pooled
        return distances


def _inverse_of(gram: Float[Tensor, "c c"], errors: Float[Tensor, "c"]) -> Float[Tensor, "c c"]:
    """(K + E)⁻¹."""
    inverse: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(gram + torch.diag(errors)))
    return inverse


def _lost(
    means: Float[Tensor, "c d"], inverse: Float[Tensor, "c c"], errors: Float[Tensor, "c"]
) -> Float[Tensor, "c d"]:
    """What pooling takes from the means: E (K + E)⁻¹ (M - m)."""
    lost: Tensor = errors[:, None] * (inverse @ _centred(means))
    return lost


def _centred(rows: Float[Tensor, "c k"]) -> Float[Tensor, "c k"]:
    apart: Tensor = rows - rows.mean(dim=0)
    return apart


def image_error(
    values: Float[Tensor, "r"], width: int, rho: float, rows: int, classes: int
) -> float:
    """Expected square of a new image's distance to the mean of its class, by A.

    A = (1 - ρ) C + ρ t I, t the mean of C's eigenvalues. Of images that A was made of it is tr A⁻¹C,
    times the rows over their degrees of freedom; a new one is farther away by 1/(1 - h), h the mean
    leverage of those in A.

    Args:
        values: eigenvalues of the covariance C, scatter over images, those that are 0 left out or not.
        width: number of dimensions.
        rho: shrinkage ρ, in (0, 1].
        rows: independent rows in the scatter, one per image and view.
        classes: number of classes whose means they are centred on.
    """
    free = max(rows - classes, 1)
    level = float(values.sum()) / width
    inside = float((values / ((1 - rho) * values + rho * level)).sum())
    leverage = min((1 - rho) * inside / free, 1 - 1 / (free + 1))
    return inside * max(rows / free, 1.0) / (1 - leverage)
