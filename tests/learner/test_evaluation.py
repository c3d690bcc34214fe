"""The accuracy report counts what predict says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perdure.errors import StreamError
from perdure.learner import ContinualClassifier
from tests.tiny import classifier, lesson, pictures


def test_it_counts_what_is_classified_correctly(learned: ContinualClassifier) -> None:
    images, names = lesson("a", "b", "c", "d", count=5, seed=1)
    names = [*names[:-2], "a", "e"]  # two of them are called wrong
    report = learned.report(images, names)
    right = np.array(names) == learned.predict(images)
    assert report.accuracy == learned.score(images, names) == right.mean()
    assert report.overall.images == 20
    for name, share in report.classes.items():
        own = right[np.array(names) == name]
        assert (share.images, share.correct) == (len(own), own.sum())
    assert [task.images for task in report.tasks] == [11, 9]
    assert sum(task.correct for task in report.tasks) == right.sum()
    confusion = np.array(report.confusion)
    assert confusion.sum() == 20
    assert confusion[0, 3] == 1  # the 'd' that was called 'a'


def test_it_is_read_and_stored(learned: ContinualClassifier) -> None:
    report = learned.report(lesson("a", "c", count=2))
    lines = str(report).splitlines()
    assert lines[0].split() == ["class", "images", "accuracy"]
    assert lines[1].split() == ["all", "4", "100.0", "%"]
    assert lines[2].split()[:3] == ["task", "1", "2"]
    assert lines[5].split() == ["b", "0", "–"]
    assert "calibration error" in lines[-1]
    stored = json.loads(json.dumps(report.to_dict()))
    assert stored["classes"]["c"] == {"images": 2, "correct": 2, "accuracy": 1.0}
    assert stored["classes"]["b"]["accuracy"] is None


def test_of_a_folder(learned: ContinualClassifier, tmp_path: Path) -> None:
    for split, name in [("train", "a"), ("test", "a"), ("test", "b"), ("train", "b")]:
        (tmp_path / split / name).mkdir(parents=True)
        Image.fromarray(pictures(name, 1)[0]).save(tmp_path / split / name / "1.png")
    (tmp_path / "test" / "b" / "1.png").rename(tmp_path / "test" / "b" / "2.png")
    assert learned.score(tmp_path) == 1.0
    assert learned.report(str(tmp_path)).overall.images == 2


def test_unknown_classes_are_refused(learned: ContinualClassifier) -> None:
    with pytest.raises(StreamError, match=r"'owl' was never learned.*Known: a, b, c, d, e"):
        learned.report(lesson("a", "owl"))


def test_per_task_after_a_class_was_forgotten() -> None:
    learner = classifier("ncm").learn(lesson("a", "b")).learn(lesson("c"))
    learner.forget_class("a")
    report = learner.report(lesson("b", "c", count=3))
    assert [task.images for task in report.tasks] == [3, 3]
    assert list(report.classes) == ["b", "c"]
