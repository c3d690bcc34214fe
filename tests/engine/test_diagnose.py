"""The diagnosis of a selection: what it measures, and that it changes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perdure.engine.build import make_backbone, make_stream
from perdure.engine.diagnose import _fitted_accuracy, diagnose, selecting_methods
from perdure.engine.evaluate import Evaluator
from perdure.engine.events import Event
from perdure.engine.run import plan
from perdure.engine.survey import ImageSurvey
from perdure.errors import ConfigError
from perdure.experiment import run
from perdure.methods import METHODS
from perdure.methods.coda_prompt import CodaPrompt
from perdure.randomness import generator
from perdure.reports.results.files import read_results
from perdure.selection import describe
from perdure.streams import build_transform
from perdure.testing import make_trial
from perdure.testing.trial import Trial
from tests.tiny import small_config

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("unchecked")]
TASKS = np.repeat(np.arange(3), 20)


def choices(informative: bool) -> Any:
    noise = torch.rand(60, 4, generator=generator(0, "noise")).numpy().astype(np.float64)
    if informative:
        noise[np.arange(60), TASKS] += 2
    return noise, TASKS


@pytest.mark.parametrize("informative", [True, False])
def test_task_is_told_where_the_choice_knows_it(informative: bool) -> None:
    accuracy = _fitted_accuracy(choices(informative), choices(informative))
    assert accuracy == 1.0 if informative else accuracy < 0.7


def test_a_single_task_is_always_told() -> None:
    one = (np.ones((4, 2)), np.zeros(4, dtype=np.int64))
    assert _fitted_accuracy(one, one) == 1.0


@pytest.mark.parametrize("name", selecting_methods())
def test_diagnosis_leaves_the_model_as_it_was(name: str) -> None:
    trial = make_trial(name)
    model = trial.run().model
    before = {key: value.clone() for key, value in model.state().items()}
    seen: list[Event] = []
    found = diagnose(model, trial.stream.tasks, seen.append)
    assert all(torch.equal(value, before[key]) for key, value in model.state().items())
    assert found.task_accuracy is not None
    assert 0 <= found.task_accuracy <= 1
    assert found.task_chance == pytest.approx(1 / 2)
    assert bool(found.oracle_accuracy) is METHODS[name].traits.prompts_of_tasks
    assert seen[-1].fields["done"] == seen[-1].fields["total"]


@pytest.mark.parametrize("name", list(METHODS))
def test_only_prompts_of_tasks_have_an_oracle(name: str) -> None:
    trial = make_trial(name)
    method = trial.start(plan(trial.stream, trial.config)[0]).model.method
    query = torch.ones(2, method.spec.dim)
    if method.traits.prompts_of_tasks:
        assert method.oracle(query, trial.stream.tasks[0].task).blocks
        return
    with pytest.raises(NotImplementedError, match="belong to no task"):
        method.oracle(query, trial.stream.tasks[0].task)


def oracle_accuracy(trial: Trial, method: Any) -> float:
    """Literally: every task's images get its own prompts, one image at a time."""
    model = trial.run().model
    right = total = 0
    for data in trial.stream.tasks:
        for position in range(len(data.test)):
            index = int(data.test.indices[position])
            pixels = trial_pixels(trial, data, index)
            query = model.backbone(model.backbone.normalise(pixels)).cls
            added = method(model.method, query, data.task)
            cls = model.backbone(model.backbone.normalise(pixels), added).cls
            assert cls is not None
            guess = int(model.head_logits(cls)["linear"].argmax())
            right += guess == int(data.test.labels[position])
            total += 1
    return right / total


def trial_pixels(trial: Trial, data: Any, index: int) -> torch.Tensor:
    test = build_transform(trial.config.training.transform, trial.backbone.img_size).test
    return test(data.test.images.image(index)).unsqueeze(0)


def test_oracle_of_dualprompt_is_the_expert_of_the_images_own_task() -> None:
    def own(method: Any, query: Any, task: Any) -> Any:
        added = method.additions(query, task)  # as in training
        return dataclasses.replace(added, penalties={})

    trial = make_trial("dualprompt", sizes=(2, 2, 2))
    found = diagnose(trial.run().model, trial.stream.tasks).oracle_accuracy["linear"]
    assert found == pytest.approx(oracle_accuracy(trial, own))


