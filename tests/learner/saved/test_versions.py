"""Versions are kept, bounded, and gone back to; killed at any moment nothing is lost."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest
import safetensors.torch
from filelock import FileLock

from perdure.atomic import LOCK
from perdure.errors import CheckpointError, OutputError
from perdure.learner import ContinualClassifier
from perdure.learner.changes import changes
from perdure.learner.saved import versions
from perdure.learner.saved.contents import read_contents
from perdure.learner.saved.versions import read_versions, undo, undoable
from tests.learner.models import (
    MODELS,
    Killed,
    backbone,
    copy,
    killed_at,
    load,
    old_classifier,
    same,
)
from tests.learner.portable import portable_pictures
from tests.tiny import classifier, lesson

pytestmark = pytest.mark.long

DISK = ((Path, "open"), (os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "iterdir"))


def grown(folder: Path, *names: str) -> ContinualClassifier:
    """A model that was renamed some times, each time saved."""
    classifier = old_classifier()
    classifier.save(folder)
    for name in names:
        known = classifier.classes_.tolist()[0]
        classifier.rename_class(known, name).save(folder)
    return classifier


def first_names(folder: Path) -> list[str]:
    """The first class of every kept version, oldest first."""
    return [one.contents.classes.classes[0] for one in read_versions(folder)]


def test_a_version_per_change_and_back_again(tmp_path: Path) -> None:
    classifier = grown(tmp_path, "b", "c")
    classifier.save(tmp_path)  # nothing changed
    assert first_names(tmp_path) == ["pattern_0", "b"]
    assert undo(tmp_path).classes.classes[0] == "b"
    assert load(tmp_path).classes_.tolist()[0] == "b"
    assert first_names(tmp_path) == ["pattern_0"]
    undo(tmp_path)
    assert same(load(tmp_path), old_classifier())
    assert not (tmp_path / "versions").exists()
    with pytest.raises(CheckpointError, match="nothing to undo"):
        undo(tmp_path)
    assert same(load(tmp_path), old_classifier())


def test_there_and_back_is_two_changes(tmp_path: Path) -> None:
    grown(tmp_path, "a", "b").rename_class("b", "a").save(tmp_path)
    assert first_names(tmp_path) == ["pattern_0", "a", "b"]
    assert [undo(tmp_path).classes.classes[0] for _ in range(3)] == ["b", "a", "pattern_0"]


def test_bounded_by_number_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = grown(tmp_path, *"abcdefg")
    assert first_names(tmp_path) == list("bcdef")
    classifier.rename_class("g", "h").save(tmp_path, keep_versions=2)
    assert first_names(tmp_path) == ["f", "g"]
    size = max(path.stat().st_size for path in (tmp_path / "versions").iterdir())
    monkeypatch.setattr(versions, "MOST_BYTES", int(1.5 * size))
    classifier.rename_class("h", "i").save(tmp_path)
    assert first_names(tmp_path) == ["h"]
    monkeypatch.setattr(versions, "MOST_BYTES", size // 2)
    classifier.rename_class("i", "j").save(tmp_path)
    assert first_names(tmp_path) == []
    classifier.rename_class("j", "k").save(tmp_path, keep_versions=0)
    assert first_names(tmp_path) == []


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "start", ["changed", *(pytest.param(f"format-{k}", marks=pytest.mark.slow) for k in (1, 2))]
)
def test_killed_anywhere_undo_brings_the_model_before(tmp_path: Path, start: str) -> None:
    before, folder = tmp_path / "before", tmp_path / "model"
    if start == "changed":
        grown(before, "b")
    else:
        copy(MODELS / start, before)
    old = load(before)
    new = ContinualClassifier.from_model(old.model, old.history_)
    new.rename_class(new.classes_.tolist()[0], "z")
    replaced = []
    for operation in itertools.count():
        copy(before, folder)
        try:
            with killed_at(operation, DISK):
                new.save(folder)
        except Killed:
            pass
        else:
            break
        replaced.append(same(load(folder), new))
        if replaced[-1]:
            undo(folder)
        else:
            assert len(undoable(folder)) == len(undoable(before)), "what equals the model is passed"
        assert same(load(folder), old)
        new.save(folder)
        assert same(load(folder), new)
        undo(folder)
        assert same(load(folder), old)
    assert replaced == sorted(replaced)
    assert set(replaced) == {False, True}


@pytest.mark.usefixtures("unchecked")
def test_undo_killed_anywhere_is_one_of_both(tmp_path: Path) -> None:
    before, folder = tmp_path / "before", tmp_path / "model"
    new = grown(before, "b", "c")
    found = []
    for operation in itertools.count():
        copy(before, folder)
        try:
            with killed_at(operation, DISK):
                undo(folder)
        except Killed:
            pass
        else:
            break
        undone = not same(load(folder), new)
        found.append(undone)
        assert first_names(folder) == (["pattern_0"] if undone else ["pattern_0", "b"])
        undo(folder)
        assert load(folder).classes_.tolist()[0] == ("pattern_0" if undone else "b")
    assert found == sorted(found)
    assert set(found) == {False, True}


def test_forgetting_reaches_every_version(tmp_path: Path) -> None:
    classifier = grown(tmp_path, "b", "c")
    classifier.forget_class("c")
    classifier.save(tmp_path)
    classifier.rename_class("pattern_2", "x").save(tmp_path)
    assert len(versions.paths(tmp_path)) == 2, "the one before the forgetting is today's"
    for path in versions.paths(tmp_path):
        version = versions.read_version(path)
        assert version.contents.classes.classes[0] == "c"
        assert version.contents.classes.forgotten == (0, 1)
        assert version.replaced <= time.time()
        state = safetensors.torch.load(version.contents.weights)
        assert not state["heads.ncm.means"][0].any()
    assert len(undoable(tmp_path)) == 1
    undo(tmp_path)
    assert load(tmp_path).classes_.tolist() == ["pattern_2", "pattern_3"]
    with pytest.raises(CheckpointError, match="forgetting a class cannot be undone"):
        undo(tmp_path)


def test_a_version_that_cannot_be_rewritten_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = grown(tmp_path, "b", "c")
    classifier.forget_class("c")
    full = OutputError("the disk is full")
    with monkeypatch.context() as patch:
        patch.setattr(versions, "write", lambda *args: (_ for _ in ()).throw(full))
        classifier.save(tmp_path)
    assert not versions.paths(tmp_path)
    assert same(load(tmp_path), classifier)


def test_a_killed_forgetting_hides_what_it_did_not_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = grown(tmp_path, "b", "c")
    classifier.forget_class("c")
    with monkeypatch.context() as patch:
        patch.setattr("perdure.learner.saved.model._forget_in_versions", lambda *args: None)
        classifier.save(tmp_path)
    assert first_names(tmp_path) == ["pattern_0", "b"]
    assert undoable(tmp_path) == []
    classifier.rename_class("pattern_2", "x").save(tmp_path)
    assert all((0 in one.contents.classes.forgotten) for one in undoable(tmp_path))


def test_a_damaged_version_is_named(tmp_path: Path) -> None:
    grown(tmp_path, "b", "c")
    path = versions.paths(tmp_path)[-1]
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        data = bytearray(whole)
        data[place] ^= 255
        path.write_bytes(data)
        try:
            assert versions.read_version(path).pointer == read_contents_pointer(whole, tmp_path)
        except CheckpointError as error:
            assert str(path) in str(error)  # noqa: PT017
    path.write_bytes(b"no zip")
    with pytest.raises(CheckpointError, match="Remove it, and undo goes back"):
        undo(tmp_path)
    path.unlink()
    assert undo(tmp_path).classes.classes[0] == "pattern_0"


def read_contents_pointer(whole: bytes, folder: Path) -> bytes:
    """The pointer in an undamaged version; fields of a zip that nobody reads may change."""
    sound = folder / "sound.zip"
    sound.write_bytes(whole)
    return versions.read_version(sound).pointer


def test_a_model_that_is_repaired_is_not_kept(tmp_path: Path) -> None:
    classifier = grown(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"")
    classifier.rename_class("pattern_0", "b").save(tmp_path)
    assert read_versions(tmp_path) == []
    assert read_contents(tmp_path).known[0] == "b"


def test_another_writer_is_waited_for(tmp_path: Path) -> None:
    grown(tmp_path, "b")
    with FileLock(tmp_path / LOCK), pytest.raises(OutputError, match="Another process"):
        undo(tmp_path)
    assert backbone() is load(tmp_path).model.backbone
    assert len(load(tmp_path).predict(portable_pictures())) > 0


def test_another_model_in_its_place_is_kept_apart(tmp_path: Path) -> None:
    """What one model has forgotten means nothing to another that lay in the folder before."""
    one, two = (
        classifier().learn(lesson("cat", "dog")),
        classifier().learn(lesson("ash", "oak", "fir")),
    )
    one.save(tmp_path)
    two.forget_class("ash")
    two.save(tmp_path)
    assert [version.contents.classes.classes for version in undoable(tmp_path)] == [("cat", "dog")]
    two.forget_class("oak")
    two.save(tmp_path)
    (first, *_) = versions.paths(tmp_path)
    assert versions.read_version(first).contents.classes.forgotten == ()
    while versions.paths(tmp_path):
        undo(tmp_path)
    assert same(load(tmp_path, one.model.backbone), one)


def test_merged_and_forgotten_a_class_is_forgotten_in_every_version(tmp_path: Path) -> None:
    learner = classifier().learn(lesson("a", "b", "c"))
    learner.save(tmp_path)
    learner.merge_classes("a", "b").save(tmp_path)
    learner.forget_class("b")
    learner.save(tmp_path)
    first, *_ = (versions.read_version(path).contents.classes for path in versions.paths(tmp_path))
    assert first.forgotten == (0, 1)
    assert first.classes == ("a", "b", "c")


def test_images_of_no_class_are_told_in_the_changes(tmp_path: Path) -> None:
    learner = classifier().learn(lesson("a", "b"))
    learner.save(tmp_path)
    learner.learn(lesson("none", count=3)).save(tmp_path)
    learner.learn(lesson("c", "none", count=2)).save(tmp_path)
    assert [str(change) for change in changes(tmp_path)] == [
        "learned 3 images of no class",
        "learned c (2 images and 2 images of no class)",
    ]


def test_models_of_one_shape_are_told_apart_by_what_was_measured(tmp_path: Path) -> None:
    one = classifier(calibration_fraction=0.1).learn(lesson("cat", "dog"))
    images, labels = lesson("ash", "oak")
    two = classifier(calibration_fraction=0.1).learn(images, ["oak", *labels[1:]])
    assert one.last_lesson_.accuracy != two.last_lesson_.accuracy
    one.save(tmp_path)
    two.forget_class("ash")
    two.save(tmp_path)
    assert [version.contents.classes.classes for version in undoable(tmp_path)] == [("cat", "dog")]
    assert [str(change) for change in changes(tmp_path)] == ["another model"]
