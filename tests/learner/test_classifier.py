"""The classifier among other estimators; what it says of itself; pictures of every kind."""

from __future__ import annotations

import copy
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils.validation import check_is_fitted

from perdure.errors import CheckpointError, ConfigError, PerdureError
from perdure.learner import ContinualClassifier, NotLearnedError
from perdure.learner import classifier as classifier_module
from perdure.learner.state import LearnerState
from tests.tiny import classifier, lesson, pictures


@pytest.mark.parametrize(
    "ask",
    [
        lambda new: new.predict(pictures("a")),
        lambda new: new.predict_proba(pictures("a")),
        lambda new: new.top(pictures("a"), 2),
        lambda new: new.classes_,
        lambda new: new.history_,
        lambda new: new.report(lesson("a")),
        lambda new: new.forget_class("a"),
        lambda new: new.save("model"),
    ],
)
def test_nothing_is_known_before_something_was_learned(ask: Any) -> None:
    with pytest.raises(NotLearnedError, match=r'learned nothing yet\. Type clf\.learn\("photos"\)'):
        ask(classifier("lda"))
    with pytest.raises(NotFittedError):
        check_is_fitted(classifier("lda"))
    assert issubclass(NotLearnedError, NotFittedError)
    assert issubclass(NotLearnedError, PerdureError)


@pytest.mark.long
def test_what_was_learned_is_saved_and_goes_on(tmp_path: Path) -> None:
    learner = classifier("nsp2", calibration_fraction=0.2).learn(lesson("a", "b", count=10))
    learner.learn(lesson("c", "d"))
    learner.forget_class("b")
    learner.save(tmp_path / "model")
    loaded = ContinualClassifier.load(tmp_path / "model")
    assert loaded.history_ == learner.history_
    assert loaded.classes_.tolist() == ["a", "c", "d"]
    images, names = lesson("a", "c", "d", seed=1)
    assert np.array_equal(loaded.predict_proba(images), learner.predict_proba(images))
    assert loaded.report(images, names) == learner.report(images, names)
    loaded.set_params(calibration_fraction=0.2)
    for one in (learner, loaded):
        one.learn(lesson("b", "e", count=12))
        one.learn(lesson("a", seed=2))
    ours, theirs = learner.model.state(), loaded.model.state()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert loaded.history_ == learner.history_
    assert loaded.forget_class("c").remains == learner.forget_class("c").remains


def test_a_model_for_inference_only_neither_learns_nor_forgets(tmp_path: Path) -> None:
    learner = classifier("nsp2").learn(lesson("a", "b"))
    learner.save(tmp_path, inference_only=True)
    loaded = ContinualClassifier.load(tmp_path)
    assert loaded.predict(pictures("a")).tolist() == ["a"] * 6
    for call in (lambda: loaded.learn(lesson("a")), lambda: loaded.forget_class("a")):
        with pytest.raises(CheckpointError, match="saved for inference only"):
            call()


class TestScikitLearn:
    """Its habits hold."""

    def test_clone_has_the_parameters_and_no_knowledge(self, learned: ContinualClassifier) -> None:
        twin = clone(learned)
        assert twin.get_params() == learned.get_params()
        assert not hasattr(twin, "classes_")
        assert clone(ContinualClassifier()).get_params() == ContinualClassifier().get_params()

    def test_parameters_are_only_stored(self) -> None:
        options = {"lr": 0.1}
        made = ContinualClassifier("nonsense", "none", options=options)
        assert made.options is options
        assert made.set_params(method="nsp2", seed=3).get_params()["seed"] == 3
        assert "method='nsp2'" in repr(made)

    def test_partial_fit_learns_and_fit_starts_anew(self) -> None:
        learner = classifier("ncm")
        learner.partial_fit(*lesson("a"), classes=["a", "b"]).partial_fit(*lesson("b"))
        assert learner.classes_.tolist() == ["a", "b"]
        assert learner.fit(*lesson("c")).classes_.tolist() == ["c"]

    def test_cross_validation(self) -> None:
        images, names = lesson("a", "b", "c")
        scores = cross_val_score(classifier("lda"), np.stack(images), names, cv=2)
        assert scores.tolist() == [1.0, 1.0]


def test_threads_that_teach_one_object_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = classifier("ncm").learn(lesson("a", "b", count=1))
    inside, most = [], []
    gathered = classifier_module.gather

    def slow(*given: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)
        try:
            return gathered(*given)
        finally:
            inside.pop()

    monkeypatch.setattr(classifier_module, "gather", slow)
    works = [
        *(partial(learner.learn, lesson(name, count=1)) for name in "cde"),
        partial(learner.forget_class, "a"),
    ]
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert learner.classes_.tolist() == ["b", "c", "d", "e"]
    assert max(most) == 1
    assert copy.deepcopy(learner).classes_.tolist() == ["b", "c", "d", "e"]


def test_predictions_are_of_one_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lesson that ends while pictures are scored changes neither classes nor columns."""
    learner = classifier("ncm").learn(lesson("m", "n", count=1))
    pictures, _ = lesson("n", count=1)
    expected = learner.predict_proba(pictures)
    scores = LearnerState.scores

    def meanwhile(*given: Any, **named: Any) -> Any:
        found = scores(*given, **named)
        with monkeypatch.context() as patched:
            patched.setattr(LearnerState, "scores", scores)
            learner.learn(lesson("a", count=1))
        return found

    for ask in (learner.predict, learner.predict_proba, learner.top):
        monkeypatch.setattr(LearnerState, "scores", meanwhile)
        learner.fit(lesson("m", "n", count=1))
        found = ask(pictures)
        if ask == learner.predict:
            assert found.tolist() == ["n"]
        elif ask == learner.top:
            assert found[0][0].name == "n"
        else:
            assert np.array_equal(found, expected)
        assert learner.classes_.tolist() == ["a", "m", "n"]


def test_nothing_left_to_predict() -> None:
    learner = classifier("ncm").learn(lesson("a", count=1))
    learner.forget_class("a")
    pictures, names = lesson("a", count=1)
    for ask in (
        *(learner.predict, learner.predict_proba, learner.top, learner.logits),
        lambda given: learner.predict_files([Path("a.png")]),
        lambda given: learner.report(given, names),
    ):
        with pytest.raises(ConfigError, match=r"forgotten, and nothing is left to predict\. Teach"):
            ask(pictures)
    assert learner.learn(lesson("b", count=1)).predict(pictures).tolist() == ["b"]
