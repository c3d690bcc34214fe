"""Suspects: swapped labels, twins, poor classes; and what is suggested to be labelled."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perdure.cli.main import main
from perdure.errors import ConfigError
from perdure.learner import ContinualClassifier
from perdure.learner.suggest import spread_out
from tests.tiny import Pixels, classifier, lesson, pictures


@pytest.fixture(scope="module")
def taught() -> ContinualClassifier:
    """Return a classifier of three classes; not to be changed."""
    return classifier(calibration_fraction=0.1).learn(lesson("a", "b", "c", count=8))


def test_a_swapped_label_is_the_first_suspect(taught: ContinualClassifier) -> None:
    images, names = lesson("a", "b", "c", count=8, seed=3)
    names[5] = "c"
    found = taught.suspects(images, names)
    assert (found.images[0].place, found.images[0].label, found.images[0].named) == (5, "c", "a")
    assert [one.place for one in found.named_otherwise] == [5]
    assert len(found.images) == 24
    assert not found.optimistic
    assert found.curve["b"][2] == 1


def test_twins_of_two_classes_come_first(taught: ContinualClassifier) -> None:
    images, names = lesson("a", "b", count=6, seed=3)
    found = taught.suspects([*images, images[0], images[1]], [*names, "b", "a"])
    exact = [pair for pair in found.twins if pair.similarity > 0.9999]
    assert [pair.places for pair in exact] == [(0, 12), (1, 13)]
    assert [pair.labels for pair in exact] == [("a", "b"), ("a", "a")]


def test_poor_classes_are_told_and_single_images_are_not_judged(
    taught: ContinualClassifier,
) -> None:
    images, names = lesson("a", "b", count=6, seed=3)
    found = taught.suspects([*images, *pictures("x", 1), *[images[0]] * 6], [*names, "x", *"y" * 6])
    assert "has 1 images" in found.classes["x"]
    assert "too alike" in found.classes["y"]
    assert all(one.label != "x" for one in found.images)
    assert found.curve["x"] == (None, None, None)


def test_a_head_that_is_trained_cannot_judge() -> None:
    clf = classifier("nsp2", heads=["linear"]).learn(lesson("a", "b"))
    with pytest.raises(ConfigError, match="heads=gaussian"):
        clf.suspects(*lesson("a", "b", seed=3))


def test_spread_out_takes_the_farthest_in_turn() -> None:
    unit = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [-1, 0]]), dim=1)
    assert spread_out(unit, unit[:1], 2, [0, 1, 2, 3]) == [3, 2]
    assert spread_out(unit, unit[:0], 9, [1, 2]) == [1, 2]


@pytest.mark.parametrize("by", ["all", "uncertainty", "unknown", "diversity"])
def test_what_is_suggested_is_of_the_pool_each_once(taught: ContinualClassifier, by: str) -> None:
    pool = [*pictures("a", 4, seed=5), *pictures("new", 4)]
    found = taught.suggest(pool, 5, by=by)  # type: ignore[arg-type]
    places = [one.place for one in found]
    assert len(set(places)) == 5
    if by != "uncertainty":
        assert places[0] >= 4, "what was never taught"
    assert len(taught.suggest(pool, 99, by=by)) == 8  # type: ignore[arg-type]


def test_no_image_is_too_few_to_ask_for(taught: ContinualClassifier) -> None:
    with pytest.raises(ConfigError, match="count=20"):
        taught.suggest(pictures("a"), 0)


@pytest.mark.long
def test_both_commands_write_tables_and_sheets(
    taught: ContinualClassifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught.save(tmp_path / "model")
    for name in "ab":
        for number, picture in enumerate(pictures(name, 6, seed=7)):
            _write(tmp_path / "photos" / name / f"{number}.png", picture)
    files = [f"--csv={tmp_path / 'out.csv'}", f"--sheet={tmp_path / 'out.png'}"]
    photos, model = str(tmp_path / "photos"), str(tmp_path / "model")
    assert main(["data", "check", photos, "--model", model, *files]) == 0
    assert "0 images would be named otherwise" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert {row["class"] for row in rows} == {"a", "b"}
    with Image.open(tmp_path / "out.png") as sheet:
        assert sheet.width > 600
    assert main(["suggest", model, photos, "--count", "3", *files]) == 0
    assert len(list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))) == 3
    assert main(["data", "check", photos, *files]) == 2
    assert "--model MODEL" in capsys.readouterr().err
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "cut.png").write_bytes((tmp_path / "out.png").read_bytes()[:300])
    assert main(["suggest", model, photos, str(tmp_path / "bad"), "--count", "1"]) == 0
    assert "left out, not readable: 1 image\n" in capsys.readouterr().err
    assert main(["suggest", model, str(tmp_path / "bad")]) == 1
    assert "none can be read" in capsys.readouterr().err


def _write(path: Path, picture: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(picture)).save(path)


def test_a_lesson_tells_its_own_suspects() -> None:
    """Classes of earlier lessons compete, and so the lesson may be of a single class."""
    clf = classifier(calibration_fraction=0.1).learn(lesson("a", "b", count=8))
    assert clf.suspects_ == ()
    images, names = lesson("c", count=8)
    images[3] = pictures("a", 1, seed=7)[0]
    clf.learn(images, names)
    (suspect,) = clf.suspects_
    assert (suspect.place, suspect.label, suspect.named) == (3, "c", "a")
    assert suspect.margin > 0
    assert 0.5 < suspect.probability <= 1
    clf.learn([*pictures("d", 6), *pictures("a", 5, seed=9)], [*"dddddd", *"aabaa"])
    assert [(one.place, one.label, one.named) for one in clf.suspects_] == [(8, "b", "a")]


def test_a_suspect_is_judged_as_by_a_model_that_never_saw_it() -> None:
    images, names = lesson("a", "b", "c", count=8)
    images[2] = pictures("b", 1, seed=7)[0]
    fixed = {"shrinkage": 0.5}
    clf = classifier(calibration_fraction=0, **fixed).learn(images, names)
    (suspect,) = clf.suspects_
    rest = [k for k in range(len(images)) if k != suspect.place]
    literal = classifier(calibration_fraction=0, **fixed)
    literal.learn([images[k] for k in rest], [names[k] for k in rest])
    ((best, *_),) = literal.top([images[2]], 1)
    assert best.name == suspect.named == "b"
    assert suspect.probability == pytest.approx(best.probability, abs=0.02)
