"""Attention block taken apart: a pre-norm block of timm, so that keys and values can join it.

What differs between blocks (one matrix for queries, keys and values or three; norms of queries and
keys; rotation; gates; LayerScale) is read off timm's modules here and nowhere else. A block of
another kind that has these parts is one more type in `BLOCKS` or `ATTENTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.attention import Attention, AttentionRope
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import EvaAttention, EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from perdure.backbones.matrix_units import FrozenLinear, linear

BLOCKS = (Block, EvaBlock)
ATTENTIONS = (Attention, EvaAttention, AttentionRope)


def obstacle(block: Any) -> str | None:
    """Return why no key and value can join this block; None where they can."""
    if type(block) not in BLOCKS:
        return f"is a {type(block).__name__}, not a plain pre-norm block"
    attention = block.attn
    if type(attention) not in ATTENTIONS:
        return f"attends with {type(attention).__name__}"
    if getattr(attention, "num_kv_groups", 1) > 1:
        return "shares keys among heads (grouped queries)"
    if attention.head_dim * attention.num_heads != attention.proj.out_features:
        return "has keys of another width than tokens"
    return None


def nonlinear(block: Any) -> str | None:
    """Return why keys are no linear map of a LayerNorm's output; None where they are."""
    if not isinstance(block.attn.k_norm, nn.Identity):
        return "normalises queries and keys (qk-norm)"
    if not isinstance(block.norm1, nn.LayerNorm):
        return f"uses {type(block.norm1).__name__} instead of LayerNorm"
    return None


class AttentionBlock:
    """A block of timm in parts; it holds timm's own modules and no weight of its own.

    Args:
        block: one that has no `obstacle`.
    """

    def __init__(self, block: Any) -> None:
        self._block = block
        self._attention = block.attn
        self.heads: tuple[int, int] = (block.attn.num_heads, block.attn.head_dim)
        self.norm1: Callable[[Tensor], Tensor] = block.norm1
        self.key_norm: Callable[[Tensor], Tensor] = block.attn.k_norm
        # A layer for bf16 units is that in parts too.
        units = isinstance(block.attn.qkv, FrozenLinear)
        self._linear: Callable[..., Tensor] = linear if units else F.linear
        self._half = getattr(block.attn, "rotate_half", False)
        self._first = getattr(block.attn, "num_prefix_tokens", 0)

    @property
    def key_weight(self) -> Float[Tensor, "d d"]:
        """W_k as stored."""
        attention, dim = self._attention, self.heads[0] * self.heads[1]
        if attention.qkv is None:
            stored: Tensor = attention.k_proj.weight
            return stored
        part: Tensor = attention.qkv.weight[dim : 2 * dim]
        return part

    def queries_keys_values(
        self, normed: Float[Tensor, "b n d"], rows: Float[Tensor, "b q d"] | None
    ) -> tuple[Float[Tensor, "b q h c"], Float[Tensor, "b n h c"], Float[Tensor, "b n h c"]]:
        """Return queries of the rows, of all tokens where None; keys and values of all tokens."""
        attention = self._attention
        if attention.qkv is None:
            source = normed if rows is None else rows
            queries = attention.q_proj(source).unflatten(-1, self.heads)
            keys, values = self._split_keys_values(normed)
        elif rows is None:
            bias = self._bias()
            every = self._linear(normed, attention.qkv.weight, bias).unflatten(-1, (3, *self.heads))
            queries, keys, values = every.unbind(2)
        else:
            weight, bias = attention.qkv.weight, self._bias()
            dim = len(weight) // 3
            low = None if bias is None else bias[:dim]
            queries = self._linear(rows, weight[:dim], low).unflatten(-1, self.heads)
            keys, values = self._keys_values(normed)
        return attention.q_norm(queries), attention.k_norm(keys), values

    def prompt_pair(
        self, tokens: Float[Tensor, "_ p d"]
    ) -> tuple[Float[Tensor, "_ p d"], Float[Tensor, "_ p d"]]:
        """Return keys, before their norm, and values of prompt tokens, heads concatenated."""
        keys, values = self._keys_values(self.norm1(tokens))
        return keys.flatten(2), values.flatten(2)

    def rotate(
        self, heads: Float[Tensor, "b h n c"], rope: Float[Tensor, "*h p e"] | None
    ) -> Float[Tensor, "b h n c"]:
        """Rotate image tokens by their places; what has none (class token, prompts) stays."""
        if rope is None:
            return heads
        end = self._first + rope.shape[-2]
        turned = apply_rot_embed_cat(heads[:, :, self._first : end], rope, half=self._half)
        parts = [heads[:, :, : self._first], turned.type_as(heads), heads[:, :, end:]]
        return torch.cat(parts, dim=2)

    def attention_branch(
        self, attended: Float[Tensor, "b n d"], normed: Callable[[], Float[Tensor, "b n d"]]
    ) -> Float[Tensor, "b n d"]:
        """Return what attention adds to tokens, from the attended values of all heads.

        Args:
            attended: heads concatenated.
            normed: gives the same rows of the block's normalised input, which a gate looks at.
        """
        attention, block = self._attention, self._block
        x = attention.norm(attended)
        if attention.gate is not None:
            x = x * attention.gate(normed()).sigmoid()
        x = attention.proj_drop(attention.proj(x))
        return self._scaled(x, "ls1", "gamma_1", block.drop_path1)

    def mlp_branch(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return what the MLP adds to tokens."""
        block = self._block
        return self._scaled(block.mlp(block.norm2(x)), "ls2", "gamma_2", block.drop_path2)

    def _scaled(
        self, x: Tensor, module: str, scale: str, drop: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """LayerScale as timm has it: a module, or a factor that may be missing."""
        if hasattr(self._block, module):
            return drop(getattr(self._block, module)(x))
        factor = getattr(self._block, scale)
        return drop(x if factor is None else factor * x)

    def _keys_values(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        if self._attention.qkv is None:
            return self._split_keys_values(normed)
        weight, bias = self._attention.qkv.weight, self._bias()
        dim = len(weight) // 3
        high = None if bias is None else bias[dim:]
        keys, values = (
            self._linear(normed, weight[dim:], high).unflatten(-1, (2, *self.heads)).unbind(2)
        )
        return keys, values

    def _split_keys_values(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        attention = self._attention
        keys, values = attention.k_proj(normed), attention.v_proj(normed)
        return keys.unflatten(-1, self.heads), values.unflatten(-1, self.heads)

    def _bias(self) -> Tensor | None:
        """Of the matrix for all three; EVA keeps it in parts, without one for keys."""
        attention = self._attention
        if not hasattr(attention, "q_bias"):
            own: Tensor | None = attention.qkv.bias
            return own
        if attention.q_bias is None:
            return None
        return torch.cat((attention.q_bias, attention.k_bias, attention.v_bias))
