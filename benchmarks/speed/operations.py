"""What predicting costs beside the plain backbone, in operations counted as they run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from perdure.backbones.frozen import FrozenBackbone
from perdure.bench.cost import count_flops
from perdure.bench.training import random_pixels
from perdure.engine.model import Model
from perdure.heads import HEADS
from perdure.methods import METHODS
from perdure.methods.iprompt import IPrompt
from perdure.types import Features


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one image, multiply-adds as two, heads left out.

    Attributes:
        method: its name.
        plain: counted in the plain backbone, read where the method reads it.
        prompts: worked out: what the prompts' keys and values, or a pool matched inside, add.
        method_total: counted in the model's own forward.
    """

    method: str
    plain: int
    prompts: int
    method_total: int

    @property
    def ratio(self) -> float:
        """The model's forward over what it may cost."""
        return self.method_total / (self.plain + self.prompts)


def single_pass_methods(projection: bool = True) -> tuple[str, ...]:
    """Methods that look at an image once; without ``projection``, those that need none."""

    def guided(name: str) -> bool:
        traits = METHODS[name].traits
        heads = (*traits.heads, *((traits.trained_head,) if traits.trains else ()))
        return any(HEADS[head].needs_projection for head in heads)

    return tuple(
        name
        for name in METHODS
        if not METHODS[name].traits.needs_query and (projection or not guided(name))
    )


@torch.no_grad()
def inference_operations(model: Model) -> Operations:
    """Count the operations of one image's forward, and of the plain backbone's.

    Args:
        model: model of a method that looks at an image once; it need not have learned anything.
    """
    backbone, method = model.backbone, model.method
    image = random_pixels(backbone, 1)
    pixels = backbone.normalise(image)
    read = method.rows_read(model.config.method, backbone.spec)
    return Operations(
        method=model.config.training.method,
        plain=count_flops(lambda: backbone(pixels, None, read)),
        prompts=_prompt_flops(model, backbone(pixels, None, read)),
        method_total=count_flops(lambda: model.forward(image)),
    )


def _prompt_flops(model: Model, plain: Features) -> int:
    """What prompts add, from their numbers and the backbone's sizes.

    p prompts as keys and values of a block: 2 · p · D · 2D to project them, and 2 · 2 · n · p · D
    for the queries of n rows to attend to them; in the last block only the rows that are read have
    queries. A pool of p keys and prompts matched to n image tokens: 2 · n · p · D to match, as much to
    add; and 2 · n · D for the weighted mean of the tokens that is classified.
    """
    backbone: FrozenBackbone = model.backbone
    spec = backbone.spec
    added = model.method.additions(None, None)
    every = spec.prefix_tokens + spec.patches
    total = 0
    for block, tokens in added.tokens.items():
        cut = block == spec.blocks - 1 and plain.tokens is None and spec.has_class_token
        rows, count = 1 if cut else every, tokens.shape[1]
        total += 2 * count * spec.dim * 2 * spec.dim + 2 * 2 * rows * count * spec.dim
    if isinstance(model.method, IPrompt):
        matched = sum(len(range(every)[rows]) for rows in model.method.rows.values())
        total += 2 * 2 * matched * model.method.config.pool * spec.dim
        total += 0 if plain.tokens is None else 2 * spec.patches * spec.dim
    return total


def table(found: list[Operations]) -> str:
    """The figures as a Markdown table, in million operations of one image."""
    lines = [
        "| method | plain backbone | prompts | allowed | counted | counted / allowed |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for one in found:
        numbers = (one.plain, one.prompts, one.plain + one.prompts, one.method_total)
        cells = " | ".join(f"{number / 1e6:,.3f}" for number in numbers)
        lines.append(f"| `{one.method}` | {cells} | {one.ratio:.4f} |")
    return "\n".join(lines)
