"""Protection by what old readouts feel: its Gram beside full Jacobians, and what it is worth."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor
from unfelt import SHARES, Steps, trained

from perdure.engine.model import Model
from perdure.engine.run import Stage
from perdure.engine.survey import ImageSurvey
from perdure.methods.sensitivity import SensitivityGuard
from perdure.numerics.sensitivity import metric_root
from perdure.streams import build_transform
from perdure.testing import make_trial
from tests.reference import sensitivity_literal

pytestmark = pytest.mark.long

GUARDED = ["coda_prompt", "dualprompt", "finetune", "iprompt", "l2p"]


def pixels(model: Model, stage: Stage) -> Tensor:
    test = build_transform(model.config.training.transform, model.backbone.img_size).test
    train = stage.data.train
    return torch.stack([test(train.images.image(int(index))) for index in train.indices])


@pytest.mark.parametrize(
    "method",
    [pytest.param(one, marks=pytest.mark.slow) if one == "l2p" else one for one in GUARDED],
)
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


@pytest.mark.slow
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


@functools.cache
def steps(method: str) -> Steps:
    return Steps(method)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("method", ["finetune", "l2p"])
def test_old_readouts_stay_where_they_are(method: str, share: float) -> None:
    """At most a third of the drift, less than under NSP²'s conditions; a random subspace fails."""
    case = steps(method)
    drift = case.drift(case.guarded, share)
    assert drift <= 1 / 3
    assert case.drift(case.random, share) > 0.6
    if method == "finetune":
        other = steps("nsp2")
        assert drift < other.drift(other.affinity, share)
        assert drift < other.drift(other.conditions, share)


@pytest.mark.parametrize("share", SHARES)
def test_additive_prompts_have_hardly_any_unfelt_direction(share: float) -> None:
    """I-Prompt's prompts reach the readout by the residual path: better than random, not a third."""
    case = steps("iprompt")
    assert 1 / 3 < case.drift(case.guarded, share) < case.drift(case.random, share) - 0.1
