"""A slow, literal twin of `perdure.backbones.vit`: float64, explicit softmax, a loop over heads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


@dataclass
class LiteralBlock:
    """What one block computed: inputs (b, n, d), queries (b, h, n, c), softmax weights (b, h, n, k)."""

    inputs: Tensor
    queries: Tensor
    weights: Tensor


@dataclass
class LiteralPass:
    """Rows after the final norm (b, n, d), and every block on the way."""

    rows: Tensor
    blocks: list[LiteralBlock] = field(default_factory=list)


def layer_norm(x: Tensor, norm: Any) -> Tensor:
    """(x − μ)/√(σ² + ε) ⊙ α + β."""
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def normed(x: Tensor, norm: Any) -> Tensor:
    """A norm that may be missing."""
    return x if isinstance(norm, torch.nn.Identity) else layer_norm(x, norm)


def bias_of(layer: Any) -> Tensor:
    """Its bias; 0 where it has none."""
    return layer.weight.new_zeros(()) if layer.bias is None else layer.bias


def scale_of(block: Any, branch: int) -> Any:
    """LayerScale of a block's attention (1) or MLP (2); 1 where it has none."""
    if hasattr(block, f"ls{branch}"):
        return getattr(getattr(block, f"ls{branch}"), "gamma", 1)
    scale = getattr(block, f"gamma_{branch}")
    return 1 if scale is None else scale


def literal_mlp(mlp: Any, x: Tensor) -> Tensor:
    """Two layers, or SwiGLU: W₂ norm(SiLU(W_g x) ⊙ W_x x)."""
    if hasattr(mlp, "fc1_g"):
        gate = mlp.fc1_g(x)
        return mlp.fc2(normed(gate / (1 + (-gate).exp()) * mlp.fc1_x(x), mlp.norm))
    return mlp.fc2(normed(mlp.act(mlp.fc1(x)), mlp.norm))


def softmax(scores: Tensor) -> Tensor:
    """exp(a_j) / Σ_k exp(a_k), rows shifted by their largest score."""
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


