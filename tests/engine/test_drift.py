"""Statistics follow the drift of features; prompts merge; with adapt=first they stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from perdure.engine.build import make_backbone, make_stream
from perdure.engine.config import Config, make_config
from perdure.engine.drift import refuse_test_images, unlabelled
from perdure.engine.events import Event
from perdure.engine.model import Model
from perdure.engine.run import Outcome, Run, Stage, plan
from perdure.engine.survey import ImageSurvey
from perdure.engine.training import Training
from perdure.errors import ConfigError, StreamError, UnreadableImageError
from perdure.heads import GaussianHead
from perdure.methods.coda_prompt import CodaPrompt
from perdure.numerics.gaussians import class_moments
from perdure.testing.trial import Trial, make_trial
from perdure.types import Survey, Task
from tests.engine.test_run import Stop, carry_out, stop_after
from tests.tiny import SMALL, classifier, lesson, small_config

pytestmark = pytest.mark.usefixtures("unchecked")
KINDS = ("mean", "local", "linear", "linear+local", "anchored", "mixed")
FOLLOWING = ("ncm", *(f"gaussian(drift={kind})" for kind in KINDS))


def trial(method: str, heads: tuple[str, ...] = ("gaussian",), **options: Any) -> Trial:
    return make_trial(method, sizes=(2, 2), heads=heads, **options)


def learned(method: str, *heads: str, **options: Any) -> tuple[Trial, Outcome, list[Event]]:
    made, events = trial(method, heads, **options), list[Event]()
    return made, made.run(sink=events.append), events


def old_means(made: Trial, model: Model) -> torch.Tensor:
    """Class means of the first task's images as a head would measure them now."""
    survey = ImageSurvey(model, made.stream.tasks[0])
    return class_moments(*survey.features("train"), (0, 1)).means


@pytest.mark.parametrize(
    "method", ["finetune", "nsp2", "iprompt", "l2p", "dualprompt", "coda_prompt"]
)
def test_means_that_follow_are_closer_to_those_measured_anew(method: str) -> None:
    """By maps fitted on the task's images; the stale ones are as far as the features moved."""
    heads = ("gaussian", *FOLLOWING[1:])
    made, events = make_trial(method, sizes=(2, 8), images=3, heads=heads), list[Event]()
    outcome = made.run(sink=events.append)
    now = old_means(made, outcome.model)
    apart = {head: float((means(outcome, head)[:2] - now).norm()) for head in heads}
    stale = apart.pop("gaussian")
    chained = [apart[f"gaussian(drift={kind})"] for kind in KINDS[:4]]
    assert max(chained) < stale
    assert len({stale, *apart.values()}) == len(heads)
    drifts = [event for event in events if event.kind == "drift"]
    assert {event.fields["head"] for event in drifts} == set(heads[1:])
    assert all(event.task == 1 and event.fields["size"] > 0 for event in drifts)
    assert outcome.drift == [{"task": event.task, **event.fields} for event in drifts]


def means(outcome: Outcome, head: str) -> torch.Tensor:
    return outcome.model.heads[head].get_buffer("means")


def test_a_scatter_that_follows_is_symmetric_and_moves_with_the_map() -> None:
    _, outcome, _ = learned(
        "finetune", "gaussian", "gaussian(drift=linear)", "gaussian(drift=mean)"
    )
    parts = [outcome.model.heads[head] for head in outcome.model.config.head_names]
    stale, linear, mean = (part.get_buffer("scatter") for part in parts)
    assert torch.equal(stale, mean)
    torch.testing.assert_close(linear, linear.T)
    assert not torch.equal(linear, stale)


@pytest.mark.parametrize("method", ["linear", "ncm"])
def test_frozen_features_need_no_pass(method: str) -> None:
    heads = {} if method == "linear" else {"drift": "mixed"}
    made = make_trial(method, **heads)
    events: list[Event] = []
    followed = made.run(sink=events.append)
    plain = make_trial(method).run()
    assert not followed.drift
    assert followed.model.anchors is None
    state = plain.model.state()
    assert all(torch.equal(value, state[name]) for name, value in followed.model.state().items())


