"""Learning curves: what more images of a class would bring, from the lessons themselves."""

from __future__ import annotations

import numpy as np
import pytest

from perdure.learner import ContinualClassifier
from perdure.learner.history import SHARES
from tests.tiny import classifier, lesson


@pytest.fixture(scope="module")
def taught() -> ContinualClassifier:
    """A classifier of two lessons; not to be changed."""
    clf = classifier(calibration_fraction=0.1).learn(lesson("a", "b", "c", count=8))
    return clf.learn(lesson("c", "d", count=8, seed=1))


def test_at_all_images_it_is_the_accuracy_of_the_lesson(taught: ContinualClassifier) -> None:
    for one in taught.history_.lessons:
        whole = [one.curve[name][-1] for name in one.images]
        counts = list(one.images.values())
        assert np.average(whole, weights=counts) == pytest.approx(one.accuracy["gaussian"])


def test_a_part_is_what_a_lesson_of_that_part_measures() -> None:
    """Old classes compete; of a quarter of the images nothing of the others is known."""
    images, names = lesson("c", "d", count=8, seed=1)
    before = classifier(calibration_fraction=0.1).learn(lesson("a", "b", count=8))
    both = (
        classifier(calibration_fraction=0.1).learn(lesson("a", "b", count=8)).learn(images, names)
    )
    assert both.last_lesson_.curve.keys() == {"c", "d"}
    assert all(len(points) == len(SHARES) for points in both.last_lesson_.curve.values())
    before.learn(lesson("a", "b", count=8, seed=5))
    assert before.last_lesson_.curve["a"][-1] is not None


def test_single_images_have_no_point_and_a_single_class_no_curve() -> None:
    clf = classifier(calibration_fraction=0.1).learn(lesson("a", count=4))
    assert clf.last_lesson_.curve == {"a": (None, None, None)}
    clf.learn(lesson("b", count=4))
    quarter, half, whole = clf.last_lesson_.curve["b"]
    assert quarter is None
    assert None not in (half, whole)


def test_it_follows_names_and_is_forgotten_with_its_class(taught: ContinualClassifier) -> None:
    clf = ContinualClassifier.from_model(taught.model, taught.history_)
    clf.rename_class("d", "e")
    assert clf.last_lesson_.curve.keys() == {"c", "e"}
    clf.forget_class("e")
    assert clf.last_lesson_.curve.keys() == {"c"}
    clf.merge_classes("a", "b")
    assert clf.history_.lessons[0].curve == {}
    assert clf.last_lesson_.curve.keys() == {"c"}
