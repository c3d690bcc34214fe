"""Folding: what never changes in a frozen transformer is multiplied out once, in float64, then cast.

- Quick-GELU, x·σ(1.702x), takes three passes over the widest tensor. With fc1 times 1.702 and fc2 over
  it, it is a SiLU, which takes one.
- LayerScale is a factor of the layer before it.

LayerNorm's scale stays: torch applies it in the pass that it makes anyway, so that nothing is gained,
and surveys and null-space conditions are about its output. So is nothing else folded that they see:
inputs, normalised inputs, queries, keys and attention are the unfolded model's.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers.activations import QuickGELU
from timm.layers.layer_scale import LayerScale
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from perdure.backbones.frozen import exact_device

Fold = Literal["auto", "off"]
QUICK = 1.702


class InPlaceSiLU(nn.Module):
    """x·σ(x), written over x where no gradient needs it: a second tensor of this width costs time."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return F.silu(x, inplace=not x.requires_grad)


def folded(vit: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the model with its blocks folded; it shares all tensors that folding leaves as they are.

    Args:
        vit: of timm; it is left as it is.
        dtype: compute type of the folded weights.
    """
    tensors = itertools.chain(vit.parameters(), vit.buffers())
    twin: Any = copy.deepcopy(vit, {id(tensor): tensor for tensor in tensors})
    for block in twin.blocks:
        if type(block) in (Block, EvaBlock):
            _fold_activation(block.mlp, dtype)
            _fold_scales(block, dtype)
    return twin  # type: ignore[no-any-return]


def _fold_activation(mlp: Any, dtype: torch.dtype) -> None:
    """Turn quick-GELU into a SiLU: 1.702x·σ(1.702x) / 1.702."""
    if isinstance(getattr(mlp, "act", None), QuickGELU) and isinstance(mlp.norm, nn.Identity):
        mlp.act = InPlaceSiLU()
        mlp.fc1 = _scaled(mlp.fc1, rows=QUICK, dtype=dtype)
        mlp.fc2 = _scaled(mlp.fc2, columns=1 / QUICK, dtype=dtype)


def _fold_scales(block: Any, dtype: torch.dtype) -> None:
    """Take LayerScale into the layers that it follows."""
    for branch, (part, layer) in enumerate((("attn", "proj"), ("mlp", "fc2")), start=1):
        module = getattr(block, f"ls{branch}", None)
        scale = module.gamma if isinstance(module, LayerScale) else None
        scale = getattr(block, f"gamma_{branch}", scale)
        linear = getattr(getattr(block, part), layer, None)
        if scale is None or not isinstance(linear, nn.Linear):
            continue
        setattr(getattr(block, part), layer, _scaled(linear, rows=_exact(scale), dtype=dtype))
        if module is None:
            setattr(block, f"gamma_{branch}", None)
        else:
            setattr(block, f"ls{branch}", nn.Identity())


def _exact(tensor: Tensor) -> Tensor:
    return tensor.to(exact_device(tensor.device)).double()


def _scaled(
    linear: nn.Linear, *, rows: Tensor | float = 1.0, columns: float = 1.0, dtype: torch.dtype
) -> nn.Linear:
    """The layer times a factor of its outputs and one of its inputs; weights as exact as they come."""
    device = linear.weight.device
    factor = torch.as_tensor(rows, dtype=torch.float64, device=exact_device(device))
    made = copy.copy(linear)
    made._parameters = dict(linear._parameters)
    weight = _exact(linear.weight) * factor.reshape(-1, 1) * columns
    made.weight = nn.Parameter(weight.to(dtype).to(device), requires_grad=False)
    if linear.bias is not None:
        bias = _exact(linear.bias) * factor
        made.bias = nn.Parameter(bias.to(dtype).to(device), requires_grad=False)
    return made
