"""Protection by what old readouts feel: its Gram beside full Jacobians, and what it is worth."""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from perdure.engine.model import Model
from perdure.engine.run import Stage, plan
from perdure.engine.survey import ImageSurvey
from perdure.methods.nsp2 import NSP2Guard
from perdure.methods.null_space import Gram
from perdure.methods.sensitivity import SensitivityGuard
from perdure.numerics.sensitivity import metric_root
from perdure.randomness import generator
from perdure.streams import build_transform
from perdure.testing import make_trial
from perdure.testing.protection import KEY_GAIN
from perdure.testing.trial import Trial
from tests.reference import sensitivity_literal

GUARDED = ["coda_prompt", "dualprompt", "finetune", "iprompt", "l2p"]


def trained(method: str, **options: Any) -> tuple[Model, Stage]:
    """A model after its first task, which has ended under its guard."""
    trial = make_trial(method, **options)
    if method != "iprompt":  # where attention is uniform, prompts in it are felt by nobody
        _sharpen(trial)
    first, second = plan(trial.stream, trial.config)
    training = trial.start(first)
    training.train()
    training.finish()
    return trial.start(second, training.model).model, first


def _sharpen(trial: Trial) -> None:
    spec = trial.backbone.spec
    for block, (scale, weight) in enumerate(zip(spec.norm_scale, spec.key_weight, strict=True)):
        scale.uniform_(0.5, 1.5, generator=generator(0, "norm scale", block))
        weight.mul_(KEY_GAIN)


def pixels(model: Model, stage: Stage) -> Tensor:
    test = build_transform(model.config.training.transform, model.backbone.img_size).test
    train = stage.data.train
    return torch.stack([test(train.images.image(int(index))) for index in train.indices])


@pytest.mark.parametrize("method", GUARDED)
def test_gradients_are_rows_of_the_jacobian(method: str) -> None:
    """With a basis for probes, the Gram of the gradients is Σ JᵀJ."""
    model, first = trained(method, images=2, eval_batch_size=3)
    basis = torch.eye(model.backbone.spec.dim)
    survey = ImageSurvey(model, first.data)
    sums: dict[str, Tensor] = {}
    for gradients in survey.gradients(lambda position: basis, 100):
        for name, gradient in gradients.items():
            rows = gradient.flatten(1).double()
            sums[name] = sums.get(name, torch.zeros(())) + rows.T @ rows
    literal = sensitivity_literal.jacobians(model, pixels(model, first))
    assert sums.keys() == literal.keys()
    for name, jacobian in literal.items():
        expected = sensitivity_literal.gram(jacobian, basis.double())
        assert float(expected.norm()) > 0
        assert float((sums[name] - expected).norm() / expected.norm()) < 1e-5


def test_probes_are_drawn_from_the_metric() -> None:
    """The guard's Gram is that of JᵀMJ, M the inverse within-class covariance, but for chance."""
    model, first = trained("finetune", images=8, protect="sensitivity", protect_gram="full")
    features, labels = ImageSurvey(model, first.data).features()
    root = metric_root(features, labels)
    literal = sensitivity_literal.jacobians(model, pixels(model, first))
    for name, jacobian in literal.items():
        found = _of(model)._spectrum(f"full_{name}").gram() / 2
        right, wrong = (
            sensitivity_literal.gram(jacobian, m) for m in (root @ root, torch.eye(64).double())
        )
        share = float((found.flatten() @ right.flatten()) / (found.norm() * right.norm()))
        plain = float((found.flatten() @ wrong.flatten()) / (found.norm() * wrong.norm()))
        assert share > max(0.7, plain)


def test_images_probed_do_not_depend_on_batches() -> None:
    states = [
        trained("iprompt", protect="sensitivity", eval_batch_size=size)[0].method.state_dict()
        for size in (3, 16)
    ]
    for name in (one for one in states[0] if one.startswith("sensitivity_values")):
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["right", "kronecker", "full"])
def test_projection_is_linear_and_nothing_before_a_task_has_ended(form: str) -> None:
    trial = make_trial("finetune", protect="sensitivity", protect_gram=form)
    a, b = torch.randn(2, 4, 64)
    name = "prompts.matrices.2"
    new = Model(trial.backbone, trial.config).method
    assert torch.equal(new.project(name, a), a)
    method = trial.run().model.method
    both = method.project(name, 2 * a - b)
    torch.testing.assert_close(both, 2 * method.project(name, a) - method.project(name, b))
    assert float(method.project(name, a).norm()) < float(a.norm())