class TestAdaptFirst:
    """Prompts are trained in the first task of several classes, and stay."""

    def test_features_stay_and_a_closed_form_head_is_exact(self) -> None:
        made = make_trial(
            "coda_prompt", sizes=(1, 2, 2), heads=("gaussian",), adapt="first", drift="linear"
        )
        model, features = None, []
        for stage in _stages(made):
            training = made.start(stage, model)
            training.train()
            training.finish()
            model = training.model
            features.append(ImageSurvey(model, made.stream.tasks[0]).features("train")[0])
        assert model is not None
        assert not torch.equal(features[0], features[1])
        assert torch.equal(features[1], features[2])
        kept = model.heads["gaussian"].get_buffer("means")
        for data in made.stream.tasks[1:]:
            exact = class_moments(*ImageSurvey(model, data).features("train"), data.task.classes)
            torch.testing.assert_close(kept[list(data.task.classes)], exact.means)

    def test_later_tasks_take_no_step_unless_the_trained_head_is_evaluated(self) -> None:
        def steps(*heads: str) -> list[int]:
            _, _, events = learned("iprompt", *heads, adapt="first")
            shown = [e for e in events if e.kind == "progress" and e.fields["phase"] == "training"]
            return [sum(e.task == task for e in shown) for task in (0, 1)]

        first, second = steps("gaussian")
        assert first > 0
        assert second == 0
        assert steps("linear", "gaussian") == [first, first]

    def test_the_trained_head_learns_under_prompts_that_stay(self) -> None:
        made = make_trial("l2p", heads=("linear", "gaussian"), adapt="first", transform="nsp2")
        training = made.start(_stages(made)[0])
        training.train()
        training.finish()
        before = {k: v.clone() for k, v in training.model.method.state_dict().items()}
        second = made.start(_stages(made)[1], training.model)
        layer = {k: v.clone() for k, v in second.model.heads["linear"].state_dict().items()}
        second.train()
        second.finish()
        after = second.model.method.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        assert any(
            not torch.equal(value, layer[name])
            for name, value in second.model.heads["linear"].state_dict().items()
        )

    def test_a_later_lesson_holds_no_image_out(self) -> None:
        """On features that stay, temperatures are fitted to answers of images left out in turn."""
        clf = classifier("finetune", adapt="first", shrinkage="loo", calibration_fraction=0.2)
        clf.learn(*lesson("red", "green", count=10))
        first = clf.last_lesson_
        clf.learn(*lesson("blue", "teal", count=10))
        second = clf.last_lesson_
        assert (first.held_out, second.held_out) == (4, 0)
        assert list(second.images.values()) == [10, 10]


