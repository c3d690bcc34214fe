"""A training step of `nsp2` beside a literal one under `torch.autocast` in bf16, in turn.

The literal step does what the released program was seen to do: weights stay float32 and are cast
under autocast, prompts join the sequence as rows up to the attention of their block, attention is
two products and a softmax, every row passes every block. Written from the description, not from
the program; loss and projection are left out of it, which is in its favour.

Usage: python benchmarks/speed/autocast_step.py --batch-size 8 --pairs 5
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perdure.bench.training import TrainingStep, random_pixels, timed
from perdure.engine.build import make_backbone
from perdure.engine.config import make_config
from perdure.engine.model import Model

PROMPTS = 4


class LiteralStep:
    """Forward, backward and Adam of deep prompts and one linear head under autocast.

    Args:
        vit: timm's transformer in float32.
        pixels: normalised images.
    """

    def __init__(self, vit: Any, pixels: Tensor) -> None:
        self.vit, self.pixels = vit, pixels
        dim = vit.embed_dim
        self.prompts = nn.ParameterList(
            nn.Parameter(torch.rand(1, PROMPTS, dim) * 2 - 1) for _ in vit.blocks
        )
        self.head = nn.Linear(dim, 10)
        self.adam = torch.optim.Adam([*self.prompts, *self.head.parameters()])
        self.labels = torch.arange(len(pixels)) % 10

    def __call__(self) -> None:
        """Take one step."""
        with torch.autocast("cpu", torch.bfloat16):
            x = self.vit.norm_pre(self.vit._pos_embed(self.vit.patch_embed(self.pixels)))
            for block, prompts in zip(self.vit.blocks, self.prompts, strict=True):
                x = self.block(block, x, prompts)
            loss = F.cross_entropy(self.head(self.vit.norm(x)[:, 0]), self.labels)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()

    def block(self, block: Any, x: Tensor, prompts: Tensor) -> Tensor:
        """One block; what the prompts' rows give is dropped behind the attention."""
        count, heads = x.shape[1], block.attn.num_heads
        z = torch.cat([x, prompts.expand(len(x), -1, -1)], dim=1)
        q, k, v = block.attn.qkv(block.norm1(z)).unflatten(-1, (3, heads, -1)).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
        merged = (weights @ v).transpose(1, 2).flatten(2)
        x = x + block.attn.proj(merged)[:, :count]
        out: Tensor = x + block.mlp(block.norm2(x))
        return out


def main() -> None:
    """Time both in turn and print their medians and ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    keys: dict[str, Any] = {"method": "nsp2", "weights": "random", "batch_size": args.batch_size}
    keys["backbone"] = "vit_base_patch16_224.augreg_in21k"
    backbone = make_backbone(make_config({**keys, "precision": "fp32", "fold": "off"}))
    pixels = random_pixels(backbone, args.batch_size)
    config = make_config({**keys, "precision": "bf16"})
    ours = TrainingStep(Model(make_backbone(config), config), pixels)
    theirs = LiteralStep(backbone._float32, backbone.normalise(pixels))
    seconds = timed({"autocast": theirs, "ours": ours}, args.pairs, backbone.device)
    pairs = [a / b for a, b in zip(*seconds.values(), strict=True)]
    for name, taken in seconds.items():
        print(f"{name}: {statistics.median(taken):.3f} s")
    print(f"autocast / ours: {statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})")


if __name__ == "__main__":
    main()
