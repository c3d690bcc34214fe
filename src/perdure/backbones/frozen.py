"""Frozen backbone: what all families share, and frozen features of any model of timm.

A family is a class that computes `features_of`; `family` chooses it. What it cannot do stands in
`BackboneSpec.lacks`, and is refused here, by name, before anything is computed.
"""

from __future__ import annotations

import abc
import copy
import functools
import hashlib
import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from perdure.backbones.additions import Additions
from perdure.backbones.anatomy import features_alone
from perdure.backbones.attention import Kernel, choose_kernel
from perdure.capabilities import CAPABILITIES, Capability
from perdure.errors import BackboneError
from perdure.traits import Read
from perdure.types import BackboneSpec, CachedTokens, Features, Observer

ALL: frozenset[Read] = frozenset({"cls", "tokens"})
CLS: frozenset[Read] = frozenset({"cls"})
_WITHOUT_FLOAT64 = ("mps",)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def exact_device(device: torch.device) -> torch.device:
    """Device where float64 is there for what is on a device: itself, or the CPU for Apple's ``mps``."""
    return torch.device("cpu") if device.type in _WITHOUT_FLOAT64 else device


class FrozenBackbone(abc.ABC):
    """A model of timm that is never trained, stored or switched to training mode.

    It is not a module, so that no method can register it or save it by accident. Weights are cast
    once to the compute type; a float32 copy stays for surveys.

    Args:
        model: of timm; it is taken over, not copied.
        name: architecture name, used in errors and saved with models.
        img_size: side of the square images it takes, in pixels; by default the one that timm's
            configuration gives.
        mean: per-channel mean of the images it was trained on, for images in [0, 1].
        std: per-channel standard deviation of those images.
        precision: compute type.
        device: where it runs.
        attention: ``auto``, ``fused`` or ``products``, see `choose_kernel`.
        fold: ``auto``: where the family can be, it computes with factors multiplied out, see
            `perdure.backbones.fold`; ``off``: bit for bit as timm does.

    Raises:
        BackboneError: ``model`` is not one that this family can run.
        UnknownNameError: another word for ``attention``.
    """

    def __init__(  # noqa: PLR0913  options, each with a default
        self,
        model: nn.Module,
        *,
        name: str,
        img_size: int | None = None,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        precision: Literal["fp32", "bf16"] = "fp32",
        device: torch.device | str = "cpu",
        attention: str = "auto",
        fold: Literal["auto", "off"] = "off",
    ) -> None:
        model = model.eval().requires_grad_(False).to(device=device, dtype=torch.float32)
        self.name = name
        self.img_size = img_size or side_of(model)
        self.precision = precision
        self.dtype = DTYPES[precision]
        self.device = torch.device(device)
        self.mean, self.std = tuple(mean), tuple(std)
        self._shift = torch.tensor(self.mean, device=device).view(1, 3, 1, 1)
        self._scale = torch.tensor(self.std, device=device).view(1, 3, 1, 1)
        self._float32 = model
        # Modules of timm: their attributes have no static types.
        self._model: Any = self._computing(model, fold == "auto")
        self.spec = self.describe(model, name, self.img_size)
        self._wanted_attention = attention
        self.kernel: Kernel
        self.use_kernel(choose_kernel(attention, self.dtype, self.device, self.spec))

    @staticmethod
    @abc.abstractmethod
    def describe(model: Any, name: str, img_size: int) -> BackboneSpec:
        """Return the spec of a model of this family for images of a size.

        Raises:
            BackboneError: the model is of another family.
        """

    @abc.abstractmethod
    def features_of(
        self,
        images: Float[Tensor, "b 3 s s"] | CachedTokens,
        additions: Additions,
        wanted: frozenset[Read],
        observer: Observer | None,
    ) -> Features:
        """Run the model; what is asked of it is among what it can do."""

    @functools.cached_property
    def float32(self) -> FrozenBackbone:
        """The same backbone computing in float32, sharing the float32 weights; a twin is not folded."""
        if self.precision == "fp32":
            return self
        return type(self)(
            self._float32,
            name=self.name,
            img_size=self.img_size,
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
        # Only CUDA copies in the order of what is computed after it.
        aside = self.device.type == "cuda"
        pixels = images.to(self.device, non_blocking=aside).float().div_(255)
        return pixels.sub_(self._shift).div_(self._scale)

    def forward(
        self,
        images: Float[Tensor, "b 3 s s"] | CachedTokens,
        additions: Additions | None = None,
        read: frozenset[Read] | Literal["all"] = CLS,
        observer: Observer | None = None,
    ) -> Features:
        """Run the backbone with additions and read rows after the final norm.

        Without additions the rows equal timm's bit for bit, as long as all are read. Only what
        ``read`` names is computed in the last block.

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
        return self.features_of(images, additions, wanted, observer)

    __call__ = forward

    def advance(self, images: Float[Tensor, "b 3 s s"], block: int) -> CachedTokens:
        """Run the plain blocks before ``block``, for methods that add nothing to them."""
        raise BackboneError(f"'{self.name}' has no blocks to begin at: {self.spec.lacks['keys']}.")

    def folded(self, additions: Additions) -> Additions:
        """Return the additions with the keys and values of prompt tokens precomputed.

        For additions that stay the same over many forwards, as those of an exported model.
        """
        return additions

    def use_kernel(self, kernel: Kernel) -> None:
        """Compute attention by this kernel, where the family lets it be chosen."""
        self.kernel = kernel

    def _computing(self, model: nn.Module, fold: bool) -> nn.Module:
        """Return the model to compute with, in the compute type: this one in float32, or a copy."""
        return model if self.precision == "fp32" else copy.deepcopy(model).to(self.dtype)

    def _check(
        self, additions: Additions, wanted: frozenset[Read], observer: Observer | None
    ) -> None:
        needed: dict[Capability, bool] = {
            "key_value_prompts": bool(additions.tokens or additions.prefix),
            "input_tokens": additions.input is not None,
            "keys": bool(additions.residual) or observer is not None,
            "class_attention": "cls_attention" in wanted,
            "tokens": "tokens" in wanted,
        }
        missing = [what for what, used in needed.items() if used and not self.spec.has(what)]
        if missing:
            raise BackboneError(
                f"'{self.name}' lacks {missing[0]} ({CAPABILITIES[missing[0]].meaning}): "
                f"{self.spec.lacks[missing[0]]}."
            )
        if "input" in wanted and additions.input is None:
            raise BackboneError("read names 'input', but no input tokens were added.")


class FrozenFeatures(FrozenBackbone):
    """Any model of timm that gives one feature vector per image, for methods on frozen features."""

    @staticmethod
    def describe(model: Any, name: str, img_size: int) -> BackboneSpec:
        """Return the spec, which lacks all but the features."""
        check_features(model, name)
        reason = f"perdure runs a {type(model).__name__} as a whole, without looking into it"
        return features_alone(name, model.head_hidden_size, reason)

    def features_of(
        self,
        images: Float[Tensor, "b 3 s s"] | CachedTokens,
        additions: Additions,
        wanted: frozenset[Read],
        observer: Observer | None,
    ) -> Features:
        """Return what timm's classifier would see."""
        assert not isinstance(images, CachedTokens), "`advance` makes none"
        model = self._model
        vector = model.forward_head(model.forward_features(images.to(self.dtype)), pre_logits=True)
        return Features(
            cls=vector.float(), penalties=additions.penalties, records=additions.records
        )


def check_features(model: Any, name: str) -> None:
    """Check that a model gives one feature vector per image.

    Raises:
        BackboneError: it does not.
    """
    head = getattr(model, "forward_head", None)
    whole = head is not None and "pre_logits" in inspect.signature(head).parameters
    if not (whole and hasattr(model, "forward_features") and hasattr(model, "head_hidden_size")):
        raise BackboneError(
            f"'{name}' is a {type(model).__name__}, which gives no feature vector: timm's models "
            "for images have forward_features and forward_head(pre_logits=True). "
            "`perdure ls backbones` lists some."
        )


def side_of(model: Any) -> int:
    """Side of the images that a model was built for, in pixels."""
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None) or getattr(model, "pretrained_cfg", {}).get(
        "input_size", (224,)
    )
    return int(size[-1])