class TestMerge:
    """Of what task t changes, t⁻ᵃ is kept."""

    @pytest.mark.parametrize("method", ["finetune", "iprompt", "dualprompt", "l2p"])
    def test_half_of_the_second_task(self, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        made = make_trial(method, heads=("gaussian",), merge="mean")
        training = made.start(_stages(made)[0])
        training.train()
        training.finish()
        second = made.start(_stages(made)[1], training.model)
        parameters = dict(second.model.method.named_parameters())
        before = {name: value.detach().clone() for name, value in parameters.items()}
        second.train()
        trained = {name: value.detach().clone() for name, value in parameters.items()}
        merged = {name.removeprefix("parameter.") for name in second.carried}
        assert merged
        asked: dict[str, torch.Tensor] = {}
        end_task = second.model.method.end_task

        def watched(task: Task, survey: Survey) -> None:
            asked.update({name: value.detach().clone() for name, value in parameters.items()})
            end_task(task, survey)

        monkeypatch.setattr(second.model.method, "end_task", watched)
        second.finish()
        for name in merged:
            torch.testing.assert_close(asked[name], (before[name] + trained[name]) / 2)
        for name in parameters.keys() - merged:
            assert torch.equal(asked[name], trained[name])

    def test_components_of_a_task_count_less(self) -> None:
        made = make_trial("coda_prompt", heads=("gaussian",), merge=0.5)
        training = made.start(_stages(made)[0])
        training.train()
        training.finish()
        second = made.start(_stages(made)[1], training.model)
        second.train()
        assert isinstance(second.model.method, CodaPrompt)
        trained = {k: v.detach().clone() for k, v in second.model.method.new.items()}
        second.finish()
        for name, value in second.model.method.new.items():
            expected = trained[name] * (2**-0.5 if name.startswith("prompts") else 1)
            torch.testing.assert_close(value.detach(), expected)


@pytest.mark.long
@pytest.mark.parametrize("steps", [0, 3])
def test_interrupted_between_the_two_surveys_it_ends_the_same(tmp_path: Path, steps: int) -> None:
    heads = ["gaussian(drift=mixed,drift_debias=1)", "ncm(drift=local)"]
    config = small_config("iprompt", heads=heads, merge=0.5, tasks="5+5", epochs=1)
    whole = carry_out(config)
    per_task = 10
    with pytest.raises(Stop):
        _run(config, tmp_path, stop_after(per_task + 1 + steps))
    resumed = carry_out(config, tmp_path)
    assert resumed.drift == whole.drift
    state = whole.model.state()
    assert all(torch.equal(value, state[name]) for name, value in resumed.model.state().items())
    (gaussian, _) = (resumed.model.heads[name] for name in config.head_names)
    assert isinstance(gaussian, GaussianHead)
    assert (gaussian.given_back[:5] > 0).all()
    assert not gaussian.given_back[5:].any()


class TestLearner:
    """A classifier follows from lesson to lesson as a run does."""

    def test_a_second_lesson(self) -> None:
        told: list[Event] = []
        clf = classifier("finetune", drift="mixed", merge="mean")
        clf.learn(*lesson("red", "green"))
        clf.learn(*lesson("blue", "teal"), on_event=told.append)
        assert [event.task for event in told if event.kind == "drift"] == [1]
        clf.learn(*lesson("red", count=4, seed=1))
        assert clf.score(*lesson("red", "green", "blue", "teal", seed=2)) > 0.5

    def test_saved_and_loaded_it_goes_on_the_same(self, tmp_path: Path) -> None:
        clf = classifier("finetune", heads=["gaussian(drift=anchored)"])
        clf.learn(*lesson("red", "green")).save(tmp_path / "m")
        assert "one mean plain feature" in (tmp_path / "m" / "README.md").read_text()
        loaded = type(clf).load(tmp_path / "m")
        for one in (clf, loaded):
            one.learn(*lesson("blue", "teal"))
        ours, theirs = clf.model.state(), loaded.model.state()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())

    def test_a_forgotten_class_leaves_no_vector(self) -> None:
        clf = classifier("finetune", heads=["gaussian(drift=mixed)", "ncm(drift=linear)"])
        clf.learn(*lesson("red", "green"))
        clf.forget_class("red")
        clf.learn(*lesson("blue", "teal"))
        label, state = clf.model.label_names.index("red"), clf.model.state()
        kept = [f"heads.{head}.means" for head in clf.model.config.head_names]
        for name in ("anchors.means", "anchors.correction", *kept):
            assert not state[name][label].any()
            assert state[name][1 - label].any()


