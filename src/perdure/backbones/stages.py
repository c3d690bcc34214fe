"""Frozen stages: Swin and ConvNeXt, whose tokens grow fewer and wider from stage to stage."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from perdure.backbones.additions import Additions, residual_of
from perdure.backbones.anatomy import NO_CLASS_TOKEN, NO_PROJECTION, features_alone
from perdure.backbones.frozen import FrozenBackbone, check_features
from perdure.errors import BackboneError
from perdure.traits import Read
from perdure.types import BackboneSpec, BlockView, CachedTokens, Features, Observer

Change = Callable[[Float[Tensor, "b n d"]], Float[Tensor, "b n d"]]


class StageBlock(abc.ABC):
    """A block of timm in parts; tokens are a map's places, row by row.

    Args:
        block: of timm.
        before: what timm runs before it: a stage's downsampling, or nothing.
    """

    def __init__(self, block: Any, before: nn.Module) -> None:
        self.block = block
        self.before = before

    @abc.abstractmethod
    def keys(self, x: Tensor) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b h n c"]]:
        """Return the block's normalised tokens, and their keys."""

    @abc.abstractmethod
    def changed(self, x: Tensor, attention: Change | None, mlp: Change | None) -> Tensor:
        """Run the block, adding changes of its tokens before its MLP and after it."""

    @staticmethod
    @abc.abstractmethod
    def rows(x: Tensor) -> Float[Tensor, "b n d"]:
        """A map as tokens."""

    @staticmethod
    @abc.abstractmethod
    def square(tokens: Float[Tensor, "b n d"]) -> Tensor:
        """Tokens as a map."""

    def _with(self, x: Tensor, change: Change | None) -> Tensor:
        return x if change is None else x + self.square(change(self.rows(x)))


