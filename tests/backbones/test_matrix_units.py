"""What matrix units compute is what the plain operators do, forward and backward."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perdure.backbones import matrix_units, vit
from perdure.backbones.additions import Additions
from perdure.backbones.attention import attend
from perdure.backbones.matrix_units import (
    FrozenLinear,
    for_units,
    freeze_layers,
    linear,
    products,
)
from perdure.backbones.vit import FrozenViT
from perdure.bench.cost import count_flops
from perdure.traits import Read
from tests.reference.small_vits import SMALL, error, images, small_vit

CPU = torch.device("cpu")
NARROW = for_units(torch.bfloat16, CPU)
TYPES = [(torch.float32, 1e-6), *([(torch.bfloat16, 2e-2)] if NARROW else [])]
"""Types with what rounding may do to a result; bf16 where this CPU has units for it."""
needs_operator = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="a torch without the operator"
)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def agree(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], tolerance: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        assert error(one.detach().float(), other.detach().float()) < tolerance


@needs_operator
@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
@pytest.mark.parametrize("rows", [(5,), (2, 5)])
def test_linear_is_torchs_with_its_gradient(
    dtype: torch.dtype, tolerance: float, rows: tuple[int, ...]
) -> None:
    x, weight, bias = (drawn(*s, dtype=dtype) for s in ((*rows, 8), (6, 8), (6,)))
    x.requires_grad_()
    ours, theirs = linear(x, weight, bias), F.linear(x, weight, bias)
    coming = drawn(*rows, 6, dtype=dtype)
    gradients = [torch.autograd.grad(out, x, coming)[0] for out in (ours, theirs)]
    agree((ours, gradients[0]), (theirs, gradients[1]), tolerance)
    assert count_flops(lambda: linear(x, weight, bias)) == 2 * 6 * 8 * x[..., 0].numel()


@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
def test_products_are_attention_with_its_gradients(dtype: torch.dtype, tolerance: float) -> None:
    shapes = ((2, 3, 7, 8), (2, 3, 10, 8), (2, 3, 10, 8))
    inputs = [drawn(*shape, dtype=dtype).requires_grad_() for shape in shapes]
    coming, results = drawn(2, 3, 7, 8, dtype=dtype), []
    for out in (products(*inputs), attend(*inputs, "products")[0]):
        results.append((out, *torch.autograd.grad(out, inputs, coming)))
    agree(*results, tolerance)


def test_only_plain_linear_layers_are_frozen() -> None:
    class Other(nn.Linear): ...

    module = nn.Sequential(nn.Linear(2, 2), Other(2, 2))
    freeze_layers(module)
    assert [type(part) for part in module] == [FrozenLinear, Other]


@needs_operator
@pytest.mark.parametrize("kind", SMALL)
def test_a_backbone_on_units_gives_the_plain_ones_rows_and_gradients(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    reads: tuple[frozenset[Read], ...] = (
        frozenset({"cls"}),
        frozenset({"cls", "tokens", "cls_attention"}),
    )
    for units in (False, True):
        monkeypatch.setattr(vit, "for_units", lambda *_, units=units: units)
        plain_vit = copy.deepcopy(small_vit(kind))
        if units:
            freeze_layers(plain_vit)
        backbone = FrozenViT(plain_vit, name=kind, attention="products")
        dim = backbone.spec.dim
        tokens, keys, values, joined = (
            drawn(*shape, dim).requires_grad_() for shape in ((1, 4), (3, 4), (3, 4), (1, 4))
        )
        added = (
            Additions(tokens={0: tokens, 2: tokens}, prefix={2: (keys, keys)}),
            Additions(tokens={1: tokens}, prefix={0: (values, values)}, input=joined),
        )
        rows = []
        for addition in added:
            for read in reads:
                features = backbone(images()[:3], addition, read)
                rows += [getattr(features, name) for name in sorted(read)]
        total = sum(row.square().sum() for row in rows)
        gradients = torch.autograd.grad(total, (tokens, keys, values, joined))
        plain = backbone(images()[:3], read="all")
        results.append((*rows, *gradients, plain.cls, plain.tokens))
    agree(*results, 1e-5)


def test_units_are_for_bf16_on_a_cpu_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_units, "bf16_units", lambda: True)
    assert not for_units(torch.float32, CPU)
    assert not for_units(torch.bfloat16, torch.device("meta"))
    monkeypatch.setattr(matrix_units, "bf16_units", lambda: False)
    assert not for_units(torch.bfloat16, CPU)
