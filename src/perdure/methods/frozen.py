"""Baselines on frozen features: no additions at all, only a head."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from perdure.capabilities import Capability
from perdure.errors import BackboneError
from perdure.methods.base import Method
from perdure.methods.catalog import METHODS
from perdure.methods.options import LDAConfig
from perdure.traits import Read
from perdure.types import BackboneSpec, Features, Generators


@METHODS.register("linear")
class LinearProbe(Method):
    """One linear layer per task on frozen features."""


@METHODS.register("ncm")
class NearestClassMean(Method):
    """Frozen features, nearest class mean by cosine similarity."""


@METHODS.register("lda")
class LinearDiscriminant(Method):
    """Frozen features, class means and one pooled covariance.

    With ``layers`` above 1, features are the class tokens of the last blocks, joined (LayUP, Ahrens
    et al., TMLR 2024), each through the final norm, so that no block outweighs the others.
    """

    config: LDAConfig

    def __init__(self, spec: BackboneSpec, config: LDAConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        if config.layers > max(spec.blocks, 1):
            raise BackboneError(
                f"layers={config.layers}: '{spec.name}' has {spec.blocks} blocks. Take 1 to "
                f"{spec.blocks}."
            )

    @classmethod
    def needs(cls, config: LDAConfig) -> frozenset[Capability]:
        """One feature vector; of several blocks, a class token in each."""
        return frozenset({"features"} if config.layers == 1 else {"features", "class_attention"})

    @classmethod
    def rows_read(cls, config: LDAConfig, spec: BackboneSpec) -> frozenset[Read]:
        """The class token of the last block, or those of all."""
        return frozenset({"cls" if config.layers == 1 else "layers"})

    @classmethod
    def width(cls, config: LDAConfig, spec: BackboneSpec) -> int:
        """Of the class tokens joined."""
        return config.layers * spec.dim

    def readout(self, features: Features) -> Float[Tensor, "b d"]:
        """The class tokens of the last blocks, joined."""
        if features.layers is None:
            return super().readout(features)
        return features.layers[:, -self.config.layers :].flatten(1)
