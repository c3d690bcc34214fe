"""Optimiser of one task: Adam, learning-rate schedule, projection of updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perdure.engine.config import TrainingConfig
from perdure.errors import CheckpointError
from perdure.methods import Method

BETAS = (0.9, 0.999)
EPS = 1e-8

Exchange = Callable[[Sequence[nn.Parameter]], None]
"""Told the trained parameters between backward and the optimiser's step."""


def lr_factor(training: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """Factor on the learning rate at a step of a task, counted from 0; in (0, 1]."""
    if training.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / (training.epochs * steps_per_epoch)))
    if training.schedule == "constant":
        return 1.0
    epoch = step // steps_per_epoch
    return float(
        0.1 ** sum(epoch >= milestone * training.epochs for milestone in training.milestones)
    )


class TaskOptimiser:
    """Adam with projected updates, built anew per task.

    Where the method projects its updates and a task has ended before, each applied update is
    ``project(candidate update)``: parameters are restored, and the projected difference is added,
    which equals projecting inside Adam without an optimiser of our own.

    Args:
        method: gives parameter groups and the projection.
        layer: the current task's linear layer, trained along with the method; None for none.
        training: learning rate and weight decay.
        protect: whether earlier tasks are to be protected by projection.
        prompts: whether the method's parameters are trained, or the layer alone.
    """

    def __init__(
        self,
        method: Method,
        layer: nn.Module | None,
        training: TrainingConfig,
        protect: bool,
        prompts: bool = True,
    ) -> None:
        groups = method.param_groups(training.lr) if prompts else []
        if layer is not None:
            groups.append({"params": list(layer.parameters()), "lr": training.lr})
        self.adam = torch.optim.Adam(
            groups, betas=BETAS, eps=EPS, weight_decay=training.weight_decay
        )
        self._method = method
        self._base_rates = [group["lr"] for group in self.adam.param_groups]
        self.names = {p: f"method.{n}" for n, p in method.named_parameters()}
        if layer is not None:
            self.names.update({p: f"layer.{n}" for n, p in layer.named_parameters()})
        projects = method.traits.projects_updates or method.guard is not None
        protect = protect and prompts and projects
        self._projected = dict(method.named_parameters()) if protect else {}

    def step(
        self, total: Float[Tensor, ""], factor: float, exchange: Exchange | None = None
    ) -> None:
        """Take a step: backward, Adam, projection.

        Args:
            total: the loss.
            factor: on every group's learning rate.
            exchange: called with the trained parameters once they have their gradients, which it may
                replace; it may raise, and then nothing has changed.
        """
        for group, rate in zip(self.adam.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor
        self.adam.zero_grad(set_to_none=True)
        total.backward()
        if exchange is not None:
            exchange([p for group in self.adam.param_groups for p in group["params"]])
        before = {name: p.detach().clone() for name, p in self._projected.items()}
        self.adam.step()
        with torch.no_grad():
            for name, parameter in self._projected.items():
                delta = parameter - before[name]
                parameter.copy_(before[name] + self._method.project(name, delta))

    def state(self) -> dict[str, Tensor]:
        """Return trained parameters and Adam's moments by name, for a checkpoint."""
        tensors: dict[str, Tensor] = {}
        for parameter, name in self._trained():
            tensors[f"value.{name}"] = parameter.detach()
            for key, value in self.adam.state.get(parameter, {}).items():
                tensors[f"adam.{key}.{name}"] = value
        return tensors

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load a state returned by `state`.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        with torch.no_grad():
            for parameter, name in self._trained():
                shape = parameter.shape
                parameter.copy_(_copied(state, f"value.{name}", shape))
                self.adam.state[parameter] = {
                    "step": _copied(state, f"adam.step.{name}", torch.Size()).to(
                        "cpu", torch.float32
                    ),
                    "exp_avg": _copied(state, f"adam.exp_avg.{name}", shape).to(parameter),
                    "exp_avg_sq": _copied(state, f"adam.exp_avg_sq.{name}", shape).to(parameter),
                }

    def _trained(self) -> list[tuple[nn.Parameter, str]]:
        return [(p, self.names[p]) for group in self.adam.param_groups for p in group["params"]]


def _copied(state: Mapping[str, Tensor], name: str, shape: torch.Size) -> Tensor:
    value = state.get(name)
    if value is None or value.shape != shape:
        raise CheckpointError(
            f"The saved state of training does not fit: '{name}' is missing or has another shape. "
            "Start again with another --out."
        )
    return value.clone()