def _of(model: Model) -> SensitivityGuard:
    guard = model.method.guard
    assert isinstance(guard, SensitivityGuard)
    return guard


# --------------------------------------------------------------------------- what it is worth

SHARES = (0.25, 0.5, 0.75)


class Worth:
    """Drift of old test images, which no Gram has seen, under steps of equal length.

    Steps are random ones of 5 % of the prompts' length, in all blocks at once.
    """

    def __init__(self, method: str, **options: Any) -> None:
        options = {"images": 20, "sizes": (4, 4), "batch_size": 16, "lr": 0.01, **options}
        guarded = {"protect": "sensitivity", **options} if method != "nsp2" else options
        self.model, first = trained(method, **guarded)
        self.data = dataclasses.replace(first.data, train=first.data.test)
        self.old = self.features()
        self.steps = [self.step(number) for number in range(2)]
        self.free = sum(self.drift(step) for step in self.steps)

    def features(self) -> Tensor:
        return ImageSurvey(self.model, self.data).features()[0].double()

    def step(self, number: int) -> dict[str, Tensor]:
        method, found = self.model.method, {}
        for name, parameter in method.named_parameters():
            if name.startswith("keys"):
                continue
            now = parameter.detach()
            if name.startswith("residual."):
                now = method.get_buffer(f"merged_{name.removeprefix('residual.')}")
            drawn = torch.randn(now.shape, generator=generator(0, name, number))
            found[name] = drawn * (0.05 * now.norm() / drawn.norm())
        return found

    def drift(self, step: dict[str, Tensor]) -> float:
        before = copy.deepcopy(self.model.state())
        with torch.no_grad():
            for name, change in step.items():
                self.model.method.get_parameter(name).add_(change)
        distance = float((self.features() - self.old).norm())
        self.model.load(before)
        return distance

    def share(self, project: Any) -> float:
        """Drift under projected steps, stretched to equal length, as a share of free steps'."""
        kept = 0.0
        for step in self.steps:
            made = {name: project(name, change) for name, change in step.items()}
            made = {n: part * (step[n].norm() / part.norm()) for n, part in made.items()}
            kept += self.drift(made)
        return kept / self.free

    def guarded(self, name: str, change: Tensor, share: float) -> Tensor:
        guard = _of(self.model)
        guard.options = dataclasses.replace(guard.options, protect_keep=share)
        return self.model.method.project(name, change)

    def random(self, name: str, change: Tensor, share: float) -> Tensor:
        width = change.shape[-1]
        drawn = torch.randn(width, width, generator=generator(1, name)).double()
        basis = torch.linalg.qr(drawn)[0][:, : round(share * width)]
        return (change.double() @ basis @ basis.T).to(change)

    def conditions(self, name: str, change: Tensor, share: float) -> Tensor:
        """NSP²'s exact affinity condition, of the same share of directions."""
        guard = self.model.method.guard
        assert isinstance(guard, NSP2Guard)
        matrix, _ = guard.condition(Gram("affinity", int(name.rsplit(".", maxsplit=1)[-1])))
        basis = torch.linalg.eigh(matrix)[1][:, : round(share * len(matrix))]
        return (change.double() @ basis @ basis.T).to(change)


@functools.cache
def worth(method: str) -> Worth:
    return Worth(method, **({"conditions": "exact"} if method == "nsp2" else {}))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("method", ["finetune", "l2p"])
def test_old_readouts_stay_where_they_are(method: str, share: float) -> None:
    """At most a third of the drift, less than under NSP²'s condition; a random subspace fails."""
    case = worth(method)
    drift = case.share(functools.partial(case.guarded, share=share))
    assert drift <= 1 / 3
    assert case.share(functools.partial(case.random, share=share)) > 0.6
    if method == "finetune":
        other = worth("nsp2")
        assert drift < other.share(functools.partial(other.conditions, share=share))


@pytest.mark.parametrize("share", SHARES)
def test_additive_prompts_have_hardly_any_unfelt_direction(share: float) -> None:
    """I-Prompt's prompts reach the readout by the residual path: better than random, not a third."""
    case = worth("iprompt")
    drift = case.share(functools.partial(case.guarded, share=share))
    control = case.share(functools.partial(case.random, share=share))
    assert 1 / 3 < drift < control - 0.1
