"""Floor of a training step: counted floating-point operations over the best measured rate.

Counted are the plain backbone's forward and its activation-backward (no weight gradients), and M
prompts per block as keys and values. The rate is that of the block's own four linear layers at the
same number of rows in the same precision, the best of several runs: no step that has to do the
counted work with these layers can be faster than floor, except by leaving counted work out.
"""

from __future__ import annotations

from collections.abc import Callable
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

    def linear_flops(self, images: int) -> int:
        """Operations of all linear layers, forward; multiply-adds count as two."""
        return images * self.blocks * 2 * self.tokens * self.linear_weights

    def forward_flops(self, images: int) -> int:
        """Operations of patch embedding, linear layers and attention products."""
        attention = self.blocks * 2 * 2 * self.tokens**2 * self.dim
        embedding = 2 * self.patches * self.patch_values * self.dim
        return self.linear_flops(images) + images * (attention + embedding)

    def backward_flops(self, images: int) -> int:
        """Gradients of activations only: each linear layer once, each attention product twice."""
        attention = self.blocks * 2 * 2 * 2 * self.tokens**2 * self.dim
        return self.linear_flops(images) + images * attention

    def prompt_flops(self, images: int) -> int:
        """M prompts as keys and values of every block: once per step, attended to by every token."""
        projected = 2 * self.prompts * 2 * self.dim**2
        attended = images * 2 * 2 * self.tokens * self.prompts * self.dim
        return self.blocks * (2 * projected + 3 * attended)

    def step_flops(self, images: int) -> int:
        """Forward, activation-backward and prompts of one training step."""
        return self.forward_flops(images) + self.backward_flops(images) + self.prompt_flops(images)


def linear_layers(
    shape: Shape, images: int, dtype: torch.dtype, device: torch.device
) -> Callable[[], None]:
    """Return what runs the four linear layers of every block on as many rows as a step has."""
    rows, dim, hidden = images * shape.tokens, shape.dim, shape.hidden
    pairs: list[tuple[Tensor, Tensor]] = []
    for wide, narrow in ((3 * dim, dim), (dim, dim), (hidden, dim), (dim, hidden)):
        source = torch.randn(rows, narrow, device=device).to(dtype)
        weight = torch.randn(wide, narrow, device=device).to(dtype)
        pairs.append((source, weight))

    @torch.no_grad()
    def run() -> None:
        for _ in range(shape.blocks):
            for source, weight in pairs:
                F.linear(source, weight)

    return run
