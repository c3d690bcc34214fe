"""Parameters of a classifier are checked when something is learned, and come back from a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from perdure.errors import ConfigError, UnknownNameError
from perdure.learner.settings import OF_RUNS, make_settings, parameters_of
from tests.tiny import classifier, lesson, small_config


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "nsp3"}, UnknownNameError, "Did you mean 'nsp2'"),
        ({"method": "joint"}, ConfigError, "needs the images of old ones"),
        ({"options": {"lrr": 1.0}}, UnknownNameError, r"'lrr'.*Did you mean 'lr'"),
        ({"options": {"lr": -1.0}}, ConfigError, "lr=-1"),
        ({"options": {"epochs": 3}}, ConfigError, r"Type epochs=3\."),
        ({"options": {"tasks": "B0-Inc2"}}, ConfigError, "has no use"),
        ({"options": [("lr", 1)]}, ConfigError, "give a mapping"),
        ({"heads": ["linear"]}, ConfigError, "would stay untrained"),
        ({"calibration_fraction": 1.0}, ConfigError, r"calibration_fraction=1\.0"),
        ({"calibration_fraction": "0.1"}, ConfigError, "calibration_fraction='0.1'"),
        ({"epochs": 0}, ConfigError, "epochs=0"),
    ],
)
def test_wrong_ones_are_refused(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        classifier("lda").set_params(**change).learn(lesson("a", "b"))


def test_heads_are_gaussian_where_the_method_leaves_the_choice() -> None:
    for method, heads in [("nsp2", ("gaussian",)), ("ncm", ("ncm",)), ("linear", ("linear",))]:
        assert classifier(method).settings().head_names == heads


@pytest.mark.parametrize(
    ("method", "heads", "options", "drift"),
    [
        ("lda", None, {}, "none"),
        ("iprompt", None, {}, "linear"),
        ("clip_nsp2", None, {}, "linear"),
        ("nsp2", ["gaussian", "linear"], {}, "linear"),
        ("nsp2", ["linear"], {}, "none"),
        ("nsp2", ["ridge(lift=relu)"], {}, "none"),
        ("nsp2", ["ridge"], {"lift": "relu"}, "none"),
        ("nsp2", None, {"drift": "mixed"}, "mixed"),
        ("nsp2", None, {"drift": "none"}, "none"),
    ],
)
def test_statistics_follow_where_features_move_and_a_head_can(
    method: str, heads: list[str] | None, options: dict[str, Any], drift: str
) -> None:
    config = classifier(method, heads, **options).settings()
    assert config.heads.drift == drift
    parameters, left = parameters_of(config)
    assert make_settings(parameters, left).heads.drift == drift


@pytest.mark.parametrize(
    ("options", "share"),
    [({}, 1.0), ({"drift": "mixed"}, 0.0), ({"drift": "mixed", "drift_debias": 0.5}, 0.5)],
)
def test_nothing_is_given_back_for_the_mean_of_two_maps(
    options: dict[str, Any], share: float
) -> None:
    settings = make_settings({"method": "nsp2", "heads": None}, options)
    assert settings.heads.drift_debias == share
    parameters, left = parameters_of(settings)
    assert make_settings(parameters, left).heads.drift_debias == share


def test_iprompt_is_merged_unless_told_otherwise() -> None:
    assert classifier("iprompt").settings().training.merge == 0.5
    assert classifier("iprompt", merge="none").settings().training.merge == "none"
    assert classifier("nsp2").settings().training.merge == "none"


@pytest.mark.long
def test_training_may_change_between_lessons_and_the_method_may_not() -> None:
    learner = classifier("nsp2").learn(lesson("a", "b"))
    learner.set_params(epochs=2).learn(lesson("c", "d"))
    assert learner.model.config.training.epochs == 2
    learner.set_params(method="finetune")
    with pytest.raises(ConfigError, match=r"method='finetune'.*has learned under method='nsp2'"):
        learner.learn(lesson("e", "f"))
    assert learner.fit(*lesson("e", "f")).classes_.tolist() == ["e", "f"]


def test_parameters_of_a_configuration_make_that_configuration() -> None:
    config = small_config("nsp2", heads=["linear"], temperature=3.0, lr=0.007)
    parameters, options = parameters_of(config)
    again = make_settings(parameters, options).flat()
    assert {key: value for key, value in config.flat().items() if key not in OF_RUNS} == {
        key: value for key, value in again.items() if key not in OF_RUNS
    }


def test_shrinkage_may_be_chosen_on_validation_images() -> None:
    options: dict[str, Any] = {"validation_fraction": 0.25, "shrinkage": "validation"}
    learner = classifier("lda", **options).learn(lesson("a", "b", count=12))
    assert learner.last_lesson_.images == {"a": 9, "b": 9}
    rho = learner.model.state()["heads.gaussian.rho"].clone()
    learner.learn(lesson("a", seed=1))
    assert torch.equal(learner.model.state()["heads.gaussian.rho"], rho)
    with pytest.raises(ConfigError, match="needs validation images"):
        learner.learn(lesson("c", count=3))


@pytest.mark.parametrize("given_back", [{}, {"drift_debias": 1.0}, {"drift_debias": 0.0}])
@pytest.mark.parametrize("drift", ["linear", "mixed"])
def test_what_is_given_back_comes_back_from_a_model(drift: str, given_back: dict[str, Any]) -> None:
    config = classifier("nsp2", drift=drift, **given_back).settings()
    assert make_settings(*parameters_of(config)) == config
