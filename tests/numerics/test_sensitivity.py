"""The invariants of `perdure.numerics.sensitivity`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perdure.numerics.sensitivity import (
    evenly_spaced,
    filtered,
    filtered_thin,
    free_count,
    least_felt,
    metric_root,
    product_energy,
    slowed,
    truncated,
)
from perdure.numerics.spectrum import spectrum_of
from perdure.randomness import generator


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(0, *shape), dtype=torch.float64)


def gram(width: int) -> Tensor:
    rows = drawn(3 * width, width) * torch.logspace(-2, 1, width, dtype=torch.float64)
    return rows.T @ rows


def test_metric_root_is_the_symmetric_root_of_the_inverse_within_class_covariance() -> None:
    features, labels = 5 + drawn(30, 6), torch.arange(30) % 3
    centred = features.clone()
    for label in range(3):
        centred[labels == label] -= features[labels == label].mean(0)
    covariance = centred.T @ centred / 30
    shrunk = 0.7 * covariance + 0.3 * covariance.trace() / 6 * torch.eye(6).double()
    root = metric_root(features, labels)
    torch.testing.assert_close(root, root.T)
    torch.testing.assert_close(root @ shrunk @ root, torch.eye(6).double())


def test_metric_of_one_image_per_class_is_plain() -> None:
    assert torch.equal(metric_root(drawn(3, 4), torch.arange(3)), torch.eye(4).double())


def test_slowed_is_the_inverse_of_i_plus_c_g() -> None:
    spectrum = spectrum_of(gram(5))
    gains = slowed(spectrum.values, float(spectrum.values.mean()), 7.0)
    matrix = (spectrum.basis * gains) @ spectrum.basis.T
    scaled = 7.0 * gram(5) / spectrum.values.mean()
    torch.testing.assert_close(matrix @ (torch.eye(5).double() + scaled), torch.eye(5).double())


def test_least_felt_marks_the_smallest() -> None:
    marked = least_felt(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), 3)
    assert marked.tolist() == [[False, True], [True, True]]
    assert not least_felt(torch.ones(4), 0).any()
    assert free_count(0.5, 7) == 4
    assert free_count(0.01, 7) == 1


@pytest.mark.parametrize("entries", [0, 3])
def test_filtered_is_a_function_of_the_kronecker_product(entries: int) -> None:
    """Hard masks of both sides give ΔP − (I−Π_L) ΔP (I−Π_R); gains in general U F∘ Uᵀ of L ⊗ R."""
    left, right = spectrum_of(gram(3)), spectrum_of(gram(4))
    update = drawn(entries, 3, 4) if entries else drawn(3, 4)
    free_left, free_right = least_felt(left.values, 1), least_felt(right.values, 2)
    gains = (free_left[:, None] | free_right[None, :]).double()
    stop_left = torch.eye(3).double() - left.basis[:, :1] @ left.basis[:, :1].T
    stop_right = torch.eye(4).double() - right.basis[:, :2] @ right.basis[:, :2].T
    found = filtered(update, gains, right.basis, left.basis)
    torch.testing.assert_close(found, update - stop_left @ update @ stop_right)
    energy = product_energy(left.values, right.values)
    torch.testing.assert_close(energy.sum(), right.values.sum())
    gains = slowed(energy, float(energy.mean()), 3.0)
    full = torch.kron(gram(3), gram(4)) / gram(3).trace()
    inverse = torch.linalg.inv(torch.eye(12).double() + 3.0 * full / full.diagonal().mean())
    expected = (update.reshape(-1, 12) @ inverse).view(update.shape)
    torch.testing.assert_close(filtered(update, gains, right.basis, left.basis), expected)


def test_right_form_alone_is_a_left_identity() -> None:
    right, update = spectrum_of(gram(4)), drawn(3, 4)
    gains = torch.linspace(0, 1, 4).double()[None]
    ones = torch.eye(3).double()
    torch.testing.assert_close(
        filtered(update, gains, right.basis),
        filtered(update, gains.expand(3, 4), right.basis, ones),
    )


def test_filtered_thin_leaves_what_is_not_listed() -> None:
    spectrum, update = truncated(spectrum_of(gram(6)), 2), drawn(1, 6)
    assert spectrum.values.tolist() == sorted(spectrum.values.tolist(), reverse=True)
    stopped = filtered_thin(update, torch.zeros(2).double(), spectrum.basis)
    torch.testing.assert_close(stopped, update - update @ spectrum.basis @ spectrum.basis.T)
    assert torch.equal(filtered_thin(update, torch.ones(2).double(), spectrum.basis), update)


def test_linear_readout_is_kept_exactly() -> None:
    """A readout that is linear in its prompts, of images that span less than all directions."""
    jacobians = drawn(5, 2, 24)  # images, readout, prompts: 10 of 24 directions are felt
    rows = jacobians.flatten(0, 1)
    spectrum = spectrum_of(rows.T @ rows)
    gains = least_felt(spectrum.values, 14).double()
    step = filtered_thin(drawn(1, 24), gains, spectrum.basis)
    assert float(step.norm()) > 1
    assert float((jacobians @ step[0]).abs().max()) < 1e-10
    allowed = least_felt(spectrum.values, 15).double()  # one direction more than is free
    assert (
        float((jacobians @ filtered_thin(drawn(1, 24), allowed, spectrum.basis)[0]).norm()) > 1e-3
    )


def test_evenly_spaced() -> None:
    assert evenly_spaced(5, 9) == [0, 1, 2, 3, 4]
    assert evenly_spaced(10, 4) == [0, 3, 6, 9]
    assert evenly_spaced(0, 4) == []
