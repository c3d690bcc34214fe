"""How far steps move readouts of old images that are projected to where these feel them least.

A small random ViT learns one task; then random steps of 5 % of the prompts' length are taken in all
blocks at once, as drawn, and projected and stretched to equal length. Printed is the drift of test
images of that task, which no Gram has seen, as a share of what the steps as drawn do: under
``protect=sensitivity``, under NSP²'s exact conditions with the same share of directions, and under a
random subspace. docs/drift.md has the table.

Usage: python benchmarks/accuracy/unfelt.py        (minutes on one core)
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from perdure.engine.model import Model
from perdure.engine.run import Stage, plan
from perdure.engine.survey import ImageSurvey
from perdure.methods.nsp2 import NSP2Guard
from perdure.methods.null_space import Gram
from perdure.methods.sensitivity import SensitivityGuard
from perdure.randomness import generator
from perdure.testing import make_trial
from perdure.testing.protection import KEY_GAIN

SHARES = (0.25, 0.5, 0.75)
"""Of directions that a step may take."""
LENGTH = 0.05
"""Of a step, as a share of the prompts'."""
STEPS = 2
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("finetune", {"protect_gram": form}) for form in ("right", "kronecker", "full")),
    ("nsp2", {}),
    ("l2p", {"protect_gram": "kronecker"}),
    *(("iprompt", {"protect_gram": form, "pool": 4}) for form in ("kronecker", "full")),
    ("iprompt", {"protect_gram": "kronecker", "pool": 4, "readout": "cls"}),
)
Projection = Callable[[str, Tensor, float], Tensor]
"""Of the named parameter's step, with this share of directions left free."""


def trained(method: str, **options: Any) -> tuple[Model, Stage]:
    """A model whose first task has ended under its guard, and that task.

    Norm scales and attention keys are drawn wider than those of random weights, but for prompts that
    are added to tokens: where attention is uniform, prompts in it are felt by nobody.
    """
    trial = make_trial(method, **options)
    if method != "iprompt":
        spec = trial.backbone.spec
        for block, (scale, weight) in enumerate(zip(spec.norm_scale, spec.key_weight, strict=True)):
            scale.uniform_(0.5, 1.5, generator=generator(0, "norm scale", block))
            weight.mul_(KEY_GAIN)
    first, second = plan(trial.stream, trial.config)
    training = trial.start(first)
    training.train()
    training.finish()
    return trial.start(second, training.model).model, first


class Steps:
    """Random steps of a model's prompts, and how far they move readouts of its first task.

    Args:
        method: a method that can be guarded, or ``nsp2``.
        **options: of it.
    """

    def __init__(self, method: str, **options: Any) -> None:
        own = {"conditions": "exact"} if method == "nsp2" else {"protect": "sensitivity"}
        size = {"images": 20, "sizes": (4, 4), "batch_size": 16, "lr": 0.01}
        self.model, first = trained(method, **size, **own, **options)
        self._data = dataclasses.replace(first.data, train=first.data.test)
        self._old = self._readouts()
        self._steps = [self._drawn(number) for number in range(STEPS)]
        self._free = sum(self._drift(step) for step in self._steps)

    def drift(self, project: Projection, share: float) -> float:
        """Drift under projected steps of equal length, as a share of that under steps as drawn."""
        total = 0.0
        for step in self._steps:
            made = {name: project(name, change, share) for name, change in step.items()}
            total += self._drift({n: p * (step[n].norm() / p.norm()) for n, p in made.items()})
        return total / self._free

    def guarded(self, name: str, change: Tensor, share: float) -> Tensor:
        """The method's own guard."""
        guard = self.model.method.guard
        assert isinstance(guard, SensitivityGuard)
        guard.options = dataclasses.replace(guard.options, protect_keep=share)
        return self.model.method.project(name, change)

    def random(self, name: str, change: Tensor, share: float) -> Tensor:
        """A random subspace."""
        width = change.shape[-1]
        drawn = torch.randn(width, width, generator=generator(1, name)).double()
        basis = torch.linalg.qr(drawn)[0][:, : round(share * width)]
        projected: Tensor = (change.double() @ basis @ basis.T).to(change)
        return projected

    def affinity(self, name: str, change: Tensor, share: float) -> Tensor:
        """NSP²'s exact affinity condition."""
        side = _least(self._condition("affinity", name), share)
        return (change.double() @ side).to(change)

    def conditions(self, name: str, change: Tensor, share: float) -> Tensor:
        """Both of NSP²'s exact conditions, the square root of the share each."""
        right = _least(self._condition("affinity", name), share**0.5)
        left = _least(self._condition("aggregation", name), share**0.5)
        return (left @ change.double() @ right).to(change)

    def _condition(self, of: str, name: str) -> Tensor:
        guard = self.model.method.guard
        assert isinstance(guard, NSP2Guard)
        return guard.condition(Gram(of, int(name.rsplit(".", maxsplit=1)[-1])))[0]

    def _readouts(self) -> Tensor:
        return ImageSurvey(self.model, self._data).features()[0].double()

    def _drawn(self, number: int) -> dict[str, Tensor]:
        method, found = self.model.method, {}
        for name, parameter in method.named_parameters():
            if name.startswith("keys"):
                continue
            now = parameter.detach()
            if name.startswith("residual."):
                now = method.get_buffer(f"merged_{name.removeprefix('residual.')}")
            drawn = torch.randn(now.shape, generator=generator(0, name, number))
            found[name] = drawn * (LENGTH * now.norm() / drawn.norm())
        return found

    def _drift(self, step: dict[str, Tensor]) -> float:
        before = copy.deepcopy(self.model.state())
        with torch.no_grad():
            for name, change in step.items():
                self.model.method.get_parameter(name).add_(change)
        distance = float((self._readouts() - self._old).norm())
        self.model.load(before)
        return distance


def _least(gram: Tensor, share: float) -> Tensor:
    basis = torch.linalg.eigh(gram)[1][:, : max(1, round(share * len(gram)))]
    projector: Tensor = basis @ basis.T
    return projector


def main() -> None:
    """Print the table."""
    print("| prompts | projection | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |")
    for method, options in CASES:
        case = Steps(method, **options)
        ways: tuple[Projection, ...] = (case.guarded, case.random)
        ways = (case.affinity, case.conditions) if method == "nsp2" else ways
        for way in ways:
            cells = " | ".join(f"{case.drift(way, share):.2f}" for share in SHARES)
            named = way.__name__
            print(f"| {method} {options} | {named} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
