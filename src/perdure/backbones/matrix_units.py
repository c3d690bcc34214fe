"""Frozen layers and attention as a CPU with bf16 matrix units computes them fastest.

Nothing here is trained but what enters, so no gradient of a weight is ever made. The plain
operators that these stand for are `torch.nn.functional.linear` and `perdure.backbones.attention`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from perdure.backbones.attention import bf16_units


def for_units(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether this computation runs on bf16 units of a CPU, and torch has the operator they need."""
    return (
        dtype == torch.bfloat16
        and device.type == "cpu"
        and bf16_units()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def linear(
    x: Float[Tensor, "*b n"], weight: Float[Tensor, "m n"], bias: Float[Tensor, "m"] | None
) -> Float[Tensor, "*b m"]:
    """Linear layer x Wᵀ + b of frozen weights, the bias added before rounding to bf16.

    `torch.nn.functional.linear` writes the bias into the result first and multiplies on top of it,
    which costs about as much as a quarter of the product.
    """
    if bias is None or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    out: Tensor = _Linear.apply(x, weight, bias)
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad @ ctx.saved_tensors[0], None, None


class FrozenLinear(nn.Linear):
    """Linear layer that is never trained."""

    def forward(self, input: Tensor) -> Tensor:
        """See `linear`."""
        return linear(input, self.weight, self.bias)


def freeze_layers(module: nn.Module) -> None:
    """Make every plain linear layer within a `FrozenLinear`, its tensors as they are."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = FrozenLinear


def products(
    queries: Float[Tensor, "b h q c"],
    keys: Float[Tensor, "b h k c"],
    values: Float[Tensor, "b h k c"],
) -> Float[Tensor, "b h q c"]:
    """Softmax attention softmax(QKᵀ/√c) V as two products, the scale within the first."""
    out: Tensor = _Products.apply(queries, keys, values)
    return out


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        ctx.scale, ctx.heads = queries.shape[-1] ** -0.5, queries.shape[:2]
        q, k, v = (part.flatten(0, 1) for part in (queries, keys, values))
        scores = q.new_empty(len(q), q.shape[1], k.shape[1])
        torch.baddbmm(scores, q, k.mT, beta=0, alpha=ctx.scale, out=scores)
        weights = torch.softmax(scores, -1, out=scores)
        ctx.save_for_backward(q, k, v, weights)
        out: Tensor = torch.bmm(weights, v).unflatten(0, ctx.heads)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, weights = ctx.saved_tensors
        out = grad.flatten(0, 1)
        moved = torch.bmm(out, v.mT)
        torch.ops.aten._softmax_backward_data.out(
            moved, weights, -1, weights.dtype, grad_input=moved
        )
        to_q = torch.baddbmm(moved.new_empty(q.shape), moved, k, beta=0, alpha=ctx.scale)
        to_k = torch.baddbmm(moved.new_empty(k.shape), moved.mT, q, beta=0, alpha=ctx.scale)
        to_v = torch.bmm(weights.mT, out)
        heads = ctx.heads
        return to_q.unflatten(0, heads), to_k.unflatten(0, heads), to_v.unflatten(0, heads)
