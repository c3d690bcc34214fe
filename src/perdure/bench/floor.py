"""Floor of a training step: counted floating-point operations over the best measured rate.

Counted are the plain backbone's forward and its activation-backward (no weight gradients), and M
prompts per block as keys and values. The rate is that of the block's own four linear layers at the
same number of rows in the same precision, the best of several runs: no step that has to do the
counted work with these layers can be faster than floor, except by leaving counted work out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perdure.types import BackboneSpec


@dataclass(frozen=True)
class Shape:
    """Sizes of a backbone that determine its operations.

    Attributes:
        dim: token width D.
        hidden: width of the MLP.
        blocks: number of blocks.
        tokens: prefix and image tokens per image.
        patches: image tokens.
        patch_values: values of one patch (3 · side²).
        prompts: prompt vectors per block.
    """

    dim: int
    hidden: int
    blocks: int
    tokens: int
    patches: int
    patch_values: int
    prompts: int

    @classmethod
    def of(cls, spec: BackboneSpec, hidden: int, patch: int, prompts: int) -> Shape:
        """Read the sizes off a backbone."""
        tokens = spec.prefix_tokens + spec.patches
        return cls(spec.dim, hidden, spec.blocks, tokens, spec.patches, 3 * patch**2, prompts)

    @property
    def linear_weights(self) -> int:
        """Weights of a block's four linear layers."""
        return 4 * self.dim**2 + 2 * self.dim * self.hidden

    def forward_flops(self, images: int) -> int:
        """Multiply-adds count as two: patch embedding, linear layers, attention products."""
        linear = 2 * self.tokens * self.linear_weights
        attention = 2 * 2 * self.tokens**2 * self.dim
        embedding = 2 * self.patches * self.patch_values * self.dim
        return images * (self.blocks * (linear + attention) + embedding)

    def backward_flops(self, images: int) -> int:
        """Gradients of activations only: each linear layer once, each attention product twice."""
        linear = 2 * self.tokens * self.linear_weights
        attention = 2 * 2 * 2 * self.tokens**2 * self.dim
        return images * self.blocks * (linear + attention)

    def prompt_flops(self, images: int) -> int:
        """M prompts as keys and values of every block: once per step, attended to by every token."""
        projected = 2 * self.prompts * 2 * self.dim**2
        attended = images * 2 * 2 * self.tokens * self.prompts * self.dim
        return self.blocks * (2 * projected + 3 * attended)

    def step_flops(self, images: int) -> int:
        """Forward, activation-backward and prompts of one training step."""
        return self.forward_flops(images) + self.backward_flops(images) + self.prompt_flops(images)


class LinearRate:
    """Timer of a block's four linear layers on as many rows as a step has.

    Args:
        shape: sizes of the backbone.
        images: images per step.
        dtype: compute type.
        device: where to run.
    """

    def __init__(self, shape: Shape, images: int, dtype: torch.dtype, device: torch.device) -> None:
        rows, dim, hidden = images * shape.tokens, shape.dim, shape.hidden
        self._pairs: list[tuple[Tensor, Tensor]] = []
        for wide, narrow in ((3 * dim, dim), (dim, dim), (hidden, dim), (dim, hidden)):
            source = torch.randn(rows, narrow, device=device).to(dtype)
            weight = torch.randn(wide, narrow, device=device).to(dtype)
            self._pairs.append((source, weight))
        self._flops = 2 * rows * shape.linear_weights
        self._device = device
        self._shape = shape

    def __call__(self) -> float:
        """Floating-point operations per second of as many layers as the backbone has blocks."""
        synchronise(self._device)
        began = time.perf_counter()
        with torch.no_grad():
            for _ in range(self._shape.blocks):
                for source, weight in self._pairs:
                    F.linear(source, weight)
        synchronise(self._device)
        return self._shape.blocks * self._flops / (time.perf_counter() - began)


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
