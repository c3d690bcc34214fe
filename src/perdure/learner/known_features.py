"""Survey of features that are known already: a head is fitted to them without a pass over images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from jaxtyping import Float, Int
from torch import Tensor

from perdure.numerics.gaussians import views_of
from perdure.types import Observer, Split


class KnownFeatures:
    """A survey of features that are known, of one view of each image or of two."""

    def __init__(self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]) -> None:
        self._images = features, labels

    def __call__(self, observer: Observer, split: Split = "train") -> None:
        """Refuse: heads ask for features alone."""
        raise NotImplementedError("there are no images to show")

    def features(
        self, split: Split = "train", plain: bool = False, mirrored: bool = False
    ) -> tuple[Float[Tensor, "n *v d"], Int[Tensor, "n"]]:
        """The features, whatever the split; of all views that are known, or of the first."""
        features, labels = self._images
        return features if mirrored else views_of(features)[:, 0], labels

    def gradients(
        self, probes: Callable[[int], Float[Tensor, "k d"]], most: int
    ) -> Iterator[Mapping[str, Float[Tensor, "b p d"]]]:
        """Refuse: heads ask for features alone."""
        raise NotImplementedError("there are no images to take gradients of")

    def has(self, split: Split) -> bool:
        """Whether there are images of the split: for training alone."""
        return split == "train"
