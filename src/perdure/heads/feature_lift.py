"""Random features in front of a head: drawn from the run's seed, never part of its state."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perdure.errors import CheckpointError
from perdure.heads.config import LiftConfig
from perdure.numerics.lift import Lift, cosine_lift, kernel_gamma, relu_lift
from perdure.types import Generators, Trace


class FeatureLift(nn.Module):
    """Lift of a head's features, drawn anew wherever the head is loaded.

    Its state is the kernel's γ and the sha256 of the numbers drawn; a model whose numbers come out
    otherwise here is refused. Heads of one seed and one lift share them.

    Args:
        dim: features D.
        config: ``lift``, ``lift_width`` and ``lift_gamma``.
        generator: gives the seed.
    """

    gamma: Tensor
    digest: Tensor

    def __init__(self, dim: int, config: LiftConfig, generator: Generators) -> None:
        super().__init__()
        self.width = config.lift_width
        self._dim, self._config = dim, config
        self._seed = generator("lift").initial_seed()
        self._gamma = 0.0
        self.register_buffer("gamma", torch.zeros((), dtype=torch.float64))
        self.register_buffer("digest", torch.zeros(32, dtype=torch.uint8))

    @property
    def remark(self) -> str:
        """What is to be said of a kernel whose width the images did not tell; else empty."""
        return (
            "the first images were fewer than two, or all alike, so the width of the kernel is not "
            "theirs: lift_gamma=1 was taken; start anew with another first lesson, or give lift_gamma"
            if self._measures and self._gamma == 1
            else ""
        )

    def traces(self, statistics: Iterable[str]) -> list[Trace]:
        """What γ carries of the classes of the first lesson, and what was computed with it.

        Args:
            statistics: names of the head's tensors that hold lifted features.
        """
        if not self._measures:
            return []
        what = "the kernel's width, where the class was in the first lesson, and all that is lifted"
        return [Trace(what, ("lift.gamma", "lift.digest", *statistics))]

    def fit(self, features: Float[Tensor, "n d"]) -> None:
        """Set γ by the first images it is given, and note the digest; later ones change nothing."""
        if self.digest.any():
            return
        if self._config.lift == "cosine":
            given = self._config.lift_gamma
            self._gamma = kernel_gamma(features) if given == "median" else float(given)
            self.gamma.fill_(self._gamma)
        self.digest.copy_(self._drawn(self.digest.device)[1])

    def forward(self, features: Float[Tensor, "*n d"]) -> Float[Tensor, "*n m"]:
        """Lifted features, in float64; only after `fit`."""
        return self._drawn(features.device)[0](features.double())

    @property
    def _measures(self) -> bool:
        return self._config.lift == "cosine" and self._config.lift_gamma == "median"

    def _drawn(self, device: torch.device) -> tuple[Lift, Tensor]:
        kind, width = self._config.lift, self.width
        return _draw(kind, self._dim, width, self._gamma, self._seed, str(device))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._gamma = float(self.gamma)
        if self.digest.any() and not torch.equal(
            self._drawn(self.digest.device)[1].to(self.digest), self.digest
        ):
            raise CheckpointError(
                f"The random features of lift={self._config.lift} come out otherwise here than where "
                "this model was trained, so its scores would mean nothing. Use the torch version and "
                "the kind of machine it was trained on, or train it again here."
            )


@lru_cache(maxsize=2)
def _draw(
    kind: str, dim: int, width: int, gamma: float, seed: int, device: str
) -> tuple[Lift, Tensor]:
    """The lift in float64, and the sha256 of its numbers in float32."""
    if kind == "relu":
        lift = relu_lift(dim, width, seed, kind)
    else:
        lift = cosine_lift(dim, width, gamma, seed, kind)
    digest = torch.tensor(list(bytes.fromhex(lift.digest())), dtype=torch.uint8)
    phase = None if lift.phase is None else lift.phase.to(device).double()
    return Lift(lift.weight.to(device).double(), phase), digest
