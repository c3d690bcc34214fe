"""Image files in a folder of any size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perdure.streams.images import find_images as walking
from perdure.streams.images.find_images import Listed, walk


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b/2.jpg", "b/10.JPEG", "a.png", "c/d/e.tiff", "c/.thumb/x.png", "z.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for other in ("notes.txt", ".hidden.png", "b/labels.csv", "png"):
        (tmp_path / other).touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(folder: Path) -> list[str]:
    found = list(walk(folder))
    assert not [one for one in found if one.fault]
    return [one.path.relative_to(folder).as_posix() for one in found]


def test_order_and_choice(tree: Path) -> None:
    assert names(tree) == ["a.png", "b/10.JPEG", "b/2.jpg", "c/d/e.tiff", "z.webp"]
    assert names(tree / "empty") == []


def test_links_are_followed_but_not_in_circles(tree: Path) -> None:
    (tree / "b" / "back").symlink_to(tree)
    (tree / "c" / "to_b").symlink_to(tree / "b")
    (tree / "itself.png").symlink_to("itself.png")
    (tree / "nowhere.png").symlink_to("gone.png")
    assert names(tree) == [
        *("a.png", "b/10.JPEG", "b/2.jpg", "c/d/e.tiff", "c/to_b/10.JPEG", "c/to_b/2.jpg"),
        *("itself.png", "nowhere.png", "z.webp"),
    ]


def test_a_folder_that_cannot_be_listed_is_given_with_the_reason(tree: Path) -> None:
    found = walk(tree)
    assert next(found) == Listed(tree / "a.png")
    for file in (tree / "b").iterdir():
        file.unlink()
    (tree / "b").rmdir()
    rest = list(found)
    fault = Listed(tree / "b", "this folder cannot be listed: No such file or directory")
    assert rest[0] == fault
    assert [one.path.name for one in rest[1:]] == ["e.tiff", "z.webp"]


def test_folders_are_listed_when_it_is_their_turn(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []

    def scandir(folder: Path) -> object:
        listed.append(folder.name)
        return os.scandir(folder)

    class Patched:
        """`os`, noting what is listed."""

        def __getattr__(self, name: str) -> object:
            return scandir if name == "scandir" else getattr(os, name)

    monkeypatch.setattr(walking, "os", Patched())
    found = walk(tree)
    for path, so_far in (("a.png", []), ("10.JPEG", ["b"]), ("2.jpg", ["b"]), ("e.tiff", [*"bcd"])):
        assert next(found).path.name == path
        assert listed == [tree.name, *so_far]
