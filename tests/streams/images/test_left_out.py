"""What is left out of a folder is told, and learning, checking and predicting agree on the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.learner.labelled import gather
from perdure.learner.unlabelled import pictures_to_predict
from perdure.streams import StreamConfig
from perdure.streams.images.find_images import walk
from perdure.streams.images.left_out import LeftOut
from perdure.streams.inspection import inspect
from tests.streams.conftest import WriteFolder
from tests.streams.made import load


@pytest.fixture
def photos(tmp_path: Path, write_folder: WriteFolder) -> Path:
    """Two classes of three images, one of them in a folder within, and what lies around them."""
    root = write_folder(tmp_path / "p", {"ant": 2, "bee": 3, "ant/2024": 1})
    image = (root / "bee" / "000.png").read_bytes()
    for name in ("ant/photo", "ant/b.data", "loose.png", "bee/.hidden.png", ".old/x.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(image + name.encode())
    for name in ("notes.txt", "bee/list.csv", "bee/.DS_Store", "bee/Thumbs.db", "__MACOSX/._a.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no image")
    (root / "bee" / "gone.png").symlink_to("nowhere.png")
    (root / "cow").symlink_to("nowhere")
    return root


TOLD = (
    "1 image beside the class folders (loose.png); 2 images whose names have no ending of one "
    "(ant/b.data, ant/photo); 2 links that lead nowhere (bee/gone.png, cow); "
    "2 hidden files and folders (.old, bee/.hidden.png); 2 other files (bee/list.csv, notes.txt)"
)


def test_numbers_and_examples_are_told(photos: Path) -> None:
    told = f"left out of '{photos}': {TOLD}"
    lesson = gather(photos, None, "train", StreamConfig(), 0)
    assert (lesson.counts(), lesson.left_out) == ({"ant": 3, "bee": 3}, told)
    source = load("folder", photos)
    assert (len(source.train) + len(source.test), source.remarks) == (6, (told,))
    found = inspect(str(photos))
    assert (found.train, found.told, found.ignored) == (6, told, 9 + 3)
    assert found.left_out == {"loose": 1, "unnamed": 2, "dangling": 2, "hidden": 2, "other": 2}
    faults = [(fault.kind, fault.text.removeprefix(f"{photos}/")) for fault in found.faults]
    assert faults == [
        ("unreadable", "bee/gone.png: a link that leads nowhere"),
        ("unreadable", "cow: a link that leads nowhere"),
        ("left out", "ant/b.data: an image whose name has no ending of one"),
        ("left out", "ant/photo: an image whose name has no ending of one"),
        ("left out", "loose.png: an image beside the class folders"),
    ]


def test_predicting_finds_the_same_images(photos: Path) -> None:
    left_out = LeftOut()
    listed = [one.path for one in walk(photos, left_out)]
    learned = gather(photos, None, "train", StreamConfig(), 0).images.names
    # It needs no classes, and gives a link that leads nowhere a row of its own.
    others = {photos / "loose.png", photos / "bee" / "gone.png"}
    assert sorted(listed) == sorted({*map(Path, learned), *others})
    assert {reason: len(paths) for reason, paths in left_out.paths.items() if paths} == {
        **{"unnamed": 2, "dangling": 1, "hidden": 2, "other": 2}
    }
    assert len(pictures_to_predict(photos / "ant", StreamConfig())) == 3


def test_folders_beside_train_and_test(tmp_path: Path, write_folder: WriteFolder) -> None:
    for side in ("train", "test", "val", "raw"):
        write_folder(tmp_path / side, {"ant": 1, "bee": 1})
    (tmp_path / "readme.txt").write_text("x")
    told = "2 folders beside train and test (raw, val); 1 other file (readme.txt)"
    for side in ("train", "test"):
        lesson = gather(tmp_path, None, side, StreamConfig(), 0)  # type: ignore[arg-type]
        assert lesson.left_out == f"left out of '{tmp_path}': {told}"
    assert inspect(str(tmp_path)).told.endswith(told)


def test_nothing_is_told_where_nothing_is_left_out(
    tmp_path: Path, write_folder: WriteFolder
) -> None:
    root = write_folder(tmp_path, {"ant": 1, "bee": 1})
    (root / "ant" / ".DS_Store").write_text("x")
    assert gather(root, None, "train", StreamConfig(), 0).left_out == ""
    assert inspect(str(root), least=1).told == ""


def test_classes_that_look_alike_are_faults(tmp_path: Path, write_folder: WriteFolder) -> None:
    root = write_folder(tmp_path, {"Cat": 2, "cat": 2, "dog": 2})
    (text,) = [one.text for one in inspect(str(root)).faults if one.kind == "alike"]
    assert text == "classes 'Cat', 'cat' differ in case, width or form alone"


def test_many_things_are_counted_and_three_shown(tmp_path: Path) -> None:
    left_out = LeftOut()
    for number in range(5):
        left_out.add("other", tmp_path / f"{number}\x1b.txt")
    assert left_out.told(tmp_path) == (
        f"left out of '{tmp_path}': 5 other files "
        r"(0\x1b.txt, 1\x1b.txt, 2\x1b.txt and 2 more)"
    )
