from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perdure.errors import ConfigError, StreamError, UnreadableImageError
from perdure.streams import FileImages, ImageSet, Source
from perdure.streams.images import file_sets as files
from perdure.streams.sources.folder import hold_out
from tests.streams import made
from tests.streams.conftest import WriteFolder


def load(path: Path, **keys: Any) -> Source:
    return made.load("folder", path, **keys)


def file_names(source: Source, split: str) -> list[str]:
    images = source.train if split == "train" else source.test
    return ["/".join(Path(name).parts[-2:]) for name in images.names]


def test_train_and_test_folders(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path / "train", {"dog": 3, "cat": 2})
    write_folder(tmp_path / "test", {"cat": 1, "dog": 2})
    (tmp_path / "train" / "dog" / "notes.txt").write_text("ignored")
    (tmp_path / "train" / "dog" / "._000.png").write_text("ignored")
    (tmp_path / "train" / ".cache").mkdir()
    source = load(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert source.test.labels.tolist() == [0, 1, 1]
    assert file_names(source, "train")[-1] == "dog/002.png"
    expected = Image.open(tmp_path / "train" / "dog" / "002.png")
    assert np.array_equal(np.asarray(source.train.image(4)), np.asarray(expected))
    assert source.skipped == ()


def test_a_share_is_held_out(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path, {"cat": 10, "dog": 20, "eel": 2})
    source = load(tmp_path)
    assert np.bincount(source.test.labels).tolist() == [2, 4, 1]
    assert np.bincount(source.train.labels).tolist() == [8, 16, 1]
    assert not set(source.train.names) & set(source.test.names)
    for seed in (1, 2):
        assert load(tmp_path, seed=seed).test.names == source.test.names
    half = load(tmp_path, test_fraction=0.5)
    assert np.bincount(half.test.labels).tolist() == [5, 10, 1]
    assert set(half.test.names) > set(source.test.names)


def test_the_held_out_share_does_not_depend_on_where_the_folder_is(
    tmp_path: Path, write_folder: WriteFolder
) -> None:
    first = load(write_folder(tmp_path / "a", {"cat": 10, "dog": 10}))
    second = load(write_folder(tmp_path / "b", {"cat": 10, "dog": 10}))
    assert file_names(first, "test") == file_names(second, "test")


def test_both_folders_number_a_class_alike_however_it_is_spelled(
    tmp_path: Path, write_folder: WriteFolder
) -> None:
    decomposed, composed = (unicodedata.normalize(form, "éclair") for form in ("NFD", "NFC"))
    write_folder(
        tmp_path / "train", {decomposed: 3, "zebra": 2}
    )  # e comes before z, and é after it
    write_folder(tmp_path / "test", {composed: 1, "zebra": 2})
    source = load(tmp_path)
    assert source.class_names == ("zebra", composed)
    assert source.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert source.test.labels.tolist() == [0, 0, 1]
    assert [name.partition("/")[0] for name in file_names(source, "test")] == [
        "zebra", "zebra", composed,
    ]  # fmt: skip


def test_files_of_one_name_are_held_out_whatever_their_order(tmp_path: Path) -> None:
    files = [tmp_path / folder / "001.jpg" for folder in "abcde"]
    sides = [hold_out({"cat": given}, 0.2) for given in (files, files[::-1])]
    assert sides[0][1] == sides[1][1]


def test_caps_choose_before_anything_is_read(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path, {"cat": 10, "dog": 10})
    source = load(tmp_path, images_per_class=3, test_images_per_class=1, seed=5)
    assert np.bincount(source.train.labels).tolist() == [3, 3]
    assert np.bincount(source.test.labels).tolist() == [1, 1]
    left_out = set(load(tmp_path).train.names) - set(source.train.names)
    Path(min(left_out)).write_bytes(b"")
    assert load(tmp_path, images_per_class=3, seed=5).train.names == source.train.names


def test_layouts_that_are_refused(tmp_path: Path, write_folder: WriteFolder) -> None:
    with pytest.raises(ConfigError, match=r"names no folder\. Type data=FOLDER"):
        made.load("folder")
    (tmp_path / "images").mkdir()
    with pytest.raises(StreamError, match=r"'.*imagse' does not exist. Did you mean 'images'\?"):
        load(tmp_path / "imagse")
    with pytest.raises(StreamError, match="holds no class folder"):
        load(tmp_path / "images")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StreamError, match="is a file, not a folder"):
        load(tmp_path / "file")
    (tmp_path / "images" / "cat").mkdir()
    (tmp_path / "images" / "dog").mkdir()
    with pytest.raises(StreamError, match=r"No image file in the 2 folders of .*\.jpg"):
        load(tmp_path / "images")
    write_folder(tmp_path / "half" / "train", {"cat": 1})
    with pytest.raises(StreamError, match="class folders in 'train' but none in 'test'"):
        load(tmp_path / "half")
    write_folder(tmp_path / "single", {"cat": 2, "dog": 1})
    with pytest.raises(StreamError, match=r"'dog' has one image .*and needs two"):
        load(tmp_path / "single")


@pytest.mark.parametrize("split", ["train", "test", "."])
def test_an_empty_class_folder_is_named(
    tmp_path: Path, write_folder: WriteFolder, split: str
) -> None:
    for part in ("train", "test") if split != "." else ["."]:
        write_folder(tmp_path / part, {"cat": 2, "dog": 2})
    (tmp_path / split / "eel").mkdir()
    (tmp_path / split / "eel" / "readme.txt").write_text("nothing yet")
    with pytest.raises(StreamError, match=f"class folder '{tmp_path / split / 'eel'}'"):
        load(tmp_path)


