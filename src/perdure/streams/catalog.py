"""Registries of data sets and transforms: names and declarations; needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perdure.registry import Declaration, Registry

if TYPE_CHECKING:
    from perdure.streams.config import StreamConfig
    from perdure.streams.sources.base import Source
    from perdure.streams.transforms import Transform

SOURCES: Registry[Callable[[StreamConfig, int], Source], Declaration] = Registry(
    "data set", Declaration
)
"""What loads the images that a stream's configuration names; its second argument is the seed."""

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
    "synthetic": "synthetic",
    "table": "table",
}.items():
    SOURCES.declare(_name, f"perdure.streams.sources.{_module}", Declaration())


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
