"""Sensitivity guard: updates are slowed or stopped in directions that old readouts feel."""

from __future__ import annotations

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perdure.methods.guard import Guard
from perdure.numerics.sensitivity import (
    filtered,
    filtered_thin,
    free_count,
    least_felt,
    metric_root,
    product_energy,
    slowed,
    truncated,
)
from perdure.numerics.spectrum import Spectrum, add_rows, spectrum_of
from perdure.types import Generators, Survey, Task

PROBES = 2
"""Vectors per image whose gradients are taken."""
MOST_IMAGES = 1000
"""Training images of a task that are probed."""
MOST_DIRECTIONS = 512
"""Directions that ``protect_gram = full`` keeps per block."""


class SensitivityGuard(Guard):
    """What readouts of old images feel of a change of the prompts, to first order.

    Gradients g of probes vᵀf(x), v drawn from N(0, M), give the sensitivity Gram E[g gᵀ] = E[Jᵀ M J]
    of each block's prompts, summed over tasks. It is kept as eigenvalues and eigenvectors; their
    size does not grow with the number of tasks.

    Args:
        options: `ProtectOptions`.
        prompts: what it protects; parameters of a name may be replaced.
        shape: vectors p and width D of the prompts that an image gets; a parameter holds these, or
            one such matrix per entry.
        generator: draws the probes.
    """

    stores = "per block a Gram of gradients of old readouts by the prompts"

    def __init__(
        self,
        options: Any,
        prompts: nn.ParameterDict,
        shapes: dict[str, tuple[int, int]],
        generator: Generators,
    ) -> None:
        super().__init__()
        self.options = options
        self._held = {"prompts": prompts}  # in a dict: no module of the guard's own
        self._shapes = shapes
        self._generator = generator
        for name, (vectors, width) in shapes.items():
            if options.protect_gram == "full":
                kept = min(vectors * width, MOST_DIRECTIONS)
                self._register(f"full_{name}", vectors * width, kept)
                self.register_buffer(f"sensitivity_total_{name}", torch.zeros(()))
                continue
            self._register(f"right_{name}", width, width)
            if options.protect_gram == "kronecker":
                self._register(f"left_{name}", vectors, vectors)

    def end_task(self, task: Task, survey: Survey) -> None:
        """Add the gradients of the finished task's training images."""
        features, labels = survey.features()
        root = metric_root(features, labels) if self.options.protect_metric == "within" else None
        draw = functools.partial(self._probes, task.index, features.shape[1], root)
        sums: dict[str, Tensor] = {}
        for gradients in survey.gradients(draw, MOST_IMAGES):
            for name, gradient in gradients.items():
                self._add(sums, name, gradient.double())
        for key, gram in sums.items():
            self._keep(key, spectrum_of(self._spectrum(key).gram() + gram))

    def project(self, parameter: nn.Parameter, delta: Tensor) -> Tensor:
        """Scale an update along the Gram's eigenvectors; as it is before anything was felt."""
        prompts = self._held["prompts"].items()
        name = next((name for name, one in prompts if one is parameter), None)
        if name not in self._shapes:
            return delta
        vectors, width = self._shapes[name]
        update = delta.reshape(-1, vectors, width).double()
        if self.options.protect_gram == "full":
            felt = self._spectrum(f"full_{name}")
            mean = float(self.get_buffer(f"sensitivity_total_{name}")) / (vectors * width)
            gains = self._gains(felt.values, mean, vectors * width)
            moved = filtered_thin(update.flatten(1), gains, felt.basis)
            return moved.view(delta.shape).to(delta)
        right, left = self._spectrum(f"right_{name}"), None
        energy = right.values.unsqueeze(0)
        if self.options.protect_gram == "kronecker":
            felt = self._spectrum(f"left_{name}")
            energy, left = product_energy(felt.values, right.values), felt.basis
        gains = self._gains(energy, float(energy.mean()), energy.numel())
        return filtered(update, gains, right.basis, left).view(delta.shape).to(delta)

    def _gains(self, energy: Tensor, mean: float, directions: int) -> Tensor:
        """Factors along the directions listed, of so many in all."""
        if mean <= 0:
            return torch.ones_like(energy)
        share = self.options.protect_keep
        if share is None:
            return slowed(energy, mean, self.options.protect_strength)
        stopped = min(directions - free_count(share, directions), energy.numel())
        return least_felt(energy, energy.numel() - stopped).to(energy)

    def _probes(
        self, task: int, width: int, root: Float[Tensor, "d d"] | None, position: int
    ) -> Float[Tensor, "k d"]:
        """Vectors v of the image at a position, drawn from N(0, M)."""
        random = self._generator(f"probes.{task}.{position}")
        drawn = torch.randn(PROBES, width, generator=random, dtype=torch.float64)
        return drawn if root is None else drawn.to(root) @ root

    def _add(self, sums: dict[str, Tensor], name: str, gradient: Float[Tensor, "b p d"]) -> None:
        """Add one batch: to sums that are decomposed at the end, or to the directions kept."""
        key = f"full_{name}"
        if self.options.protect_gram == "full":
            grown = add_rows(self._spectrum(key), gradient.flatten(1))
            self.get_buffer(f"sensitivity_total_{name}").add_(gradient.square().sum().float())
            self._keep(key, truncated(grown, MOST_DIRECTIONS))
            return
        rows = gradient.flatten(0, 1)
        grams = {f"right_{name}": rows.T @ rows}
        if self.options.protect_gram == "kronecker":
            grams[f"left_{name}"] = (gradient @ gradient.mT).sum(0)
        for key, gram in grams.items():
            sums[key] = sums[key] + gram if key in sums else gram

    def _register(self, key: str, width: int, directions: int) -> None:
        self.register_buffer(f"sensitivity_values_{key}", torch.zeros(directions))
        self.register_buffer(f"sensitivity_basis_{key}", torch.eye(width, directions))

    def _spectrum(self, key: str) -> Spectrum:
        basis = self.get_buffer(f"sensitivity_basis_{key}").double()
        return Spectrum(self.get_buffer(f"sensitivity_values_{key}").double(), basis)

    def _keep(self, key: str, spectrum: Spectrum) -> None:
        self.get_buffer(f"sensitivity_values_{key}").copy_(spectrum.values)
        self.get_buffer(f"sensitivity_basis_{key}").copy_(spectrum.basis)


def sensitivity_guard(
    config: Any,
    prompts: nn.ParameterDict,
    shapes: dict[str, tuple[int, int]],
    generator: Generators,
) -> SensitivityGuard | None:
    """The guard that ``protect = sensitivity`` asks for, else None; see `SensitivityGuard`."""
    if config.protect != "sensitivity":
        return None
    return SensitivityGuard(config, prompts, shapes, generator)