def test_classes_of_train_and_test_must_match(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path / "a" / "train", {"cat": 1, "dog": 1})
    write_folder(tmp_path / "a" / "test", {"cat": 1, "dogs": 1, "dog": 1})
    with pytest.raises(StreamError, match=r"class 'dogs' is in '.*test' but not in") as caught:
        load(tmp_path / "a")
    assert "Did you mean 'dog'?" in str(caught.value)
    write_folder(tmp_path / "b" / "train", {"cat": 1, "dog": 1, "eel": 1})
    write_folder(tmp_path / "b" / "test", {"cat": 1})
    with pytest.raises(StreamError, match=r"class 'dog' \(and 1 more\) is in '.*train' but not in"):
        load(tmp_path / "b")
    write_folder(tmp_path / "c" / "train", {"cat": 1, "dog": 1})
    write_folder(tmp_path / "c" / "test", {"cat": 1, "dog": 1})
    with pytest.raises(ConfigError, match=r"test_fraction=0\.5 has no use"):
        load(tmp_path / "c", test_fraction=0.5)


def damage(root: Path) -> list[Path]:
    """Spoil four images: cut short, emptied, no image, and of a format that is not read."""
    cut, empty, text = (root / "cat" / f"{index:03d}.png" for index in (0, 4, 7))
    cut.write_bytes(cut.read_bytes()[:200])
    empty.write_bytes(b"")
    text.write_text("not an image")
    heic = root / "dog" / "phone.heic"
    heic.write_bytes(b"\0\0\0\x18ftypheic")
    return [cut, empty, text, heic]


@pytest.mark.parametrize("memory_budget", [2**30, 0])
def test_every_unreadable_image_is_named(
    tmp_path: Path, write_folder: WriteFolder, memory_budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageSet, "memory_budget", memory_budget)
    bad = damage(write_folder(tmp_path, {"cat": 10, "dog": 10}))
    with pytest.raises(UnreadableImageError, match="skip_unreadable=true") as caught:
        load(tmp_path)
    # Without the memory to keep them only headers are read: a cut file shows when it is decoded.
    found = bad if memory_budget else bad[1:]
    assert f"{len(found)} images cannot be read" in str(caught.value)
    assert all(str(path) in str(caught.value) for path in found)


@pytest.mark.parametrize("memory_budget", [2**30, 0])
def test_unreadable_images_can_be_left_out(
    tmp_path: Path, write_folder: WriteFolder, memory_budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageSet, "memory_budget", memory_budget)
    bad = damage(write_folder(tmp_path, {"cat": 10, "dog": 10}))
    source = load(tmp_path, skip_unreadable=True)
    assert len(source.train) + len(source.test) == 17
    assert sorted(fault.partition(": ")[0] for fault in source.skipped) == sorted(map(str, bad))
    assert f"{bad[1]}: the file is empty" in source.skipped
    for images in (source.train, source.test):
        for index in range(len(images)):
            expected = np.asarray(Image.open(images.names[index]))
            assert np.array_equal(np.asarray(images.image(index)), expected)
            assert source.class_names[images.labels[index]] in images.names[index]


def test_a_class_of_unreadable_images_is_named(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path, {"cat": 3, "dog": 3})
    for path in (tmp_path / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(StreamError, match="no training image for 'cat'"):
        load(tmp_path, skip_unreadable=True)


def test_long_lists_of_faults_are_cut(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path, {"cat": 15, "dog": 3})
    for path in (tmp_path / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UnreadableImageError) as caught:
        load(tmp_path)
    assert "15 images cannot be read" in str(caught.value)
    assert "and 5 more" in str(caught.value)
    assert str(caught.value).count("the file is empty") == 10


def test_images_are_decoded_once(
    tmp_path: Path, write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, {"cat": 4, "dog": 4})
    decoded: list[Path] = []
    original = files.decode

    def spy(path: Path) -> Image.Image:
        decoded.append(path)
        return original(path)

    monkeypatch.setattr(files, "decode", spy)
    monkeypatch.setattr("perdure.streams.images.sets.decode", spy)
    kept = load(tmp_path)
    assert len(decoded) == 8
    first = [np.asarray(kept.train.image(index)) for index in range(len(kept.train))]
    assert len(decoded) == 8
    monkeypatch.setattr(ImageSet, "memory_budget", 8 * 12 * 10 * 3 - 1)
    lazy = load(tmp_path)
    assert len(decoded) == 8
    for index, pixels in enumerate(first):
        assert np.array_equal(np.asarray(lazy.train.image(index)), pixels)
    assert len(decoded) == 8 + len(lazy.train)
    monkeypatch.setattr(ImageSet, "memory_budget", 8 * 12 * 10 * 3)
    assert len(load(tmp_path).train) == len(first)
    assert len(decoded) == 16 + len(lazy.train)


def test_a_late_fault_is_named(
    tmp_path: Path, write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageSet, "memory_budget", 0)
    write_folder(tmp_path, {"cat": 4, "dog": 4})
    source = load(tmp_path)
    path = Path(source.train.names[0])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UnreadableImageError, match="1 image cannot be read") as caught:
        source.train.image(0)
    assert str(path) in str(caught.value)
    assert isinstance(source.train, FileImages)
