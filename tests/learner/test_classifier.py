"""The classifier among other estimators; what it says of itself; pictures of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils.validation import check_is_fitted

from perdure.errors import (
    CheckpointError,
    ConfigError,
    PerdureError,
    StreamError,
    UnreadableImageError,
)
from perdure.learner import ContinualClassifier, NotLearnedError
from tests.tiny import SIDE, classifier, lesson, pictures


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> ContinualClassifier:
    return classifier("lda").learn(lesson("a", "b")).learn(lesson("c", "d", "e"))


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


class TestReport:
    """It counts what predict says."""

    def test_counts(self, learned: ContinualClassifier) -> None:
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

    def test_it_is_read_and_stored(self, learned: ContinualClassifier) -> None:
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

    def test_of_a_folder(self, learned: ContinualClassifier, tmp_path: Path) -> None:
        for split, name in [("train", "a"), ("test", "a"), ("test", "b"), ("train", "b")]:
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(pictures(name, 1)[0]).save(tmp_path / split / name / "1.png")
        (tmp_path / "test" / "b" / "1.png").rename(tmp_path / "test" / "b" / "2.png")
        assert learned.score(tmp_path) == 1.0
        assert learned.report(str(tmp_path)).overall.images == 2

    def test_unknown_classes_are_refused(self, learned: ContinualClassifier) -> None:
        with pytest.raises(StreamError, match=r"'owl' was never learned.*Known: a, b, c, d, e"):
            learned.report(lesson("a", "owl"))

    def test_per_task_after_a_class_was_forgotten(self) -> None:
        learner = classifier("ncm").learn(lesson("a", "b")).learn(lesson("c"))
        learner.forget_class("a")
        report = learner.report(lesson("b", "c", count=3))
        assert [task.images for task in report.tasks] == [3, 3]
        assert list(report.classes) == ["b", "c"]


class TestPictures:
    """Any mode and size is taken; what is no picture is refused."""

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
    def test_modes(self, learned: ContinualClassifier, mode: str) -> None:
        picture = Image.fromarray(pictures("a", 1)[0])
        picture = picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)
        assert torch.isfinite(learned.logits([picture])).all()

    @pytest.mark.parametrize(
        "shape", [(1, 1, 3), (3, 500, 3), (300, 2), (SIDE, SIDE, 1), (SIDE, SIDE, 4)]
    )
    def test_sizes(self, learned: ContinualClassifier, shape: tuple[int, ...]) -> None:
        assert learned.predict([np.full(shape, 7, np.uint8)]).shape == (1,)

    def test_files_images_and_arrays_are_the_same(
        self, learned: ContinualClassifier, tmp_path: Path
    ) -> None:
        array = pictures("a", 1)[0]
        image = Image.fromarray(array)
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(tmp_path / "a.png", exif=exif)
        turned = Image.fromarray(np.rot90(array, -1))
        with Image.open(tmp_path / "a.png") as opened:
            found = learned.logits([str(tmp_path / "a.png"), tmp_path / "a.png", opened, turned])
        assert all(torch.equal(row, found[0]) for row in found)
        assert torch.equal(learned.logits(np.stack([array])), learned.logits([image]))

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ("a.jpg", StreamError, r"Type \['a\.jpg'\]"),
            (pictures("a", 1)[0][..., 0], StreamError, r"Type \[image\]"),
            ([], ConfigError, "no picture to predict"),
            (None, StreamError, "this is NoneType"),
            ({"a": 1}, StreamError, "this is dict"),
            ([None], StreamError, "no picture but NoneType"),
            ([np.zeros((2, 2))], StreamError, "float64"),
            (["nowhere.png"], UnreadableImageError, r"nowhere\.png"),
            ([Image.new("F", (4, 4))], UnreadableImageError, "mode F"),
        ],
    )
    def test_what_is_no_picture_is_refused(
        self, learned: ContinualClassifier, given: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            learned.predict(given)

    def test_wrong_head_and_k(self, learned: ContinualClassifier) -> None:
        with pytest.raises(ConfigError, match=r"no head 'linear'\. It has: gaussian"):
            learned.predict(pictures("a"), head="linear")
        with pytest.raises(ConfigError, match="k=0"):
            learned.top(pictures("a"), 0)
        with pytest.raises(ConfigError, match="sample_weight has no use"):
            learned.score(*lesson("a"), sample_weight=[1] * 6)