def test_oracle_of_coda_prompt_leaves_out_the_components_of_later_tasks() -> None:
    trial = make_trial("coda_prompt", sizes=(2, 2), components=2)
    method = trial.run().model.method
    assert isinstance(method, CodaPrompt)
    query = torch.randn(3, method.spec.dim, generator=generator(0, "query"))
    tasks = [data.task for data in trial.stream.tasks]
    first, last = (method.oracle(query, task).prefix[0][0] for task in tasks)
    assert torch.equal(last, method.additions(query, None).prefix[0][0])
    with torch.no_grad():
        method.new["prompts_0"].zero_()
    assert torch.equal(method.oracle(query, tasks[0]).prefix[0][0], first)
    assert not torch.equal(method.oracle(query, tasks[1]).prefix[0][0], last)


def test_results_hold_the_diagnosis_and_are_otherwise_the_same(tmp_path: Path) -> None:
    config = small_config("dualprompt", tasks="5+5", images_per_class=4, epochs=1)
    plain = run(config, tmp_path / "plain").entries
    assert "diagnosis" not in plain[0]
    at_once = run(config, tmp_path / "at-once", diagnose=True).entries
    later = run(config, tmp_path / "plain", resume=True, diagnose=True)
    assert not later.already
    assert later.entries[0]["diagnosis"] == at_once[0]["diagnosis"]
    assert read_results(tmp_path / "plain") == later.entries
    assert later.entries[0]["accuracy_matrix"] == plain[0]["accuracy_matrix"]
    assert run(config, tmp_path / "plain", resume=True, diagnose=True).already


def test_a_method_that_chooses_nothing_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'nsp2' gives every image the same.*=linear,gaussian"):
        run(small_config("nsp2"), tmp_path / "run", diagnose=True)
    assert not (tmp_path / "run").exists()


def test_heads_fitted_anew_to_all_images_are_those_of_a_head_that_saw_them_at_once() -> None:
    """Literally: the moments of all training images under the last prompts."""
    trial = make_trial("finetune", sizes=(2, 2), heads=("linear", "gaussian", "ncm(drift=mean)"))
    model = trial.run().model
    found = diagnose(model, trial.stream.tasks)
    assert (found.task_accuracy, found.oracle_accuracy) == (None, {})
    assert found.all_seen_accuracy.keys() == {"gaussian", "ncm(drift=mean)"}
    means, right, total = [], 0, 0
    for data in trial.stream.tasks:
        features, labels = ImageSurvey(model, data).features("train")
        means += [features[labels == label].mean(0) for label in data.task.classes]
    unit = torch.nn.functional.normalize(torch.stack(means))
    for data in trial.stream.tasks:
        features, labels = ImageSurvey(model, dataclasses.replace(data, train=data.test)).features()
        scores = torch.nn.functional.normalize(features) @ unit.T
        right += int((scores.argmax(1) == labels).sum())
        total += len(labels)
    assert found.all_seen_accuracy["ncm(drift=mean)"] == pytest.approx(right / total)


def test_with_adapt_first_no_task_has_prompts_of_its_own() -> None:
    trial = make_trial("dualprompt", sizes=(2, 2), heads=("gaussian",), adapt="first")
    found = diagnose(trial.run().model, trial.stream.tasks)
    assert not found.oracle_accuracy
    assert found.all_seen_accuracy.keys() == {"gaussian"}


def test_a_stream_without_test_images_is_refused() -> None:
    config = small_config("l2p")
    backbone = make_backbone(config)
    trial = Trial(config, backbone, make_stream(config))
    empty = [
        dataclasses.replace(
            data, test=dataclasses.replace(data.test, indices=data.test.indices[:0])
        )
        for data in trial.stream.tasks
    ]
    with pytest.raises(ConfigError, match="no test image to diagnose"):
        diagnose(trial.run().model, empty)


def test_selections_under_fixed_prompts_are_of_all_tasks() -> None:
    """As a new evaluation of the finished model counts them, and so a run that was resumed."""
    trial = make_trial("l2p", sizes=(2, 2, 2), heads=("gaussian",), adapt="first")
    made = trial.run()
    anew = Evaluator()
    anew(made.model, trial.stream.tasks)
    assert made.selection == describe(list(anew.selections.values())) != {}
