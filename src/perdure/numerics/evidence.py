"""Evidence for known classes against a background: full log densities, images or classes left out.

The background is one Gaussian over all images, whatever their class. Ren et al. (2021, "A simple fix
to Mahalanobis distance for improving near-OOD detection") compare classes with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perdure.numerics.gaussians import views_of
from perdure.numerics.leave_one_out import WithoutImage, can_be_left_out, squares
from perdure.numerics.pooled_means import PooledMeans


@dataclass(frozen=True)
class Evidence:
    """Scores of images for every label, and of the background, up to one term for all images.

    Attributes:
        scores: log densities or other scores per label.
        background: log density of the background; None where there is none.
        whole: whether their size has a meaning beside their differences within an image.
    """

    scores: Float[Tensor, "n c"]
    background: Float[Tensor, "n"] | None = None
    whole: bool = False


class GaussianEvidence:
    """Log densities of classes with one covariance, and of a background that knows no classes.

    A = (1 − ρ) S/(n − 1) + ρ t I as in `gaussian_scores_left_out`, and for the background
    B = A + (1 − ρ) M/(n − 1) with M = Σ n_c (μ_c − m)(μ_c − m)ᵀ around the mean m of all images, so
    that both are shrunk by the same amount. Constants of the densities are left out.

    Args:
        means: mean feature per label; any where no image counts.
        counts: images per label; 0 for one that is no class any more.
        scatter: Σ (x − mean of its class)(x − mean of its class)ᵀ over all ``images``.
        images: number n of images in the scatter.
        rho: shrinkage, in (0, 1].
        factor: on all log densities, where the covariance has another divisor.
        pooled: means that classes are scored by, where they are drawn together.

    Raises:
        ValueError: no two images, or no image differs from its class's mean.
    """

    def __init__(
        self,
        means: Float[Tensor, "c d"],
        counts: Int[Tensor, "c"],
        scatter: Float[Tensor, "d d"],
        images: int,
        rho: float,
        factor: float = 1.0,
        pooled: PooledMeans | None = None,
    ) -> None:
        self._half = -0.5 * factor
        level = float(scatter.diagonal().sum()) / max((images - 1) * len(scatter), 1)
        if images < 2 or level <= 0:  # noqa: PLR2004  fewer have no spread
            raise ValueError("there is no spread to measure distances by")
        self._counts, self._share = counts, (1 - rho) / (images - 1)
        weights = counts.double() / counts.sum()
        self._centre = weights @ means.double()
        between = (means.double() - self._centre) * counts.double().sqrt()[:, None]
        inner = self._share * scatter.double()
        inner.diagonal().add_(rho * level)
        self._means = means.double() - self._centre
        # Inverses, not factors: files for other runtimes have no triangular solve.
        self._inner = _inverse_root(inner)
        self._outer = _inverse_root(inner + self._share * between.T @ between)
        self._pooled = pooled
        self._whitened = self._white(means if pooled is None else pooled.means)

    def of(self, features: Float[Tensor, "n d"]) -> Evidence:
        """Evidence of images that were not learned."""
        x = features.double() - self._centre
        scores = self._half * squares(x @ self._inner, self._whitened)
        return Evidence(scores, self._half * (x @ self._outer).square().sum(dim=1), whole=True)

    def background_left_out(
        self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, "j"]:
        """Log density of the background without each of these learned images in turn.

        ρ, t and n − 1 stay as they were. One value per image whose class has another one.
        """
        judged = can_be_left_out(self._counts.to(labels.device), labels)
        x = (views_of(features[judged]).double() - self._centre) @ self._outer
        counts = self._counts.sum().double().expand(len(x))
        without = WithoutImage(x, counts, self._share)
        return self._half * (without.square + without.lost(without.along[:, None])[:, 0])

    def class_left_out(
        self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]
    ) -> Evidence:
        """Evidence of learned images of one class, as if none of them had been learned.

        Equal to building it anew without them, with ρ, t and n − 1 as they were, to 1e-9. What was
        learned of the class before stays in the scatter, but has no say in pooled means of the
        others; its own scores mean nothing.

        Args:
            features: the images of the class that are at hand; all were learned. Of all their views,
                that to be judged first.
            labels: label of each; a class has a label per domain.
        """
        whitened = self._whitened
        if self._pooled is not None:
            whitened = self._white(self._pooled.without(labels))
        views = views_of(features).double() - self._centre
        rows = [_removed(views[labels == one], self._of(int(one))) for one in labels.unique()]
        removed = self._share**0.5 * torch.cat(rows) @ self._inner
        x = views[:, 0]
        scores = self._half * _without(x @ self._inner, whitened, removed)
        count, here = float(self._counts.sum()), len(x)
        others = count - here
        if others < 1:
            return Evidence(scores)
        # Centred on the mean of all images, those without sum to the opposite of those here.
        own = views.mean(dim=(0, 1))
        rest = -here * own[None] / others
        around = torch.cat([_rows(views - own), (here * others / count) ** 0.5 * (own - rest)])
        parts = (part @ self._outer for part in (x, rest, self._share**0.5 * around))
        return Evidence(scores, self._half * _without(*parts)[:, 0], whole=True)

    def _white(self, means: Float[Tensor, "c d"]) -> Float[Tensor, "c d"]:
        """Means for which the covariance is the identity."""
        return (means.double() - self._centre) @ self._inner

    def _of(self, label: int) -> tuple[Float[Tensor, "d"], int]:
        return self._means[label], int(self._counts[label])


def _removed(
    x: Float[Tensor, "n v d"], learned: tuple[Float[Tensor, "d"], int]
) -> Float[Tensor, "m d"]:
    """Rows whose Gram matrix the scatter loses with these images of a label."""
    mean, count = learned
    here, own = len(x), x.mean(dim=(0, 1))
    before = count - here
    if before < 1:
        return _rows(x - own)
    old = (count * mean - here * own) / before
    return torch.cat([_rows(x - own), (here * before / count) ** 0.5 * (own - old)[None]])


def _rows(views: Float[Tensor, "n v d"]) -> Float[Tensor, "m d"]:
    """A row for each of an image's v views, that counts for 1/v."""
    rows: Tensor = views.flatten(0, 1) / views.shape[1] ** 0.5
    return rows


def _without(
    x: Float[Tensor, "n d"], means: Float[Tensor, "c d"], removed: Float[Tensor, "m d"]
) -> Float[Tensor, "n c"]:
    """Squared distances for A less the Gram of removed rows, all whitened by A (Woodbury)."""
    rest = -removed @ removed.T
    rest.diagonal().add_(1)
    root = _inverse_root(rest)
    return squares(x, means) + squares(*(part @ removed.T @ root for part in (x, means)))


def _inverse_root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """R with R Rᵀ = A⁻¹, so that rows times R have the identity for A."""
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    root: Tensor = torch.linalg.solve_triangular(
        torch.linalg.cholesky(matrix), identity, upper=False
    )
    return root.T