class LiteralViT:
    """The same weights as a timm transformer, in float64; none of timm's forward code.

    Args:
        vit: a timm transformer of plain pre-norm blocks; it is copied.
    """

    def __init__(self, vit: Any) -> None:
        self.vit: Any = copy.deepcopy(vit).double().requires_grad_(False)
        self.heads = self.vit.blocks[0].attn.num_heads

    def embed(self, images: Tensor) -> Tensor:
        """Patches, class and register tokens, positions."""
        vit = self.vit
        patches = vit.patch_embed.proj(images.double()).flatten(2).transpose(1, 2)
        ahead = [t for t in (vit.cls_token, vit.reg_token) if t is not None]
        front = torch.cat(ahead, dim=1).expand(len(images), -1, -1)
        if vit.pos_embed is None:
            x = torch.cat([front, patches], dim=1)
        elif vit.no_embed_class:
            x = torch.cat([front, patches + vit.pos_embed], dim=1)
        else:
            x = torch.cat([front, patches], dim=1) + vit.pos_embed
        return x if isinstance(vit.norm_pre, torch.nn.Identity) else layer_norm(x, vit.norm_pre)

    def qkv(self, index: int, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (…, d), heads one after another."""
        attn = self.vit.blocks[index].attn
        if attn.qkv is None:
            layers = (attn.q_proj, attn.k_proj, attn.v_proj)
            parts = [normed @ layer.weight.T + bias_of(layer) for layer in layers]
        else:
            parts = list((normed @ attn.qkv.weight.T + bias_of(attn.qkv)).chunk(3, dim=-1))
        if getattr(attn, "q_bias", None) is not None:  # EVA's keys have none
            parts = [parts[0] + attn.q_bias, parts[1], parts[2] + attn.v_bias]
        return parts[0], parts[1], parts[2]

    def turned(self, index: int, head: int, x: Tensor) -> Tensor:
        """One head's queries or keys (b, n, c) with every image token's pairs turned by its angles."""
        vit = self.vit
        if getattr(vit, "rope", None) is None:
            return x
        rope = vit.rope.get_embed()
        rope = rope[index][head] if vit.rope_mixed else rope
        sines, cosines = rope.double().chunk(2, dim=-1)
        out, first, width = x.clone(), vit.num_prefix_tokens, x.shape[-1]
        half = vit.blocks[index].attn.rotate_half
        pairs = [(i, i + width // 2) if half else (2 * i, 2 * i + 1) for i in range(width // 2)]
        for place in range(vit.patch_embed.num_patches):
            row = x[:, first + place]
            for one, two in pairs:
                sin, cos = sines[place, one], cosines[place, one]
                out[:, first + place, one] = row[:, one] * cos - row[:, two] * sin
                out[:, first + place, two] = row[:, two] * cos + row[:, one] * sin
        return out

    def forward(
        self,
        images: Tensor,
        *,
        tokens: Mapping[int, Tensor] | None = None,
        prefix: Mapping[int, Pair] | None = None,
        extra: Tensor | None = None,
        residual: Mapping[int, tuple[str, Callable[[Tensor, Tensor], Tensor]]] | None = None,
    ) -> LiteralPass:
        """Run all blocks on all rows with what is added.

        Args:
            images: normalised images.
            tokens: per block, prompts (1|b, p, d) that are normed and join keys and values.
            prefix: per block, raw keys and values.
            extra: tokens that join the sequence once.
            residual: per block, where (``attention`` or ``mlp``) and the change of the tokens.
        """
        x = self.embed(images)
        if extra is not None:
            x = torch.cat([x, extra.double().expand(len(x), -1, -1)], dim=1)
        passed = LiteralPass(x)
        for index in range(len(self.vit.blocks)):
            change = (residual or {}).get(index)
            prompts = (tokens or {}).get(index)
            x = self._block(index, x, prompts, (prefix or {}).get(index), change, passed)
        passed.rows = layer_norm(x, self.vit.norm)
        return passed

    def _block(
        self,
        index: int,
        x: Tensor,
        prompts: Tensor | None,
        raw: Pair | None,
        change: tuple[str, Callable[[Tensor, Tensor], Tensor]] | None,
        passed: LiteralPass,
    ) -> Tensor:
        block = self.vit.blocks[index]
        inputs, count = x, x.shape[1]
        # Z = [X; P]: prompts are rows like any other, up to the attention
        z = x if prompts is None else torch.cat([x, prompts.double().expand(len(x), -1, -1)], dim=1)
        queries, keys, values = self.qkv(index, layer_norm(z, block.norm1))
        queries = queries[:, :count]
        if raw is not None:
            more_keys, more_values = (part.double().expand(len(x), -1, -1) for part in raw)
            keys, values = (
                torch.cat([keys, more_keys], dim=1),
                torch.cat([values, more_values], dim=1),
            )
        width = x.shape[-1] // self.heads
        outputs, weights, split, own = [], [], [], []
        attn = block.attn
        for head in range(self.heads):
            part = slice(head * width, (head + 1) * width)
            q, k, v = normed(queries[..., part], attn.q_norm), keys[..., part], values[..., part]
            k = normed(k, attn.k_norm)
            own.append(k[:, :count])
            q, k = self.turned(index, head, q), self.turned(index, head, k)
            shares = softmax(q @ k.transpose(1, 2) / width**0.5)
            outputs.append(shares @ v)
            weights.append(shares)
            split.append(q)
        passed.blocks.append(LiteralBlock(inputs, torch.stack(split, 1), torch.stack(weights, 1)))
        own_keys = torch.cat(own, dim=-1)
        merged = attn.proj(normed(torch.cat(outputs, dim=-1), attn.norm))
        x = x + scale_of(block, 1) * merged
        if change is not None and change[0] == "attention":
            x = x + change[1](x, own_keys)
        x = x + scale_of(block, 2) * literal_mlp(block.mlp, layer_norm(x, block.norm2))
        if change is not None and change[0] == "mlp":
            x = x + change[1](x, own_keys)
        return x
