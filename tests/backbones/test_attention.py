"""Attention kernels give the same within rounding, and ``auto`` chooses by machine and type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from perdure.backbones import attention
from perdure.backbones.attention import KERNELS, attend, choose_kernel, faster_kernel
from perdure.backbones.catalog import create_backbone
from perdure.errors import UnknownNameError
from perdure.types import BackboneSpec

CPU = torch.device("cpu")
SPEC = BackboneSpec("toy", 8, 2, 1, prefix_tokens=1, has_class_token=True, patches=4, norm_eps=1e-6)


def choose(wanted: str, dtype: torch.dtype = torch.bfloat16, device: torch.device = CPU) -> str:
    return choose_kernel(wanted, dtype, device, SPEC)


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A CPU with bf16 units, on which products are found to be faster; what was timed."""
    timed: list[str] = []

    def timing(*sizes: object) -> str:
        timed.append(str(sizes))
        return "products"

    monkeypatch.setenv("PERDURE_HOME", str(tmp_path))
    monkeypatch.setattr(attention, "bf16_units", lambda: True)
    monkeypatch.setattr(attention, "faster_kernel", timing)
    return timed


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.bfloat16, 2e-2)])
def test_kernels_agree_on_outputs_weights_and_gradients(
    dtype: torch.dtype, tolerance: float
) -> None:
    random = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 7, 8), (2, 3, 10, 8), (2, 3, 10, 8)]
    inputs = [torch.randn(s, generator=random).to(dtype).requires_grad_() for s in shapes]
    results = {}
    for kernel in KERNELS:
        output, weights = attend(*inputs, kernel, slice(7, 10))
        bare, nothing = attend(*inputs, kernel)
        assert weights is not None
        assert nothing is None
        assert torch.allclose(output, bare, atol=tolerance)
        gradients = torch.autograd.grad(output.square().sum(), inputs)
        results[kernel] = (output, weights, *gradients)
    for fused, products in zip(*results.values(), strict=True):
        assert float((fused - products).detach().norm() / fused.detach().norm()) < tolerance
    literal = (inputs[0].double() @ inputs[1].double().mT / 8**0.5).softmax(-1)
    assert torch.allclose(results["products"][1].double(), literal[..., 7:], atol=tolerance)


def test_auto_is_fused_in_float32_on_other_devices_and_where_bf16_is_emulated(
    units: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose("auto", torch.float32) == "fused"
    assert choose("auto", device=torch.device("meta")) == "fused"
    monkeypatch.setattr(attention, "bf16_units", lambda: False)
    assert choose("auto") == "fused"
    assert units == []


def test_auto_times_both_once_per_machine_type_and_size(units: list[str], tmp_path: Path) -> None:
    assert [choose("auto"), choose("auto")] == ["products", "products"]
    assert len(units) == 1
    (key,) = json.loads((tmp_path / "attention.json").read_text())
    assert "2x5x4" in key
    assert "bfloat16" in key
    assert torch.__version__ in key


@pytest.mark.parametrize("damage", ["", "[]", '{"a": 1}'])
def test_a_choice_of_another_machine_or_a_damaged_file_is_timed_anew(
    units: list[str], tmp_path: Path, damage: str
) -> None:
    (tmp_path / "attention.json").write_text(damage)
    assert choose("auto") == "products"
    assert len(units) == 1


def test_a_cache_that_cannot_be_written_costs_a_timing_only(
    units: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "file"))
    assert [choose("auto"), choose("auto")] == ["products", "products"]
    assert len(units) == 2


def test_explicit_words_are_obeyed_and_others_refused(units: list[str]) -> None:
    assert [choose("fused"), choose("products")] == ["fused", "products"]
    with pytest.raises(UnknownNameError, match=r"fussed.*Did you mean 'fused'"):
        choose("fussed")
    assert units == []


def test_timing_names_a_kernel_and_leaves_random_numbers_as_they_were() -> None:
    before = torch.get_rng_state()
    assert faster_kernel(torch.float32, 2, 5, 4) in KERNELS
    assert torch.equal(before, torch.get_rng_state())


def test_a_backbone_gives_the_same_readout_by_either_kernel_with_timms_own_bits() -> None:
    images = torch.rand(2, 3, 32, 32)
    readouts = []
    for kernel in KERNELS:
        backbone = create_backbone(
            "test_vit",
            weights="random",
            img_size=32,
            precision="fp32",
            attention=kernel,
            fold="off",
        )
        assert backbone.kernel == kernel
        assert backbone.float32.kernel == kernel
        with torch.no_grad():
            plain = backbone(images, read="all")
            vit = backbone._float32
            theirs = vit.forward_features(images)  # type: ignore[operator]
        assert plain.cls is not None
        assert torch.equal(plain.cls, theirs[:, 0])
        readouts.append(plain.cls)
    assert torch.allclose(readouts[0], readouts[1], atol=1e-5)
