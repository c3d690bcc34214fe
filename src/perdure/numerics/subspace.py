"""Null spaces of Gram matrices, and projectors into them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from perdure.numerics.rank_rule import SHORTEST_SPECTRUM, RankRule

SMOOTHED_FROM = 128
"""The released program smooths spectra of at least this length before it looks for the knee."""
SMOOTHING_SIGMA = 10.0
TRIMMED_SHARE = 0.03


def affinity_gram(
    head_grams: Float[Tensor, "h c c"], key_weight: Float[Tensor, "hc d"]
) -> Float[Tensor, "d d"]:
    """Return the affinity Gram Ω₁ᵀΩ₁, Ω₁ = [Q_h W_{k,h}ᵀ]_h, from per-head query Grams.

    Ω₁ᵀΩ₁ = Σ_h W_{k,h}ᵀ (Q_hᵀ Q_h) W_{k,h}, so the small Grams are summed over all images first and
    multiplied out once. The result is symmetric and positive semidefinite, in float64.

    Args:
        head_grams: Σ qᵀq per head, over all tokens of all images.
        key_weight: W_k as a linear layer stores it, heads one after another.
    """
    heads, width = head_grams.shape[:2]
    weight = key_weight.double()
    weighed = (head_grams.double() @ weight.view(heads, width, -1)).flatten(0, 1)
    return weight.T @ weighed  # one product, which sums over heads


def image_weights(total: int, batch: int) -> Float[Tensor, "n"]:
    """Weight of each image when batches of ``batch`` in data set order each contribute their mean.

    Every image weighs 1 / (size of its batch); the weights of a batch sum to 1, whatever the batches
    in which a device sees the images.
    """
    starts = torch.arange(total) // batch * batch
    return 1.0 / torch.clamp(total - starts, max=batch).double()


def nullity(spectrum: Float[Tensor, "n"], rule: RankRule) -> int:
    """Choose the dimension R of the null space at the knee of a spectrum.

    The knee is the largest second difference λ_{j-1} − 2 λ_j + λ_{j+1}. Always 1 ≤ R ≤ n − 1.

    Args:
        spectrum: singular values, largest first.
        rule: ``paper``: equation 28, R = n − argmax_j (j counted from 1), on the raw spectrum.
            ``reference``: as the released program does: the knee itself belongs to the null space,
            and long spectra are smoothed and trimmed before the knee is sought.

    Raises:
        ValueError: fewer than three values.
    """
    count = len(spectrum)
    if count < SHORTEST_SPECTRUM:
        raise ValueError(f"a knee needs at least {SHORTEST_SPECTRUM} singular values, got {count}")
    values = spectrum.double().cpu()
    if rule == "paper":
        knee = int(_second_difference(values).argmax()) + 1
        return count - 1 - knee
    smooth, trim = values, 0
    if count >= SMOOTHED_FROM:
        smooth = torch.from_numpy(gaussian_filter1d(values.numpy(), SMOOTHING_SIGMA))
        trim = int(TRIMMED_SHARE * count / 2)
    bends = _second_difference(smooth)[trim : count - 2 - trim]
    threshold = values[int(bends.argmax()) + trim + 1]
    first_kept = int((values >= threshold).nonzero()[-1])
    return count - first_kept


def null_space(gram: Float[Tensor, "n n"], rule: RankRule) -> Float[Tensor, "n r"]:
    """Return the R directions that a Gram matrix weighs least, as orthonormal columns in float64.

    Nothing was seen where the Gram is zero: then every direction is in the null space.

    Args:
        gram: symmetric, positive semidefinite.
        rule: rule that chooses R, see `nullity`.
    """
    gram = gram.double()
    if not gram.any():
        return torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    spectrum = values.flip(0).clamp(min=0)
    basis: Tensor = vectors[:, : nullity(spectrum, rule)]
    return basis


def projector(basis: Float[Tensor, "n r"]) -> Float[Tensor, "n n"]:
    """Return Π = U₀U₀ᵀ: symmetric, Π = Π², trace Π = R."""
    return basis @ basis.T


def damping(basis: Float[Tensor, "n r"], eta: float, normalise: bool) -> Float[Tensor, "n n"]:
    """Return η B + (1 − η) I, with B = Π / ‖Π‖_F = Π / √R (published) or B = Π (a true projector).

    Args:
        basis: the null space's orthonormal columns.
        eta: 1 keeps updates inside the null space, 0 leaves them as they are.
        normalise: whether Π is divided by its Frobenius norm.
    """
    plain = projector(basis)
    scaled = plain / basis.shape[1] ** 0.5 if normalise else plain
    return eta * scaled + (1 - eta) * torch.eye(len(plain), dtype=plain.dtype, device=plain.device)


def _second_difference(values: Float[Tensor, "n"]) -> Float[Tensor, "m"]:
    """λ_{j-1} − 2 λ_j + λ_{j+1} for every inner j; entry i belongs to j = i + 1 (from 0)."""
    return values[:-2] - 2 * values[1:-1] + values[2:]
