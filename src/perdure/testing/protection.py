"""Conformance check of projection: a projected step moves old features less than a free one."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from perdure.engine.model import Model
from perdure.engine.optim import TaskOptimiser
from perdure.engine.run import Stage, plan
from perdure.engine.survey import ImageSurvey
from perdure.methods import METHODS, Method
from perdure.randomness import generator
from perdure.streams import Batch, batches
from perdure.testing.trial import Trial, contained, make_trial, own_options

STRICT: dict[str, Any] = {
    "projector": "orthogonal",
    "eta1": 1.0,
    "eta2": 1.0,
    "conditions": "exact",
}
"""Options under which a projection is one; those that the method has are set."""
KEY_GAIN = 10.0
"""Keys of random weights are small: attention would be uniform whatever the prompts."""
MOST_DRIFT = 0.5
LEAST_DRIFT = 1e-3
PROBES = 32
STEPS = 3

Step = dict[str, Tensor]


@contained
def check_projection(method_name: str) -> None:
    """Old features drift at most half as far under a projected step as under a free one.

    The backbone's norm1 scales are drawn from [0.5, 1.5]. After a task, the optimiser takes the
    same step of the next task with and without projection; the projected one is then stretched,
    parameter by parameter, to the length of the free one. A projection onto a random subspace of
    the same rank must not pass; otherwise this trial tells nothing, and the check fails.
    """
    traits = METHODS.declared[method_name].traits
    if not (traits.projects_updates and traits.protects_features):
        return
    trial = _trial(method_name)
    first, second = plan(trial.stream, trial.config)
    training = trial.start(first)
    training.train()
    training.finish()
    model = trial.start(second, training.model).model
    old = _features(model, first)
    drifts = {"free": 0.0, "projected": 0.0, "random": 0.0}
    for number in range(STEPS):
        batch = _batch(trial, second, number)
        free = _step(model, trial, second, batch, protect=False)
        steps = {
            "free": free,
            "projected": _step(model, trial, second, batch, protect=True),
            "random": _random_step(model.method, free, number),
        }
        for kind, step in steps.items():
            drifts[kind] += _drift(model, first, _stretched(step, free), old)
    _assert_protected(method_name, drifts, float(old.norm()) * STEPS)


def _assert_protected(method_name: str, drifts: dict[str, float], norm: float) -> None:
    free = drifts["free"]
    assert free > LEAST_DRIFT * norm, (
        f"'{method_name}': an unprojected step moves old features by {free / norm:.1e} of their "
        "norm, too little to compare with."
    )
    share, control = drifts["projected"] / free, drifts["random"] / free
    assert share <= MOST_DRIFT, (
        f"'{method_name}': under a projected step old features drift {share:.2f} times as far as "
        f"under an unprojected step of equal length; allowed is {MOST_DRIFT}. "
        f"A random subspace of the same rank gives {control:.2f}."
    )
    assert control > MOST_DRIFT, (
        f"'{method_name}': a random subspace of the same rank protects old features as well "
        f"({control:.2f} of the drift): its rank is so low that this check tells nothing."
    )


def _trial(method_name: str) -> Trial:
    """Two tasks on a backbone whose norm1 scales and attention are not trivial."""
    strict = {key: value for key, value in STRICT.items() if key in own_options(method_name)}
    trial = make_trial(method_name, sizes=(4, 4), images=12, batch_size=16, lr=0.01, **strict)
    # The tensors of the spec are the backbone's own.
    for block, (scale, weight) in enumerate(
        zip(trial.backbone.spec.norm_scale, trial.backbone.spec.key_weight, strict=True)
    ):
        scale.uniform_(0.5, 1.5, generator=generator(0, "norm scale", block))
        weight.mul_(KEY_GAIN)
    return trial


def _batch(trial: Trial, stage: Stage, epoch: int) -> Batch:
    config = trial.config
    return next(
        batches(
            stage.data.train,
            config.training.batch_size,
            transform=config.training.transform,
            side="train",
            img_size=trial.backbone.img_size,
            seed=config.training.seed,
            task=stage.data.task.index,
            epoch=epoch,
        )
    )


def _features(model: Model, stage: Stage) -> Float[Tensor, "n d"]:
    return ImageSurvey(model, stage.data).features("train")[0].double()


def _step(model: Model, trial: Trial, stage: Stage, batch: Batch, protect: bool) -> Step:
    """What the optimiser's first step changes; the model is left as it was."""
    task, method = stage.data.task, model.method
    before = copy.deepcopy(model.state())
    optimiser = TaskOptimiser(method, model.task_layer(task), trial.config.training, protect)
    optimiser.step(model.training_loss(batch.images, batch.labels, task).total, 1.0)
    step = {
        name: parameter.detach() - before[f"method.{name}"]
        for name, parameter in method.named_parameters()
    }
    model.load(before)
    return step


def _random_step(method: Method, free: Step, number: int) -> Step:
    """The free step, projected onto a random subspace of the rank that ``project`` has."""
    return {
        name: delta @ _random_projector(method, name, delta, number) for name, delta in free.items()
    }


def _random_projector(
    method: Method, name: str, delta: Tensor, number: int
) -> Float[Tensor, "d d"]:
    """A projector of the parameter's rows; its rank is the share that ``project`` lets through.

    The trace of a projection is its rank; it is estimated from random signs (Hutchinson 1990).
    """
    random = generator(0, "random subspace", name, number)
    trace = 0.0
    for _ in range(PROBES):
        signs = torch.randint(0, 2, delta.shape, generator=random).to(delta) * 2 - 1
        trace += float((signs * method.project(name, signs)).sum()) / PROBES
    dim = delta.shape[-1]
    rank = min(max(round(trace / delta.numel() * dim), 1), dim)
    basis = torch.linalg.qr(torch.randn(dim, dim, generator=random).double())[0][:, :rank]
    plain: Tensor = basis @ basis.T
    return plain.to(delta)


def _stretched(step: Step, like: Step) -> Step:
    """The step with every parameter's part as long as in ``like``; a part that is zero stays so."""
    return {
        name: part * (like[name].norm() / part.norm().clamp(min=torch.finfo(part.dtype).tiny))
        for name, part in step.items()
    }


def _drift(model: Model, stage: Stage, step: Step, old: Float[Tensor, "n d"]) -> float:
    """How far a step moves the features of a stage's images; the model is left as it was."""
    before = copy.deepcopy(model.state())
    with torch.no_grad():
        for name, parameter in model.method.named_parameters():
            parameter.add_(step[name])
    distance = float((_features(model, stage) - old).norm())
    model.load(before)
    return distance
