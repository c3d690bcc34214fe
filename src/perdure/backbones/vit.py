"""A frozen vision transformer: a loop over timm's own attention blocks, with additions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from timm.layers.mlp import Mlp
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from perdure.backbones.additions import Additions, residual_of
from perdure.backbones.anatomy import describe
from perdure.backbones.attention import Kernel, attend
from perdure.backbones.blocks import AttentionBlock
from perdure.backbones.fold import folded
from perdure.backbones.frozen import FrozenBackbone
from perdure.backbones.matrix_units import for_units, freeze_layers, products
from perdure.errors import BackboneError
from perdure.traits import Read
from perdure.types import BackboneSpec, BlockView, CachedTokens, Features, Observer


class FrozenViT(FrozenBackbone):
    """A vision transformer of timm, plain (`VisionTransformer`) or rotary (`Eva`).

    Prompts have no place in the image, so their keys are never rotated; where image tokens are, it is
    their rotated queries that meet them.
    """

    def __init__(self, vit: nn.Module, **options: Any) -> None:
        super().__init__(vit, **options)
        plain = self.spec.has("keys")
        self._blocks = [AttentionBlock(block) for block in self._model.blocks] if plain else []
        self._rope = self._rotations()
        self._units = plain and for_units(self.dtype, self.device)

    @staticmethod
    def describe(model: Any, name: str, img_size: int) -> BackboneSpec:
        """Return the spec of a transformer.

        Raises:
            BackboneError: the model is of another family.
        """
        if not isinstance(model, VisionTransformer | Eva):
            raise BackboneError(
                f"'{name}' is a {type(model).__name__}, not a VisionTransformer or Eva of timm. "
                "`perdure.backbones.families.freeze` takes any model of timm."
            )
        return describe(model, name)

    @property
    def patch(self) -> int:
        """Side of a patch, in pixels."""
        side: int = self._model.patch_embed.patch_size[0]
        return side

    @property
    def hidden(self) -> int:
        """Width of the blocks' MLP.

        Raises:
            BackboneError: it is of another kind.
        """
        mlp = self._model.blocks[0].mlp
        if not isinstance(mlp, Mlp):
            raise BackboneError(
                f"The blocks of '{self.name}' have a {type(mlp).__name__}, not the plain MLP that a "
                "floor is counted for."
            )
        width: Any = mlp.fc1.out_features
        return int(width)

    def features_of(
        self,
        images: Float[Tensor, "b 3 s s"] | CachedTokens,
        additions: Additions,
        wanted: frozenset[Read],
        observer: Observer | None,
    ) -> Features:
        """Run the block loop."""
        start = images.block if isinstance(images, CachedTokens) else 0
        x = images.tokens if isinstance(images, CachedTokens) else self._embed(images)
        if additions.input is not None:
            x = torch.cat([x, additions.input.to(self.dtype).expand(x.shape[0], -1, -1)], dim=1)
        penalties, records = dict(additions.penalties), dict(additions.records)
        blocks = self._model.blocks
        pools = "cls" in wanted and not self.spec.has_class_token
        whole = "tokens" in wanted or pools or not self.spec.has("keys")
        rows = None if whole else _rows(wanted, additions, self.spec)
        # timm would rotate what joined the input.
        apart = observer is not None or (additions.input is not None and self._rope is not None)
        attention: Tensor | None = None
        after: list[Tensor] | None = [] if "layers" in wanted else None
        cut: tuple[slice, ...] | None = None
        for index in range(start, len(blocks)):
            last = index == len(blocks) - 1
            cut = rows if last and index not in additions.residual else None
            weigh = last and "cls_attention" in wanted
            if not apart and cut is None and not weigh and index not in additions.blocks:
                x = self._plain(index, x)
                if after is not None:
                    after.append(x[:, 0].clone())
                continue
            x, attention = self._run_block(
                index, x, additions, cut, weigh, observer, penalties, records
            )
            if after is not None:
                after.append(x[:, 0].clone())
        found = self._features(x, wanted, attention, penalties, records, cut is not None)
        if after is None:
            return found
        layers = self._model.norm(torch.stack(after, dim=1)).float()
        return dataclasses.replace(found, layers=layers)

    @torch.no_grad()
    def advance(self, images: Float[Tensor, "b 3 s s"], block: int) -> CachedTokens:
        """Run the plain blocks before ``block``, for methods that add nothing to them."""
        x = self._embed(images)
        for index in range(block):
            x = self._plain(index, x)
        return CachedTokens(x, block)

    @torch.no_grad()
    def folded(self, additions: Additions) -> Additions:
        """Return the additions with the keys and values of prompt tokens precomputed."""
        prefix = dict(additions.prefix)
        for index, tokens in additions.tokens.items():
            pair = self._blocks[index].prompt_pair(tokens.to(self.dtype))
            both = [pair, prefix[index]] if index in prefix else [pair]
            keys, values = (torch.cat(parts, dim=1) for parts in zip(*both, strict=True))
            prefix[index] = (keys, values)
        return dataclasses.replace(additions, tokens={}, prefix=prefix)

    def use_kernel(self, kernel: Kernel) -> None:
        """Compute attention by this kernel, in blocks with and without additions alike."""
        self.kernel = kernel
        for block in self._model.blocks:
            if hasattr(block, "attn") and hasattr(block.attn, "fused_attn"):
                block.attn.fused_attn = kernel == "fused"

    def _computing(self, model: nn.Module, fold: bool) -> nn.Module:
        source = folded(model, self.dtype) if fold else model
        cast = super()._computing(source, fold)
        if for_units(self.dtype, self.device):
            freeze_layers(cast)
        if isinstance(model, Eva) and isinstance(cast, Eva):
            cast.rope = model.rope  # angles need the digits
        return cast

    @torch.no_grad()
    def _rotations(self) -> list[Float[Tensor, "*h n e"]] | None:
        """Sines and cosines of every block's image tokens; None where nothing is rotated."""
        vit = self._model
        if getattr(vit, "rope", None) is None:
            return None
        image = torch.zeros(1, 3, self.img_size, self.img_size, device=self.device)
        _, rope = vit._pos_embed(vit.patch_embed(image.to(self.dtype)))
        return list(rope) if vit.rope_mixed else [rope] * self.spec.blocks

    def _embed(self, images: Tensor) -> Tensor:
        vit = self._model
        patches = vit.patch_embed(images.to(self.dtype))
        if isinstance(vit, Eva):
            x: Tensor = vit.norm_pre(vit._pos_embed(patches)[0])
        else:
            x = vit.norm_pre(vit.patch_drop(vit._pos_embed(patches)))
        return x

    def _plain(self, index: int, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """A block as timm wrote it, or the same within rounding on bf16 units."""
        if self._units:
            return self._run_block(index, x, Additions(), None, False, None, {}, {})[0]
        block = self._model.blocks[index]
        out: Tensor = block(x) if self._rope is None else block(x, rope=self._rope[index])
        return out

    def _run_block(
        self,
        index: int,
        x: Float[Tensor, "b n d"],
        additions: Additions,
        rows: tuple[slice, ...] | None,
        weigh: bool,
        observer: Observer | None,
        penalties: dict[str, Tensor],
        records: dict[str, Tensor],
    ) -> tuple[Float[Tensor, "b _ d"], Float[Tensor, "b _"] | None]:
        """One block with additions; with ``rows`` only those rows leave it."""
        block = self._blocks[index]
        rope = None if self._rope is None else self._rope[index]
        normed = block.norm1(x)
        queries, keys, values = self._attention_inputs(index, normed, additions, rows, observer)
        own_keys = keys[:, :, : x.shape[1]]
        # Rows that are cut out have no place: class token and prompts.
        queries = queries if rows is not None and observer is None else block.rotate(queries, rope)
        keys = block.rotate(keys, rope)
        marked = None
        if observer is not None and index in additions.tokens:
            marked = slice(x.shape[1], x.shape[1] + additions.tokens[index].shape[1])
        if self._units and self.kernel == "products" and marked is None:
            output, shares = products(queries, keys, values), None
        else:
            output, shares = attend(queries, keys, values, self.kernel, marked)
        if observer is not None:
            observer.block(index, BlockView(x, normed, queries, own_keys, shares, records))
            output = output if rows is None else _take(output.transpose(1, 2), rows).transpose(1, 2)
        weights = self._class_attention(queries, keys) if weigh else None
        kept = x if rows is None else _take(x, rows)
        merged = output.transpose(1, 2).reshape(kept.shape)
        x = kept + block.attention_branch(
            merged, lambda: normed if rows is None else _take(normed, rows)
        )
        residual = additions.residual.get(index)
        if residual is not None and residual.where == "attention":
            x = x + residual_of(residual.fn, x, own_keys, penalties, records)
        x = x + block.mlp_branch(x)
        if residual is not None and residual.where == "mlp":
            x = x + residual_of(residual.fn, x, own_keys, penalties, records)
        return x, weights

    def _attention_inputs(
        self,
        index: int,
        normed: Float[Tensor, "b n d"],
        additions: Additions,
        rows: tuple[slice, ...] | None,
        observer: Observer | None,
    ) -> tuple[Float[Tensor, "b h q c"], Float[Tensor, "b h k c"], Float[Tensor, "b h k c"]]:
        """Return queries of the given rows, keys and values of all tokens and additions."""
        block = self._blocks[index]
        all_rows = rows is None or observer is not None
        queries, keys, values = block.queries_keys_values(
            normed, None if all_rows or rows is None else _take(normed, rows)
        )
        more_keys, more_values = [keys], [values]
        pairs = []
        if index in additions.tokens:
            pairs.append(block.prompt_pair(additions.tokens[index].to(self.dtype)))
        if index in additions.prefix:
            pairs.append(additions.prefix[index])
        for raw_keys, raw_values in pairs:
            # shape[0] and not len(): an exported graph is for batches of any size.
            shape = (normed.shape[0], -1, -1, -1)
            each = block.key_norm(raw_keys.to(self.dtype).unflatten(-1, block.heads))
            more_keys.append(each.expand(shape))
            more_values.append(raw_values.to(self.dtype).unflatten(-1, block.heads).expand(shape))
        # Heads before tokens, so that what is joined lies as products read it.
        by_head = [[part.transpose(1, 2) for part in parts] for parts in (more_keys, more_values)]
        keys, values = (p[0] if len(p) == 1 else torch.cat(p, dim=2) for p in by_head)
        return queries.transpose(1, 2), keys, values

    def _class_attention(
        self, queries: Float[Tensor, "b h q c"], keys: Float[Tensor, "b h k c"]
    ) -> Float[Tensor, "b n"]:
        """Return the class token's attention on the image tokens, mean over heads."""
        scores = queries[:, :, :1] @ keys.transpose(-1, -2) / keys.shape[-1] ** 0.5
        weights = scores.float().softmax(dim=-1).mean(dim=1)[:, 0]
        first = self.spec.prefix_tokens
        on_patches: Tensor = weights[:, first : first + self.spec.patches]
        return on_patches

    def _features(
        self,
        x: Float[Tensor, "b n d"],
        wanted: frozenset[Read],
        attention: Tensor | None,
        penalties: Mapping[str, Tensor],
        records: Mapping[str, Tensor],
        cut: bool,
    ) -> Features:
        first, patches = self.spec.prefix_tokens, self.spec.patches
        x = self._model.norm(x)
        cls = None
        if "cls" in wanted:
            own = self.spec.has_class_token
            cls = x[:, 0] if own else self._model.forward_head(x[:, : first + patches], True)
        if not self.spec.has_class_token:
            # Where timm normalises after pooling, tokens get that norm as well.
            x = self._model.fc_norm(x)
        x = x.float()
        with_class = self.spec.has_class_token and (
            not cut or bool(wanted & {"cls", "cls_attention", "layers"})
        )
        joined = x[:, int(with_class) :] if cut else x[:, first + patches :]
        return Features(
            cls=None if cls is None else cls.float(),
            tokens=x[:, first : first + patches] if "tokens" in wanted else None,
            input=joined if "input" in wanted else None,
            cls_attention=attention,
            penalties=penalties,
            records=records,
        )


def _rows(wanted: frozenset[Read], additions: Additions, spec: BackboneSpec) -> tuple[slice, ...]:
    """The rows of the last block that something is read from."""
    rows: list[slice] = []
    if wanted & {"cls", "cls_attention", "layers"}:
        rows.append(slice(0, 1))
    if "input" in wanted and additions.input is not None:
        first = spec.prefix_tokens + spec.patches
        rows.append(slice(first, first + additions.input.shape[1]))
    return tuple(rows)


def _take(x: Float[Tensor, "b n *rest"], rows: tuple[slice, ...]) -> Float[Tensor, "b m *rest"]:
    parts = [x[:, part] for part in rows]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
