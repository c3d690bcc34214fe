"""Every check can fail: for each there is a broken method, or a broken engine, that it finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perdure.backbones.additions import Additions
from perdure.engine import survey
from perdure.engine.evaluate import Evaluator
from perdure.engine.model import Model
from perdure.engine.training import Training
from perdure.errors import UnknownNameError
from perdure.methods import METHODS, Method
from perdure.methods.finetune import Finetune
from perdure.methods.iprompt import IPrompt
from perdure.methods.nsp2 import NSP2, NSP2Guard
from perdure.methods.null_space import Gram
from perdure.randomness import generator
from perdure.streams import TaskData
from perdure.testing import ALL_CHECKS, Check, check_method
from perdure.testing.checks import (
    check_alone_in_batch,
    check_backbone_unchanged,
    check_beats_chance,
    check_first_block,
    check_gradients,
    check_images_touched,
    check_no_task_at_test,
    check_observers_merge,
    check_prediction_pure,
    check_projection,
    check_resume,
    check_save_load,
    check_state_growth,
)
from perdure.types import BackboneSpec, BlockView, Features, Generators, Loss, Survey, Task


class WritesIntoBackbone(Finetune):
    def end_task(self, task: Task, survey: Survey) -> None:
        self.spec.key_weight[0].mul_(1.001)


class ThawsBackbone(Finetune):
    def end_task(self, task: Task, survey: Survey) -> None:
        self.spec.norm_scale[0].requires_grad_(True)


class TrainsUnused(Finetune):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.unused = nn.Parameter(torch.ones(3))


class DeclaresIdle(Finetune):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.idle = nn.Parameter(torch.ones(3))

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": list(self.prompts.parameters()), "lr": lr}]


class CountsPredictions(Finetune):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("calls", torch.zeros(()))

    def additions(self, query: Tensor | None, task: Task | None) -> Additions:
        self.get_buffer("calls").add_(1)
        return super().additions(query, task)


class PredictsWithNoise(Finetune):
    def readout(self, features: Features) -> Tensor:
        return super().readout(features) + 1e-3 * torch.randn(self.spec.dim)


class CentresOverBatch(Finetune):
    def readout(self, features: Features) -> Tensor:
        cls = super().readout(features)
        return cls - 1e-2 * cls.mean(0)


class StartsTooLate(Finetune):
    @property
    def first_block(self) -> int:
        return super().first_block + 1


class ReadsTheInput(Finetune):
    """What it adds depends on the first block's input, which cached tokens lack."""

    @property
    def first_block(self) -> int:
        return 1

    def additions(self, query: Tensor | None, task: Task | None) -> Additions:
        return Additions(input=torch.ones(1, 1, self.spec.dim))


class AsksForTask(Finetune):
    def additions(self, query: Tensor | None, task: Task | None) -> Additions:
        self.asked = task.index  # type: ignore[union-attr]
        return super().additions(query, task)


class ReadsOldImages(Finetune):
    def end_task(self, task: Task, survey: Survey) -> None:
        if task.index > 0:
            survey._subset("train").images.image(0)  # type: ignore[attr-defined]


class ForgetsBuffer(Finetune):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("shift", torch.zeros(self.spec.dim), persistent=False)

    def end_task(self, task: Task, survey: Survey) -> None:
        self.get_buffer("shift").add_(torch.arange(self.spec.dim))

    def readout(self, features: Features) -> Tensor:
        return super().readout(features) + self.get_buffer("shift")


class DeclaresPromptsIdle(Finetune):
    learning_only = ("prompts.*",)


class DrawsGlobally(Finetune):
    def loss(self, logits: Tensor, features: Features, labels: Tensor, task: Task) -> Loss:
        return super().loss(logits + 0.1 * torch.randn(logits.shape), features, labels, task)


class RemembersSteps(Finetune):
    """Its loss depends on a counter that no checkpoint keeps."""

    steps = 0

    def loss(self, logits: Tensor, features: Features, labels: Tensor, task: Task) -> Loss:
        self.steps += 1
        return super().loss(logits * (1 + self.steps), features, labels, task)


class GrowsSilently(Finetune):
    def end_task(self, task: Task, survey: Survey) -> None:
        self.register_buffer(f"mean_{task.index}", survey.features("train")[0].mean(0))


class HoardsFeatures(Finetune):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.kept: list[dict[str, Tensor]] = []

    def end_task(self, task: Task, survey: Survey) -> None:
        self.kept.append({"features": survey.features("train")[0]})


class MeansOfShards(IPrompt):
    """Its observer keeps the last batch's mean inputs, and of two observers the other's."""

    def end_task(self, task: Task, survey: Survey) -> None:
        survey(LastMean())


class LastMean:
    mean = torch.zeros(())

    def start_batch(self, positions: Tensor, total: int, labels: Tensor) -> None:
        """Nothing to look up."""

    def block(self, index: int, view: BlockView) -> None:
        self.mean = view.inputs.mean()

    def merge(self, other: LastMean) -> None:
        self.mean = other.mean


class NeverLearns(Finetune):
    def loss(self, logits: Tensor, features: Features, labels: Tensor, task: Task) -> Loss:
        return Loss({"nothing": 0 * logits.sum()})