class SwinBlock(StageBlock):
    """A block of windows. A key is a linear map of its own token: windows and shifts leave it be."""

    def keys(self, x: Tensor) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b h n c"]]:
        """W_k of the tokens after norm1, per head."""
        attention, normed = self.block.attn, self.rows(self.block.norm1(x))
        width = len(attention.qkv.weight) // 3
        bias = attention.qkv.bias
        own = slice(width, 2 * width)
        keys = F.linear(normed, attention.qkv.weight[own], None if bias is None else bias[own])
        return normed, keys.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    def changed(self, x: Tensor, attention: Change | None, mlp: Change | None) -> Tensor:
        """As in a plain transformer: after the attention residual, or after the MLP's."""
        block = self.block
        x = self._with(x + block.drop_path1(block._attn(block.norm1(x))), attention)
        flat = self.rows(x)
        return self._with(self.square(flat + block.drop_path2(block.mlp(block.norm2(flat)))), mlp)

    @staticmethod
    def rows(x: Float[Tensor, "b s s d"]) -> Float[Tensor, "b n d"]:
        """Places of channels-last maps."""
        return x.flatten(1, 2)

    @staticmethod
    def square(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b s s d"]:
        """A channels-last map."""
        square: Tensor = tokens.unflatten(1, (side(tokens.shape[1]), -1))
        return square


class ConvNeXtBlock(StageBlock):
    """A block of convolutions. In place of keys stand its features after convolution and norm.

    It has one residual, so that both places of an addition are after it.
    """

    def keys(self, x: Tensor) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b h n c"]]:
        """The features that its MLP sees, twice: as tokens and as the keys of one head."""
        mixed = self.block.conv_dw(x)
        first = self.block.use_conv_mlp
        normed = self.block.norm(mixed) if first else self.block.norm(mixed.permute(0, 2, 3, 1))
        tokens = self.rows(normed) if first else normed.flatten(1, 2)
        return tokens, tokens[:, None]

    def changed(self, x: Tensor, attention: Change | None, mlp: Change | None) -> Tensor:
        """After the residual."""
        return self._with(self._with(self.block(x), attention), mlp)

    @staticmethod
    def rows(x: Float[Tensor, "b d s s"]) -> Float[Tensor, "b n d"]:
        """Places of channels-first maps."""
        return x.flatten(2).transpose(1, 2)

    @staticmethod
    def square(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b d s s"]:
        """A channels-first map."""
        square: Tensor = tokens.transpose(1, 2).unflatten(2, (side(tokens.shape[1]), -1))
        return square


KINDS: dict[type[nn.Module], tuple[type[StageBlock], str, str]] = {
    SwinTransformer: (
        SwinBlock,
        "layers",
        "it attends within windows that shift, and a prompt would have to join each",
    ),
    ConvNeXt: (ConvNeXtBlock, "stages", "it has no attention that prompts could join"),
}
"""Per model: its blocks, timm's name of its stages, and why it takes no prompts."""


class FrozenStages(FrozenBackbone):
    """Stages of blocks on maps of tokens. The mean of the last map stands for a class token."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(model, **options)
        self._blocks = blocks_of(self._model)

    @staticmethod
    def describe(model: Any, name: str, img_size: int) -> BackboneSpec:
        """Return the spec: as of a model that gives features, and of its blocks' sizes.

        Raises:
            BackboneError: the model is of another family.
        """
        if type(model) not in KINDS:
            raise BackboneError(f"'{name}' is a {type(model).__name__}, not a Swin or ConvNeXt.")
        check_features(model, name)
        spec = features_alone(name, model.head_hidden_size, KINDS[type(model)][2])
        closed = {what: why for what, why in spec.lacks.items() if what not in ("tokens", "keys")}
        sizes = block_sizes(model, img_size)
        return replace(
            spec,
            blocks=len(sizes),
            patches=sizes[-1][1],
            block_sizes=sizes,
            lacks={**closed, "class_attention": NO_CLASS_TOKEN, "projection": NO_PROJECTION},
        )

    def features_of(
        self,
        images: Float[Tensor, "b 3 s s"] | CachedTokens,
        additions: Additions,
        wanted: frozenset[Read],
        observer: Observer | None,
    ) -> Features:
        """Run stem and blocks."""
        penalties, records = dict(additions.penalties), dict(additions.records)
        start = images.block if isinstance(images, CachedTokens) else 0
        if isinstance(images, CachedTokens):
            x = self._blocks[start].square(images.tokens)
        else:
            x = self._stem(images)
        for index, block in enumerate(self._blocks[start:], start):
            if index > start or not isinstance(images, CachedTokens):
                x = block.before(x)
            residual = additions.residual.get(index)
            if observer is None and residual is None:
                x = block.block(x)
                continue
            normed, keys = block.keys(x)
            if observer is not None:
                view = BlockView(block.rows(x), normed, None, keys, None, records)
                observer.block(index, view)
            changes: dict[str, Change] = {}
            if residual is not None:
                changes[residual.where] = functools.partial(
                    residual_of, residual.fn, keys=keys, penalties=penalties, records=records
                )
            x = block.changed(x, changes.get("attention"), changes.get("mlp"))
        return self._features(x, wanted, penalties, records)

    @torch.no_grad()
    def advance(self, images: Float[Tensor, "b 3 s s"], block: int) -> CachedTokens:
        """Run what comes before ``block``, downsampling included."""
        x = self._stem(images)
        for one in self._blocks[:block]:
            x = one.block(one.before(x))
        return CachedTokens(self._blocks[block].rows(self._blocks[block].before(x)), block)

    def _stem(self, images: Tensor) -> Tensor:
        model = self._model
        stem = model.patch_embed if isinstance(model, SwinTransformer) else model.stem
        x: Tensor = stem(images.to(self.dtype))
        return x

    def _features(
        self,
        x: Tensor,
        wanted: frozenset[Read],
        penalties: dict[str, Tensor],
        records: dict[str, Tensor],
    ) -> Features:
        model, last = self._model, self._blocks[-1]
        x = model.norm(x) if isinstance(model, SwinTransformer) else model.norm_pre(x)
        cls = model.forward_head(x, pre_logits=True) if "cls" in wanted else None
        tokens = None
        if "tokens" in wanted:
            # ConvNeXt normalises after pooling; its tokens get that norm as well.
            after = getattr(model.head, "norm", None)
            tokens = last.rows(x if after is None else after(x)).float()
        return Features(
            cls=None if cls is None else cls.float(),
            tokens=tokens,
            penalties=penalties,
            records=records,
        )


def side(count: int) -> int:
    """Side of a square of so many tokens."""
    return math.isqrt(count)


def blocks_of(model: Any) -> list[StageBlock]:
    """All blocks, each with what comes before it."""
    kind, stages, _ = KINDS[type(model)]
    return [
        kind(block, stage.downsample if place == 0 else nn.Identity())
        for stage in getattr(model, stages)
        for place, block in enumerate(stage.blocks)
    ]


@torch.no_grad()
def block_sizes(model: Any, img_size: int) -> tuple[tuple[int, int], ...]:
    """Width and number of tokens of every block, found by running what changes them alone."""
    weight = next(model.parameters())
    images = torch.zeros(1, 3, img_size, img_size, device=weight.device, dtype=weight.dtype)
    x = (model.patch_embed if isinstance(model, SwinTransformer) else model.stem)(images)
    sizes = []
    for block in blocks_of(model):
        x = block.before(x)
        rows = block.rows(x)
        sizes.append((rows.shape[2], rows.shape[1]))
    return tuple(sizes)