class TestDriftImages:
    """Unlabelled photographs that are looked at beside a task's own."""

    def test_they_are_added_to_the_pairs(self, tmp_path: Path) -> None:
        _photographs(tmp_path / "any", 5)
        made = trial("finetune", ("gaussian(drift=linear)",), drift_images=str(tmp_path / "any"))
        stages = _stages(made)
        first = made.start(stages[0])
        first.train()
        first.finish()
        second = Training(first.model, stages[1].data, others=unlabelled(str(tmp_path / "any")))
        second.start()
        assert len(second.carried["features"]) == len(stages[1].data.train) + 5
        second.train()
        second.finish()
        assert made.run().drift[0]["size"] > 0

    def test_others_than_when_the_task_began_are_refused(self, tmp_path: Path) -> None:
        folder = tmp_path / "any"
        _photographs(folder, 3)
        made = trial("finetune", ("gaussian(drift=linear)",), drift_images=str(folder))
        stages = _stages(made)
        first = made.start(stages[0])
        first.train()
        first.finish()
        second = Training(first.model, stages[1].data, others=unlabelled(str(folder)))
        second.start()
        again = unlabelled(str(folder))
        Training(first.model, stages[1].data, carried=second.carried, others=again)
        next(folder.iterdir()).unlink()
        fewer = unlabelled(str(folder))
        with pytest.raises(ConfigError, match="others than when this task began"):
            Training(first.model, stages[1].data, carried=second.carried, others=fewer)

    def test_what_cannot_be_used_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="there is no such folder"):
            unlabelled(str(tmp_path / "nowhere"))
        (tmp_path / "empty").mkdir()
        with pytest.raises(StreamError, match="holds no image"):
            unlabelled(str(tmp_path / "empty"))
        (tmp_path / "empty" / "broken.png").write_bytes(b"no image")
        with pytest.raises(UnreadableImageError, match=r"broken\.png"):
            unlabelled(str(tmp_path / "empty"))

    def test_test_images_are_refused_by_content(self, tmp_path: Path) -> None:
        made = trial("finetune")
        _photographs(tmp_path, 2)
        shown = made.stream.tasks[1].test
        shown.images.image(int(shown.indices[0])).save(tmp_path / "holiday.png")
        with pytest.raises(StreamError, match=r"holds 1 of the stream's test images.*holiday\.png"):
            refuse_test_images(unlabelled(str(tmp_path)), made.stream.tasks, "any")

    def test_without_a_head_that_follows_they_have_no_use(self) -> None:
        values = {**SMALL, "method": "finetune", "heads": "gaussian"}
        with pytest.raises(ConfigError, match="no head follows"):
            make_config({**values, "drift_images": "photos"})


def test_a_drift_that_no_head_can_follow_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"keep no statistics.*as heads=linear,gaussian"):
        make_config({**SMALL, "method": "nsp2", "drift": "linear"})


@pytest.mark.parametrize("merge", [1.5, -0.1, "half"])
def test_an_exponent_out_of_range_is_refused(merge: object) -> None:
    with pytest.raises(ConfigError, match="merge="):
        make_config({**SMALL, "method": "nsp2", "merge": merge})


@pytest.mark.parametrize("case", ["alike", "one image", "one class"])
def test_degenerate_lessons(case: str) -> None:
    """All images alike, one image per class, one class per lesson: no map does harm."""
    clf = classifier("finetune", heads=["gaussian(drift=mixed)", "ncm(drift=linear+local)"])
    clf.learn(*lesson("red", "green"))
    if case == "alike":
        pixels, names = lesson("blue", "teal")
        clf.learn([pixels[0]] * len(pixels), names)
    else:
        clf.learn(*lesson("blue", count=1 if case == "one image" else 4))
    assert np.isfinite(clf.predict_proba(lesson("red")[0])).all()


def _stages(made: Trial) -> list[Stage]:
    return plan(made.stream, made.config)


def _run(config: Config, folder: Path, sink: Any) -> None:
    Run(config, make_stream(config), make_backbone(config), folder, sink)()


def _photographs(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for index in range(count):
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


@pytest.mark.parametrize("method", ["joint", "clip_joint"])
def test_all_tasks_at_once_have_no_first_one(method: str) -> None:
    made = trial(method, (), adapt="first")
    with pytest.raises(
        ConfigError, match=r"adapt=first: method '.*joint' trains on all tasks at once"
    ):
        plan(made.stream, made.config)
