"""Survey of features that are known already: a head is fitted to them without a pass over images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from jaxtyping import Float, Int
from torch import Tensor

from perdure.types import Observer, Split


class KnownFeatures:
    """A survey of features that are known, for a head to be fitted to."""

    def __init__(self, features: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> None:
        self._images = features, labels

    def __call__(self, observer: Observer, split: Split = "train") -> None:
        """Refuse: heads ask for features alone."""
        raise NotImplementedError("there are no images to show")

    def features(
        self, split: Split = "train", plain: bool = False
    ) -> tuple[Float[Tensor, "n d"], Int[Tensor, "n"]]:
        """The features, whatever the split."""
        return self._images

    def gradients(
        self, probes: Callable[[int], Float[Tensor, "k d"]], most: int
    ) -> Iterator[Mapping[str, Float[Tensor, "b p d"]]]:
        """Refuse: heads ask for features alone."""
        raise NotImplementedError("there are no images to take gradients of")

    def has(self, split: Split) -> bool:
        """Whether there are images of the split: for training alone."""
        return split == "train"
