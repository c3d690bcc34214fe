"""What followed classes are given back for the errors of the maps that they followed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perdure.heads import HEADS, GaussianHead
from perdure.heads.config import GaussianConfig
from perdure.numerics.feature_drift import FeatureDrift
from perdure.randomness import generator
from perdure.testing.drawn import FeatureSurvey
from perdure.types import BackboneSpec, Task
from tests.reference import drift_literal as literal

DIM, CLASSES, IMAGES, TASKS = 6, 4, 8, 3
SPEC = BackboneSpec("features", DIM, 1, 1, 1, True, 1, 1e-6)


def made(**options: object) -> GaussianHead:
    config = GaussianConfig(**{"drift": "linear", **options})  # type: ignore[arg-type]
    head = HEADS["gaussian"](SPEC, config, lambda name: generator(0, name))
    assert isinstance(head, GaussianHead)
    return head


def task(index: int) -> Task:
    classes = tuple(range(index * CLASSES, (index + 1) * CLASSES))
    return Task(index, classes, tuple(str(c) for c in classes), classes[-1] + 1)


def images(index: int) -> tuple[Tensor, Tensor]:
    random = generator(index, "features")
    labels = torch.tensor(task(index).classes).repeat_interleave(IMAGES)
    centres = 4 * torch.randn(CLASSES, DIM, generator=random)
    noise = torch.randn(len(labels), DIM, generator=random)
    return centres.repeat_interleave(IMAGES, dim=0) + noise, labels


def drift(index: int) -> FeatureDrift:
    """Features that moved by what no affine map tells."""
    after, labels = images(index)
    return FeatureDrift(after + after.sin(), after, task(index).classes[0], labels)


def taught(head: GaussianHead, tasks: int = TASKS) -> list[FeatureDrift]:
    drifts = []
    for index in range(tasks):
        head.start_task(task(index))
        if index:
            drifts.append(drift(index))
            head.follow(drifts[-1])
        head.end_task(task(index), FeatureSurvey(images(index)))
    return drifts


@pytest.mark.parametrize("shrinkage", [0.1, "loo"])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_class_is_given_back_what_the_maps_since_it_came_cost(
    share: float, shrinkage: float | str
) -> None:
    """Twin: for every map since, the misses that were measured, under the covariance of now."""
    head = made(drift_debias=share, shrinkage=shrinkage)
    plain = made(shrinkage=shrinkage)
    drifts = taught(head)
    taught(plain)
    images_so_far = int(head.counts.sum())
    below = images_so_far - (shrinkage == "loo")
    covariance = head.scatter / below
    rho, level = float(head.rho), covariance.diagonal().mean()
    covariance = (1 - rho) * covariance + rho * level * torch.eye(DIM).double()
    lost = [literal.score_lost(one.misses("linear", CLASSES), covariance) for one in drifts]
    wanted = torch.tensor([sum(lost), lost[1], 0.0]).repeat_interleave(CLASSES).double() * share
    assert wanted[0] > wanted[CLASSES] > 0
    torch.testing.assert_close(head.bias - plain.bias, wanted)
    torch.testing.assert_close(head.weight, plain.weight)
    features, labels = images(TASKS - 1)
    _, scores = head.scores_left_out(features, labels)
    _, before = plain.scores_left_out(features, labels)
    torch.testing.assert_close(scores - before, wanted.expand_as(scores))


def test_nothing_is_given_back_where_no_class_is_left_out() -> None:
    for kind in ("none", "mean", "anchored"):
        assert "misses" not in made(drift=kind, drift_debias=0.5).state_dict()
    assert "misses" not in made(drift_debias=0.0).state_dict()
    one = FeatureDrift(*(images(1)[0] + k for k in range(2)), CLASSES, None)
    assert not one.misses("linear", CLASSES).any()
    assert not drift(1).misses("local", CLASSES).any()


def test_two_estimates_err_by_half_the_square_of_one() -> None:
    one = drift(1)
    torch.testing.assert_close(one.misses("mixed", CLASSES) * 2**0.5, one.misses("linear", CLASSES))


def test_a_forgotten_class_is_given_nothing_back_and_says_what_of_it_remains() -> None:
    head = made(drift_debias=0.5)
    taught(head)
    traces = head.forget(CLASSES)
    assert not head.misses[CLASSES].any()
    assert any("given_back" in trace.tensors for trace in traces)
    other = made(drift_debias=0.5)
    taught(other, 2)
    assert not any("given_back" in trace.tensors for trace in other.forget(0))
    head.start_task(task(TASKS))
    head.end_task(task(TASKS), FeatureSurvey(images(TASKS)))
    assert head.given_back[CLASSES] == head.bias[CLASSES] == 0
