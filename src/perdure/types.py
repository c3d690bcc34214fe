"""Shared types: backbone spec, task, features of a forward, observers, surveys, losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perdure.capabilities import Capability

Split = Literal["train", "val"]


@dataclass(frozen=True)
class BackboneSpec:
    """Description of the frozen backbone: all that a method knows of it.

    Attributes:
        name: timm architecture name.
        dim: width D of a token.
        heads: attention heads H per block.
        blocks: number of blocks.
        prefix_tokens: class and register tokens ahead of the image tokens.
        has_class_token: whether row 0 is a class token that stands for the image.
        patches: image tokens per image, after the last block.
        norm_eps: the epsilon of every block's norm1.
        key_weight: per block, W_k as stored by a linear layer, (D out, D in); float32.
        norm_scale: per block, the scale α of norm1; float32.
        projection: weight and bias of the backbone's own image projection, where it has one.
        block_sizes: per block, width and number of its image tokens, where they differ by block.
        lacks: what it cannot do, each with the reason.
    """

    name: str
    dim: int
    heads: int
    blocks: int
    prefix_tokens: int
    has_class_token: bool
    patches: int
    norm_eps: float
    key_weight: tuple[Float[Tensor, "d d"], ...] = ()
    norm_scale: tuple[Float[Tensor, "d"], ...] = ()
    projection: tuple[Float[Tensor, "e d"], Float[Tensor, "e"] | None] | None = None
    block_sizes: tuple[tuple[int, int], ...] = ()
    lacks: Mapping[Capability, str] = field(default_factory=dict)

    def has(self, capability: Capability) -> bool:
        """Whether it has a capability."""
        return capability not in self.lacks

    def width(self, block: int) -> int:
        """Width of the tokens of a block."""
        return self.block_sizes[block][0] if self.block_sizes else self.dim

    def patches_in(self, block: int) -> int:
        """Image tokens in a block."""
        return self.block_sizes[block][1] if self.block_sizes else self.patches


@dataclass(frozen=True)
class Task:
    """A task as a method sees it: its classes, no images, no number of tasks to come.

    Where a stream shows the same classes again in another domain, a class counts anew in each: it
    has a label per domain, under one name. `classes_of` says which labels are one class.

    Attributes:
        index: 0 for the first task.
        classes: labels of this task's classes, in order of arrival over the whole stream.
        names: the names of these classes.
        seen: number of classes seen so far, this task's included.
        text_features: one unit vector per class, where the method is guided by language.
    """

    index: int
    classes: tuple[int, ...]
    names: tuple[str, ...]
    seen: int
    text_features: Float[Tensor, "c e"] | None = None


def classes_of(names: Sequence[str]) -> list[int]:
    """Return the class index of every label: labels of one name are one class.

    Args:
        names: names of the labels, in order of arrival.

    Returns:
        Classes counted from 0 as their names first arrive.

    Examples:
        >>> classes_of(["cat", "dog", "cat", "eel"])
        [0, 1, 0, 2]
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return [places[name] for name in names]


@dataclass(frozen=True)
class CachedTokens:
    """Activations of images, cached at the input of one block.

    Attributes:
        tokens: they, in the backbone's compute type.
        block: number of the block.
    """

    tokens: Float[Tensor, "b n d"]
    block: int

    def take(self, positions: Int[Tensor, "k"]) -> CachedTokens:
        """Return the images at these positions."""
        return CachedTokens(self.tokens[positions.to(self.tokens.device)], self.block)


@dataclass(frozen=True)
class Features:
    """Features that a forward returns, after the final norm; what was not read is None.

    Attributes:
        cls: class-token rows; where the backbone has no class token, what its own pooling makes of
            the image tokens.
        tokens: image-token rows.
        input: rows of the tokens added to the input.
        cls_attention: the class token's attention on the image tokens in the last block, mean over
            heads; not renormalised.
        layers: the class token after every block, each through the final norm.
        penalties: named scalars that the additions contributed to the loss.
        records: named values that the additions want logged.
    """

    cls: Float[Tensor, "b d"] | None = None
    tokens: Float[Tensor, "b n d"] | None = None
    input: Float[Tensor, "b p d"] | None = None
    cls_attention: Float[Tensor, "b n"] | None = None
    layers: Float[Tensor, "b l d"] | None = None
    penalties: Mapping[str, Tensor] = field(default_factory=dict)
    records: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class BlockView:
    """Inputs, queries, keys and attention of one block, as an observer sees them.

    Attributes:
        inputs: the block's input tokens, before norm1.
        normed: the same after norm1.
        queries: per head, as they meet the keys of prompts: after bias, norm and rotation, before the
            1/√d scale; None where tokens do not attend to prompts.
        keys: per head, of the same tokens; before any rotation, so that they tell content alone.
        prompt_attention: softmax weights on the prompt columns; None where the block has no prompts.
        records: values noted by the additions and earlier blocks for these images.
    """

    inputs: Float[Tensor, "b n d"]
    normed: Float[Tensor, "b n d"]
    queries: Float[Tensor, "b h n c"] | None
    keys: Float[Tensor, "b h n c"]
    prompt_attention: Float[Tensor, "b h n p"] | None
    records: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Observer(Protocol):
    """Observer of a survey: one pass over a split, without gradients, in float32."""

    def start_batch(
        self, positions: Int[Tensor, "b"], total: int, labels: Int[Tensor, "b"]
    ) -> None:
        """Announce the images of the next forward: their positions in data set order, of ``total``."""

    def block(self, index: int, view: BlockView) -> None:
        """Receive one block of that forward."""

    def merge(self, other: Any) -> None:
        """Add the statistics of another observer of the same kind, from other batches of the survey."""


@runtime_checkable
class Survey(Protocol):
    """Passes over the current task's images; the only way a method or head meets them again."""

    def __call__(self, observer: Observer, split: Split = "train") -> None:
        """Show every image of the split to the observer, in data set order."""

    def features(
        self, split: Split = "train", plain: bool = False, mirrored: bool = False
    ) -> tuple[Float[Tensor, "n *v d"], Int[Tensor, "n"]]:
        """Return readouts and labels of the split under test-time additions, computed once.

        With ``plain``, class tokens of the plain backbone: what they would be had nothing been
        learned. With ``mirrored``, two views of every image, (n, 2, d): as it is, and its mirror
        image.
        """

    def gradients(
        self, probes: Callable[[int], Float[Tensor, "k d"]], most: int
    ) -> Iterator[Mapping[str, Float[Tensor, "b p d"]]]:
        """Yield, batch by batch and probe by probe, ∂(vᵀ f(x))/∂p for the prompts p of each image x.

        ``Method.image_prompts`` says what these are; heads have no use for it.

        Args:
            probes: gives the vectors v of the image at a position in data set order.
            most: number of training images, evenly spaced, that are enough.
        """

    def has(self, split: Split) -> bool:
        """Tell whether the split holds any image."""


@dataclass(frozen=True)
class Trace:
    """Remaining influence of a forgotten class.

    Attributes:
        what: the part, in words.
        tensors: names of the tensors that carry it, within the part that says so.
    """

    what: str
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Loss:
    """Loss terms by name; the engine minimises their sum and logs each."""

    terms: Mapping[str, Float[Tensor, ""]]

    @property
    def total(self) -> Float[Tensor, ""]:
        """The sum of all terms."""
        return torch.stack([term.float() for term in self.terms.values()]).sum()


Generators = Callable[[str], torch.Generator]
"""Gives the generator for the initialisation of the parameter of that name."""
