"""Classes are renamed and merged: other names, the same scores, in memory and from disk alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from perdure.errors import ConfigError, StreamError
from perdure.learner import ContinualClassifier
from tests.learner.models import same
from tests.tiny import classifier, lesson, pictures


def taught(method: str = "lda", **options: object) -> ContinualClassifier:
    return classifier(method, **options).learn(lesson("a", "b")).learn(lesson("c"))


@pytest.mark.long
@pytest.mark.parametrize(("method", "options"), [("lda", {}), ("nsp2", {"heads": ["gaussian"]})])
def test_a_renamed_class_scores_as_before(
    tmp_path: Path, method: str, options: dict[str, object]
) -> None:
    learner = taught(method, **options)
    before = learner.logits(pictures("a", 2))
    learner.rename_class("a", " z ")
    assert learner.classes_.tolist() == ["b", "c", "z"]
    assert torch.equal(learner.logits(pictures("a", 2)), before[:, [1, 2, 0]])
    first, second = learner.history_.lessons
    assert (first.new, first.images, second.new) == (("z", "b"), {"z": 6, "b": 6}, ("c",))
    learner.save(tmp_path)
    loaded = ContinualClassifier.load(tmp_path)
    assert same(loaded, learner)
    ways = [
        one.learn(lesson("z", "d", seed=3)).logits(pictures("d", 2)) for one in (loaded, learner)
    ]
    assert torch.equal(*ways), "heads know the new name, whether it was read or given"


def test_merged_classes_are_one_with_the_higher_score() -> None:
    learner = taught()
    before = learner.logits(pictures("a", 3) + pictures("c", 3))
    learner.merge_classes("c", "a")
    assert learner.classes_.tolist() == ["a", "b"]
    expected = torch.stack([before[:, [0, 2]].amax(1), before[:, 1]], dim=1)
    assert torch.equal(learner.logits(pictures("a", 3) + pictures("c", 3)), expected)
    assert learner.history_.lessons[1].new == ("a",)
    assert learner.predict(pictures("c", 4, seed=9)).tolist() == ["a"] * 4
    learner.forget_class("a")
    assert learner.classes_.tolist() == ["b"]
    assert learner.history_.forgotten == (0, 2)


def test_numbers_stay_numbers_unless_a_name_is_none() -> None:
    images, labels = lesson("1", "2")
    learner = classifier().learn(images, [int(label) for label in labels])
    assert learner.rename_class("2", "7").classes_.tolist() == [1, 7]
    assert learner.rename_class("7", "seven").classes_.tolist() == ["1", "seven"]


def test_what_was_forgotten_keeps_its_name_in_the_history() -> None:
    learner = classifier().learn(lesson("a", "b"))
    learner.forget_class("a")
    learner.learn(lesson("a", seed=5)).rename_class("a", "z")
    assert [one.new for one in learner.history_.lessons] == [("a", "b"), ("z",)]
    assert learner.model.label_names == ("a", "b", "z")


def test_what_cannot_be_renamed() -> None:
    learner = taught()
    state = learner.state_
    with pytest.raises(ConfigError, match=r"no class 'A'\. Known: a, b, c"):
        learner.rename_class("A", "z")
    with pytest.raises(ConfigError, match="a class 'b' already"):
        learner.rename_class("a", "b")
    with pytest.raises(StreamError, match="new name of class 'a' is ' ', an empty name"):
        learner.rename_class("a", " ")
    with pytest.raises(ConfigError, match="'a' cannot be merged with itself"):
        learner.merge_classes("a", "a")
    with pytest.raises(ConfigError, match="no class 'x'"):
        learner.merge_classes("a", "x")
    assert learner.state_ is state
    assert np.isfinite(learner.predict_proba(pictures("a", 1))).all()


def test_a_class_is_named_by_its_number() -> None:
    images, labels = lesson("1", "2")
    learner = classifier().learn(images, [int(label) for label in labels])
    assert learner.rename_class(2, 7).classes_.tolist() == [1, 7]
    assert learner.rename_class(int(learner.classes_[0]), "007").classes_.tolist() == ["007", "7"]


def test_numbers_that_are_too_large_are_texts() -> None:
    images, labels = lesson("1", "2")
    learner = classifier().learn(images, [2**63 + int(label) for label in labels])
    assert learner.classes_.tolist() == ["9223372036854775809", "9223372036854775810"]


def test_images_of_no_class_leave_numbers_as_they_are() -> None:
    images, labels = lesson("10", "2")
    learner = classifier().learn(images, [int(label) for label in labels])
    learner.learn(pictures("x", 3), ["none"] * 3)
    assert learner.classes_.tolist() == [2, 10]
