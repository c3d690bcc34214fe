"""A frozen vision transformer: a block loop over timm's own modules, with additions."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from perdure.backbones.additions import Additions
from perdure.backbones.anatomy import describe
from perdure.backbones.attention import Kernel, attend, choose_kernel
from perdure.errors import BackboneError
from perdure.traits import Read
from perdure.types import BackboneSpec, BlockView, CachedTokens, Features, Observer

ALL: frozenset[Read] = frozenset({"cls", "tokens"})
CLS: frozenset[Read] = frozenset({"cls"})
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class FrozenViT:
    """A vision transformer that is never trained, stored or switched to training mode.

    It is not a module, so that no method can register it or save it by accident. Weights are cast
    once to the compute type; a float32 copy stays for surveys.

    Args:
        vit: a timm ``VisionTransformer``; it is taken over, not copied.
        name: architecture name, used in errors and saved with models.
        mean: per-channel mean of the images it was trained on, for images in [0, 1].
        std: per-channel standard deviation of those images.
        precision: compute type.
        device: where it runs.
        attention: ``auto``, ``fused`` or ``products``, see `choose_kernel`.

    Raises:
        BackboneError: ``vit`` is not a timm vision transformer.
        UnknownNameError: another word for ``attention``.
    """

    def __init__(
        self,
        vit: nn.Module,
        *,
        name: str,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        precision: Literal["fp32", "bf16"] = "fp32",
        device: torch.device | str = "cpu",
        attention: str = "auto",
    ) -> None:
        if not isinstance(vit, VisionTransformer):
            raise BackboneError(
                f"'{name}' is a {type(vit).__name__}. perdure works on timm's VisionTransformer "
                "(ViT, DeiT, CLIP, DINOv2, register-token variants): `perdure ls backbones`."
            )
        vit = vit.eval().requires_grad_(False).to(device=device, dtype=torch.float32)
        self.name = name
        self.precision = precision
        self.dtype = DTYPES[precision]
        self.device = torch.device(device)
        self.mean, self.std = tuple(mean), tuple(std)
        self._shift = torch.tensor(self.mean, device=device).view(1, 3, 1, 1)
        self._scale = torch.tensor(self.std, device=device).view(1, 3, 1, 1)
        self._float32 = vit
        # Modules of timm: their attributes have no static types.
        self._vit: Any = vit if precision == "fp32" else copy.deepcopy(vit).to(self.dtype)
        self.spec = describe(vit, name)
        self._wanted_attention = attention
        self.kernel: Kernel
        self.use_kernel(choose_kernel(attention, self.dtype, self.device, self.spec))

    @property
    def img_size(self) -> int:
        """Side of the square images it takes, in pixels."""
        side: int = self._vit.patch_embed.img_size[0]
        return side

    @property
    def patch(self) -> int:
        """Side of a patch, in pixels."""
        side: int = self._vit.patch_embed.patch_size[0]
        return side

    @property
    def hidden(self) -> int:
        """Width of the blocks' MLP."""
        width: int = self._vit.blocks[0].mlp.fc1.out_features
        return width

    @functools.cached_property
    def float32(self) -> FrozenViT:
        """The same backbone computing in float32, sharing the float32 weights."""
        if self.precision == "fp32":
            return self
        return FrozenViT(
            self._float32,
            name=self.name,
            mean=self.mean,
            std=self.std,
            device=self.device,
            attention=self._wanted_attention,
        )

    def digest(self) -> str:
        """Return the sha256 of every float32 weight bit, buffer names included."""
        total = hashlib.sha256()
        for key, value in sorted(self._float32.state_dict().items()):
            total.update(key.encode())
            total.update(value.detach().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()

    def normalise(self, images: UInt8[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
        """Turn stored pixels (0 to 255) into the backbone's input, on its device, in float32."""
        pixels = images.to(self.device, non_blocking=True).float().div_(255)
        return pixels.sub_(self._shift).div_(self._scale)

    def forward(
        self,
        images: Float[Tensor, "b 3 s s"] | CachedTokens,
        additions: Additions | None = None,
        read: frozenset[Read] | Literal["all"] = CLS,
        observer: Observer | None = None,
    ) -> Features:
        """Run the backbone with additions and read rows after the final norm.

        With ``read="all"`` and no additions the rows equal timm's bit for bit. Only what ``read``
        names is computed in the last block.

        Args:
            images: normalised images, or what `advance` made of them.
            additions: the method's additions; None for the plain backbone.
            read: names of the rows to return, or ``"all"`` for class and image tokens.
            observer: sees every block; for surveys.

        Raises:
            BackboneError: an addition or a reading that this backbone cannot give.
        """
        additions = additions or Additions()
        wanted = ALL if read == "all" else read
        self._check(additions, wanted, observer)
        start = images.block if isinstance(images, CachedTokens) else 0
        first = additions.first_block
        if first is not None and start > first:
            raise BackboneError(
                f"Something is added at block {first}, but the images are at block "
                f"{start} already. The method's first_block must not be above what it adds to."
            )
        x = images.tokens if isinstance(images, CachedTokens) else self._embed(images)
        if additions.input is not None:
            x = torch.cat([x, additions.input.to(self.dtype).expand(x.shape[0], -1, -1)], dim=1)
        penalties, records = dict(additions.penalties), dict(additions.records)
        blocks = self._vit.blocks
        pools = "cls" in wanted and not self.spec.has_class_token
        whole = "tokens" in wanted or pools or bool(self.spec.obstacles)
        rows = None if whole else _rows(wanted, additions, self.spec)
        attention: Tensor | None = None
        for index, block in enumerate(blocks[start:], start):
            last = index == len(blocks) - 1
            cut = rows if last and index not in additions.residual else None
            weigh = last and "cls_attention" in wanted
            if observer is None and cut is None and not weigh and index not in additions.blocks:
                x = block(x)
                continue
            x, attention = self._run_block(
                index, x, additions, cut, weigh, observer, penalties, records
            )
            if cut is not None:
                return self._features(
                    self._vit.norm(x), wanted, attention, penalties, records, True
                )
        return self._features(self._vit.norm(x), wanted, attention, penalties, records, False)

    __call__ = forward

    @torch.no_grad()
    def advance(self, images: Float[Tensor, "b 3 s s"], block: int) -> CachedTokens:
        """Run the plain blocks before ``block``, for methods that add nothing to them."""
        x = self._embed(images)
        for plain in self._vit.blocks[:block]:
            x = plain(x)
        return CachedTokens(x, block)

    @torch.no_grad()
    def folded(self, additions: Additions) -> Additions:
        """Return the additions with the keys and values of prompt tokens precomputed.

        For additions that stay the same over many forwards, as those of an exported model.
        """
        prefix = dict(additions.prefix)
        for index, tokens in additions.tokens.items():
            pair = self._prompt_pair(index, tokens)
            both = [pair, prefix[index]] if index in prefix else [pair]
            keys, values = (torch.cat(parts, dim=1) for parts in zip(*both, strict=True))
            prefix[index] = (keys, values)
        return dataclasses.replace(additions, tokens={}, prefix=prefix)

    def use_kernel(self, kernel: Kernel) -> None:
        """Compute attention by this kernel, in blocks with and without additions alike."""
        self.kernel = kernel
        for block in self._vit.blocks:
            if hasattr(block, "attn") and hasattr(block.attn, "fused_attn"):
                block.attn.fused_attn = kernel == "fused"

    def _check(
        self, additions: Additions, wanted: frozenset[Read], observer: Observer | None
    ) -> None:
        spec = self.spec
        touched = additions.blocks or additions.input is not None or observer is not None
        if spec.obstacles and (touched or "cls_attention" in wanted):
            raise BackboneError(
                f"'{self.name}' takes no additions: {'; '.join(spec.obstacles[:3])}."
            )
        if not spec.has_class_token and "cls_attention" in wanted:
            raise BackboneError(
                f"'{self.name}' has no class token, so there is no attention of it to read. Choose "
                "another weighting of the image tokens, or a backbone with a class token."
            )
        if "input" in wanted and additions.input is None:
            raise BackboneError("read names 'input', but no input tokens were added.")

    def _embed(self, images: Tensor) -> Tensor:
        vit = self._vit
        patches = vit.patch_embed(images.to(self.dtype))
        x: Tensor = vit.norm_pre(vit.patch_drop(vit._pos_embed(patches)))
        return x

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
        block: Any = self._vit.blocks[index]
        normed = block.norm1(x)
        queries, keys, values = self._attention_inputs(index, normed, additions, rows, observer)
        marked = None
        if observer is not None and index in additions.tokens:
            marked = slice(x.shape[1], x.shape[1] + additions.tokens[index].shape[1])
        output, shares = attend(queries, keys, values, self.kernel, marked)
        if observer is not None:
            own_keys = keys[:, :, : x.shape[1]]
            observer.block(index, BlockView(x, normed, queries, own_keys, shares, records))
            output = output if rows is None else _take(output.transpose(1, 2), rows).transpose(1, 2)
        weights = self._class_attention(queries, keys) if weigh else None
        kept = x if rows is None else _take(x, rows)
        merged = output.transpose(1, 2).reshape(kept.shape)
        x = kept + block.drop_path1(block.ls1(block.attn.proj_drop(block.attn.proj(merged))))
        residual = additions.residual.get(index)
        if residual is not None and residual.where == "attention":
            x = x + _residual(residual.fn, x, keys, penalties, records)
        x = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
        if residual is not None and residual.where == "mlp":
            x = x + _residual(residual.fn, x, keys, penalties, records)
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
        block = self._vit.blocks[index]
        attention, dim = block.attn, block.attn.attn_dim
        weight, bias = attention.qkv.weight, attention.qkv.bias
        heads = (attention.num_heads, attention.head_dim)
        if rows is None or observer is not None:
            queries, keys, values = attention.qkv(normed).unflatten(-1, (3, *heads)).unbind(2)
        else:
            low = None if bias is None else bias[:dim]
            high = None if bias is None else bias[dim:]
            queries = F.linear(_take(normed, rows), weight[:dim], low).unflatten(-1, heads)
            keys, values = F.linear(normed, weight[dim:], high).unflatten(-1, (2, *heads)).unbind(2)
        more_keys, more_values = [keys], [values]
        pairs = []
        if index in additions.tokens:
            pairs.append(self._prompt_pair(index, additions.tokens[index]))
        if index in additions.prefix:
            pairs.append(additions.prefix[index])
        for pair in pairs:
            for parts, part in zip((more_keys, more_values), pair, strict=True):
                # shape[0] and not len(): an exported graph is for batches of any size.
                each = part.to(self.dtype).unflatten(-1, heads)
                parts.append(each.expand(normed.shape[0], -1, -1, -1))
        if len(more_keys) > 1:
            keys, values = torch.cat(more_keys, dim=1), torch.cat(more_values, dim=1)
        return queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)

    def _prompt_pair(
        self, index: int, tokens: Float[Tensor, "_ p d"]
    ) -> tuple[Float[Tensor, "_ p d"], Float[Tensor, "_ p d"]]:
        """Return a block's keys and values of prompt tokens, heads concatenated."""
        attention: Any = self._vit.blocks[index].attn
        weight, bias, dim = attention.qkv.weight, attention.qkv.bias, attention.attn_dim
        prompts = self._vit.blocks[index].norm1(tokens.to(self.dtype))
        pair = F.linear(prompts, weight[dim:], None if bias is None else bias[dim:])
        keys, values = pair.unflatten(-1, (2, dim)).unbind(2)
        return keys, values

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
        cls = None
        if "cls" in wanted:
            own = self.spec.has_class_token
            cls = x[:, 0] if own else self._vit.forward_head(x[:, : first + patches], True)
        x = x.float()
        with_class = self.spec.has_class_token and (
            not cut or bool(wanted & {"cls", "cls_attention"})
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
    if wanted & {"cls", "cls_attention"}:
        rows.append(slice(0, 1))
    if "input" in wanted and additions.input is not None:
        first = spec.prefix_tokens + spec.patches
        rows.append(slice(first, first + additions.input.shape[1]))
    return tuple(rows)


def _take(x: Float[Tensor, "b n *rest"], rows: tuple[slice, ...]) -> Float[Tensor, "b m *rest"]:
    parts = [x[:, part] for part in rows]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _residual(
    fn: object,
    x: Float[Tensor, "b n d"],
    keys: Float[Tensor, "b h k c"],
    penalties: dict[str, Tensor],
    records: dict[str, Tensor],
) -> Float[Tensor, "b n d"]:
    assert callable(fn)
    flat = keys[:, :, : x.shape[1]].transpose(1, 2).flatten(2)
    delta, more_penalties, more_records = fn(x, flat)
    for name, value in more_penalties.items():
        penalties[name] = penalties[name] + value if name in penalties else value
    records.update(more_records)
    out: Tensor = delta
    return out