class ProjectsAtRandom(NSP2):
    """Replaces both projectors by random ones of the same rank."""

    def __init__(self, spec: BackboneSpec, config: Any, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.guard = RandomGuard(spec, config, self.prompts)


class RandomGuard(NSP2Guard):
    def _renew_projector(self, gram: Gram) -> None:
        super()._renew_projector(gram)
        projector = self.get_buffer(gram.projector)
        dim, rank = len(projector), round(float(projector.trace()))
        drawn = torch.randn(dim, dim, generator=generator(0, str(gram)))
        basis = torch.linalg.qr(drawn)[0][:, :rank]
        projector.copy_(basis @ basis.T)


MUTANTS: list[tuple[type[Method], Check, str]] = [
    (WritesIntoBackbone, check_backbone_unchanged, "changed the frozen backbone"),
    (ThawsBackbone, check_backbone_unchanged, "ask for gradients"),
    (TrainsUnused, check_gradients, "no gradient reaches in task 0: method.unused"),
    (DeclaresIdle, check_gradients, "neither of its first two tasks trains: method.idle"),
    (CountsPredictions, check_prediction_pure, "changes method.calls by predicting"),
    (PredictsWithNoise, check_prediction_pure, "differently the second time"),
    (CentresOverBatch, check_alone_in_batch, "differently alone and in a batch"),
    (StartsTooLate, check_first_block, "Something is added at block"),
    (ReadsTheInput, check_first_block, "Something is added at block 0"),
    (AsksForTask, check_no_task_at_test, "cannot predict without being told the task"),
    (ReadsOldImages, check_images_touched, r"task 1 may not see.* train\[0\]"),
    (ForgetsBuffer, check_save_load, "scores differently after being saved and loaded"),
    (
        DeclaresPromptsIdle,
        check_save_load,
        "must not read what learning_only names, method.prompts",
    ),
    (MeansOfShards, check_observers_merge, "mean of a merged LastMean differs"),
    (DrawsGlobally, check_resume, "differ from the straight run"),
    (RemembersSteps, check_resume, "differ from the straight run"),
    (GrowsSilently, check_state_growth, "declares state_growth='none'"),
    (HoardsFeatures, check_state_growth, "outside its state"),
    (NeverLearns, check_beats_chance, "learns next to nothing"),
    (ProjectsAtRandom, check_projection, "times as far as under an unprojected step"),
]


@contextmanager
def registered(method: type[Method]) -> Iterator[str]:
    """Register a method for as long as the test needs it."""
    name = method.__name__.lower()
    METHODS.register(name)(method)
    try:
        yield name
    finally:
        METHODS.unregister(name)


def test_every_check_has_a_mutant() -> None:
    assert {check for _, check, _ in MUTANTS} == set(ALL_CHECKS)


@pytest.mark.long
@pytest.mark.parametrize(
    ("mutant", "check", "text"), MUTANTS, ids=[mutant.__name__ for mutant, _, _ in MUTANTS]
)
def test_check_finds_mutant(mutant: type[Method], check: Check, text: str) -> None:
    with registered(mutant) as name, pytest.raises(AssertionError, match=text):
        check(name)


@pytest.mark.parametrize("declared", ["per task", "per class"])
def test_growth_must_be_of_the_declared_kind(declared: str) -> None:
    class Declares(GrowsSilently):
        traits = Finetune.traits.__class__(paper="", summary="", state_growth=declared)

    with registered(Declares) as name:
        if declared == "per task":
            check_state_growth(name)
        else:
            with pytest.raises(AssertionError, match="declares state_growth='per class'"):
                check_state_growth(name)


def test_engine_that_tells_the_task_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    @torch.no_grad()
    def told(self: Evaluator, model: Model, data: TaskData) -> list[tuple[Tensor, Tensor]]:
        batches = survey.ordered_batches(model, data.test)
        return [(model.forward(batch.images, data.task)[0], batch.labels) for batch in batches]

    monkeypatch.setattr(Evaluator, "_readouts", told)
    with pytest.raises(AssertionError, match="was told the task at test time"):
        check_no_task_at_test("finetune")


@pytest.mark.long
def test_engine_that_surveys_old_images_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TaskData] = []

    def first(self: Training) -> survey.ImageSurvey:
        seen.append(self.data)
        return survey.ImageSurvey(self.model, seen[0], self._sink)

    monkeypatch.setattr(Training, "_survey", first)
    with pytest.raises(AssertionError, match="read images that task 1 may not see"):
        check_images_touched("nsp2")


@pytest.mark.long
def test_engine_that_reads_future_test_images_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    readouts = Evaluator._readouts

    def peek(self: Evaluator, model: Model, data: TaskData) -> list[tuple[Tensor, Tensor]]:
        data.test.images.image(len(data.test.images) - 1)
        return readouts(self, model, data)

    monkeypatch.setattr(Evaluator, "_readouts", peek)
    with pytest.raises(AssertionError, match=r"task 0 may not see, in phase 'evaluation': test"):
        check_images_touched("nsp2")


@pytest.mark.long
def test_check_method_reports_every_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    class BreaksMuch(CountsPredictions, GrowsSilently):
        pass

    chosen = (check_alone_in_batch, check_prediction_pure, check_save_load)
    monkeypatch.setattr("perdure.testing.checks.ALL_CHECKS", chosen)
    with registered(BreaksMuch) as name, pytest.raises(AssertionError) as found:
        check_method(name)
    text = str(found.value)
    assert f"'{name}' fails 2 of 3 checks:\n- check_prediction_pure: " in text
    assert f"\n- check_save_load: '{name}' was stopped: The saved method does not fit" in text


def test_check_method_refuses_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'finetune'"):
        check_method("finetun")
