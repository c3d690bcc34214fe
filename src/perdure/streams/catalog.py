"""Registries of data sets and transforms: names and declarations; needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perdure.registry import Declaration, Registry

if TYPE_CHECKING:
    from perdure.streams.sources.base import Source
    from perdure.streams.transforms import Transform


@dataclass(frozen=True)
class SourceDeclaration(Declaration):
    """Properties of a source that are known without loading it.

    Attributes:
        fetches: whether it fetches its files where they are not at hand; then it takes ``fetch=False``
            too, and gives blank images in their place.
    """

    fetches: bool = False

    @classmethod
    def of(cls, component: Any) -> SourceDeclaration:
        """Take a source from outside for one that fetches nothing, unless it says otherwise."""
        return cls(getattr(component, "fetches", False))


SOURCES: Registry[Callable[..., Source], SourceDeclaration] = Registry(
    "data set", SourceDeclaration
)
"""Loaders of the images that a `StreamConfig` names; the second argument is the run's seed."""

for _name, _module in {
    "cifar100": "cifar",
    "cub200": "cub",
    "digits": "digits",
    "domainnet": "domainnet",
    "domainnet200": "domainnet",
    "fashion_mnist": "fashion",
    "folder": "folder",
    "huggingface": "huggingface",
    "imagenet_a": "imagenet",
    "imagenet_r": "imagenet",
    "shards": "shards",
    "synthetic": "synthetic",
    "table": "table",
}.items():
    _fetches = SourceDeclaration(fetches=_name == "fashion_mnist")
    SOURCES.declare(_name, f"perdure.streams.sources.{_module}", _fetches)


@dataclass(frozen=True)
class TransformDeclaration(Declaration):
    """Properties of a transform that are known without building it.

    Attributes:
        deterministic: whether its training side draws nothing.
    """

    deterministic: bool

    @classmethod
    def of(cls, component: Any) -> TransformDeclaration:
        """Read them off the transform for images of one pixel."""
        return cls(component(1).deterministic)


TRANSFORMS: Registry[Callable[[int], Transform], TransformDeclaration] = Registry(
    "transform", TransformDeclaration
)
"""What builds the transform for images of a side in pixels."""

for _name in ("clip_nsp2", "flip_crop", "nsp2", "nsp2_cifar", "plain"):
    _declared = TransformDeclaration(deterministic=_name == "plain")
    TRANSFORMS.declare(_name, "perdure.streams.transforms", _declared)
