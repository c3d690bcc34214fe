"""Every check of heads can fail: for each there is a broken head that it finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from perdure.errors import UnknownNameError
from perdure.heads import HEADS, Head, LinearHead, NearestMeanHead
from perdure.heads.config import LinearConfig
from perdure.numerics.feature_drift import FeatureDrift
from perdure.testing import HEAD_CHECKS, Check, check_head
from perdure.testing.heads import (
    check_alone_in_batch,
    check_follows,
    check_forgets,
    check_grows_with_classes,
    check_more_images,
    check_saved_and_loaded,
)
from perdure.types import Survey, Task, Trace


class Mean(NearestMeanHead):
    """What the mutants have in common: nothing of their own is declared."""


class StaysBehind(Mean):
    def follow(self, drift: FeatureDrift) -> None:
        pass


class FollowsTheLastMean(Mean):
    def follow(self, drift: FeatureDrift) -> None:
        first = self.means[0].clone()
        super().follow(drift)
        self.means[0] = first


class SortsColumns(Mean):
    def logits(self, features: Tensor) -> Tensor:
        return super().logits(features).flip(1)


class ScoresTheTaskAlone(Mean):
    def start_task(self, task: Task) -> None:
        super().start_task(task)
        self.first = task.classes[0]

    def logits(self, features: Tensor) -> Tensor:
        return super().logits(features)[:, self.first :]


class GrowsLate(Mean):
    def end_task(self, task: Task, survey: Survey) -> None:
        super().end_task(task, survey)
        self.register_buffer(f"squares_{task.index}", self.means.square())


class HoardsFeatures(Mean):
    """A memory of old images that no state tells of."""

    def end_task(self, task: Task, survey: Survey) -> None:
        super().end_task(task, survey)
        self.memory = [*getattr(self, "memory", []), survey.features()[0]]


class CentresOverBatch(Mean):
    def logits(self, features: Tensor) -> Tensor:
        return super().logits(features - 1e-2 * features.mean(0))


class CountsScorings(Mean):
    def logits(self, features: Tensor) -> Tensor:
        self.counts += 1
        return super().logits(features)


class ScoresWithNoise(Mean):
    def logits(self, features: Tensor) -> Tensor:
        return super().logits(features) + 1e-7 * torch.randn(len(features), 1)


class LosesScale(Mean):
    """What its scores depend on is no part of its state."""

    scale = 1.0

    def end_task(self, task: Task, survey: Survey) -> None:
        super().end_task(task, survey)
        self.scale = float(survey.features()[0].norm())

    def logits(self, features: Tensor) -> Tensor:
        return self.scale * super().logits(features)


class DeclaresMeansIdle(Mean):
    learning_only = ("means",)


class LosesProgress(Mean):
    """How it takes in the next task depends on a number that no file keeps."""

    tasks = 0

    def end_task(self, task: Task, survey: Survey) -> None:
        super().end_task(task, survey)
        self.tasks += 1
        self.means[list(task.classes)] += 0.1 * self.tasks


class MeansOfMeans(Mean):
    """The mean over all images is not that of two means, where these are of unequally many."""

    def take_in(self, features: Tensor, labels: Tensor) -> None:
        for label in labels.unique():
            self.means[label] = (self.means[label] + features[labels == label][0]) / 2


class ForgetsNothing(Mean):
    def forget(self, label: int) -> list[Trace]:
        return []


class KeepsCount(Mean):
    def forget(self, label: int) -> list[Trace]:
        self.means[label] = 0
        return []


class NamesWhatIsNot(Mean):
    def forget(self, label: int) -> list[Trace]:
        return [*super().forget(label), Trace("its covariance", ("covariance",))]


class ForgetsAll(Mean):
    def forget(self, label: int) -> list[Trace]:
        self.means.zero_()
        self.counts.zero_()
        return []


class ForgetsItsRowAlone(LinearHead):
    """Other rows of the layer were trained against it; it does not say so."""

    Config = LinearConfig

    def forget(self, label: int) -> list[Trace]:
        super().forget(label)
        return []


MUTANTS: list[tuple[type[Head], Check, str]] = [
    (SortsColumns, check_grows_with_classes, "Columns are classes in order of arrival"),
    (ScoresTheTaskAlone, check_grows_with_classes, r"scores of shape \(20, 1\) for 20 images of 3"),
    (GrowsLate, check_grows_with_classes, "changes the shape of squares_0 after start_task"),
    (HoardsFeatures, check_grows_with_classes, "holds tensors outside its state that grow"),
    (CentresOverBatch, check_alone_in_batch, "differently alone and in a batch"),
    (CountsScorings, check_alone_in_batch, "changes counts by scoring"),
    (ScoresWithNoise, check_alone_in_batch, "differently the second time"),
    (LosesScale, check_saved_and_loaded, "scores differently after being saved"),
    (DeclaresMeansIdle, check_saved_and_loaded, "without means: its scores must not read"),
    (LosesProgress, check_saved_and_loaded, "learns the next task differently"),
    (MeansOfMeans, check_more_images, "with half of the images taken in later"),
    (StaysBehind, check_follows, "does not follow an affine drift"),
    (FollowsTheLastMean, check_follows, "does not follow an affine drift"),
    (ForgetsNothing, check_forgets, "counts, means still depend on its images"),
    (KeepsCount, check_forgets, "counts still depends on its images"),
    (NamesWhatIsNot, check_forgets, "names traces in covariance, which it lacks"),
    (ForgetsAll, check_forgets, "tells other classes apart differently"),
    (ForgetsItsRowAlone, check_forgets, "bias, weight still depend"),
]


@contextmanager
def registered(head: type[Head]) -> Iterator[str]:
    """Register a head for as long as the test needs it."""
    name = head.__name__.lower()
    HEADS.register(name)(head)
    try:
        yield name
    finally:
        HEADS.unregister(name)


def test_every_check_has_a_mutant() -> None:
    assert {check for _, check, _ in MUTANTS} == set(HEAD_CHECKS)


@pytest.mark.parametrize(
    ("mutant", "check", "text"), MUTANTS, ids=[mutant.__name__ for mutant, _, _ in MUTANTS]
)
def test_check_finds_mutant(mutant: type[Head], check: Check, text: str) -> None:
    with registered(mutant) as name, pytest.raises(AssertionError, match=text):
        check(name)


class Nearest(Head):
    """The class whose mean is nearest; as small as a head can be."""

    def start_task(self, task: Task) -> None:
        for label in task.classes:
            self.register_buffer(f"mean_{label}", torch.zeros(self.dim))

    def logits(self, features: Tensor) -> Tensor:
        means = torch.stack(list(self.buffers()))
        return -(features[:, None] - means).square().sum(2)

    def end_task(self, task: Task, survey: Survey) -> None:
        features, labels = survey.features()
        for label in task.classes:
            self.get_buffer(f"mean_{label}").copy_(features[labels == label].mean(0))


def test_a_head_of_three_methods_passes() -> None:
    with registered(Nearest) as name:
        check_head(name)
        declared = HEADS.declared[name]
    assert declared.closed_form
    assert not declared.needs_projection


def test_check_head_reports_every_failure() -> None:
    class BreaksMuch(SortsColumns, ForgetsNothing):
        pass

    with registered(BreaksMuch) as name, pytest.raises(AssertionError) as found:
        check_head(name)
    text = str(found.value)
    assert f"'{name}' fails 2 of {len(HEAD_CHECKS)} checks:\n- check_grows_with_classes: " in text
    assert "\n- check_forgets: " in text


def test_check_head_refuses_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'gaussian'"):
        check_head("gausian")
