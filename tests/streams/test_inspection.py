"""What is found in a folder or a benchmark before it is learned."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perdure.cache import archives_dir
from perdure.errors import StreamError, UnknownNameError
from perdure.streams.fetch.fetching import fetch
from perdure.streams.fetch.published import PUBLISHED
from perdure.streams.inspection import Inspection, inspect
from tests.streams.conftest import WriteFolder
from tests.streams.made import load
from tests.streams.published import image_bytes, offer, write_cifar100, write_cub200


def faults(found: Inspection) -> list[tuple[str, str]]:
    return [(fault.kind, fault.text) for fault in found.faults]


def test_a_folder_without_faults(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path, {"cat": 3, "dog": 2})
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / ".hidden.png").write_text("no image")
    (tmp_path / "cat" / "more").mkdir()
    told: list[tuple[str, int, int | None]] = []
    found = inspect(str(tmp_path), on_progress=lambda *words: told.append(words))
    left_out = {"hidden": 1, "other": 1}
    expected = Inspection(str(tmp_path), 2, 5, ignored=2, left_out=left_out, told=found.told)
    assert found == expected
    assert found.told.endswith("(cat/.hidden.png); 1 other file (cat/notes.txt)")
    assert told[-1] == ("looking at images", 5, 5)


def test_unreadable_images(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path, {"cat": 5, "dog": 3})
    cut, empty, text = (tmp_path / "cat" / f"00{index}.png" for index in range(3))
    cut.write_bytes(cut.read_bytes()[:200])
    empty.write_bytes(b"")
    text.write_text("no image")
    gone, loop = tmp_path / "dog" / "gone.png", tmp_path / "dog" / "loop.png"
    gone.symlink_to(tmp_path / "nowhere.png")
    loop.symlink_to(loop)
    found = inspect(str(tmp_path))
    assert [kind for kind, _ in faults(found)] == ["unreadable"] * 5
    assert [text.partition(": ")[0] for _, text in faults(found)] == [
        str(path) for path in (gone, loop, cut, empty, text)
    ]
    assert found.faults[3].text.endswith("the file is empty")
    assert (found.classes, found.train) == (2, 5)


def test_a_table(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path, {"cat": 3, "dog": 2})
    shutil.copy(tmp_path / "cat" / "000.png", tmp_path / "dog" / "copy.png")
    lines = [f"cat/00{k}.png,cat,train" for k in range(3)]
    lines += ["dog/000.png,dog,train", "dog/001.png,dog,test", "dog/copy.png,dog,test"]
    table = tmp_path / "photos.csv"
    table.write_text("\n".join(["path,label,split", *lines]))
    found = inspect(str(table))
    assert (found.classes, found.train, found.test) == (2, 4, 2)
    assert [kind for kind, _ in faults(found)] == ["duplicate", "few"]
    assert "cat/000.png (train) and " in found.faults[0].text
    assert found.faults[1].text == "class 'cat': none readable in test"
    table.write_text("path\ncat/000.png")
    with pytest.raises(StreamError, match="no column called label"):
        inspect(str(table))


def test_duplicates_across_train_and_test(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path / "train", {"cat": 3, "dog": 3})
    write_folder(tmp_path / "test", {"cat": 0, "dog": 0})
    for name in ("cat", "dog"):
        (tmp_path / "test" / name / "new.jpg").write_bytes(image_bytes(len(name + name[0])))
    assert [kind for kind, _ in faults(inspect(str(tmp_path)))] == []
    again = tmp_path / "test" / "dog" / "again.png"
    shutil.copy(tmp_path / "train" / "cat" / "001.png", again)
    shutil.copy(tmp_path / "train" / "cat" / "001.png", tmp_path / "train" / "dog" / "within.png")
    first = tmp_path / "train" / "cat" / "001.png"
    found = inspect(str(tmp_path))
    assert faults(found) == [("duplicate", f"{first} (train) and {again} (test)")]
    assert (found.train, found.test) == (7, 3)


def test_duplicates_that_a_held_out_share_may_separate(
    tmp_path: Path, write_folder: WriteFolder
) -> None:
    write_folder(tmp_path, {"cat": 3})
    shutil.copy(tmp_path / "cat" / "001.png", tmp_path / "cat" / "twin.png")
    ((kind, text),) = faults(inspect(str(tmp_path)))
    assert (kind, text.count("(train)")) == ("duplicate", 2)


def test_small_classes(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path / "train", {"cat": 4, "dog": 1, "eel": 0, "fox": 2})
    write_folder(tmp_path / "test", {"cat": 1, "dog": 0, "fox": 0})
    for path in (tmp_path / "test" / "cat").iterdir():
        path.write_bytes(image_bytes(5, "PNG"))
    assert faults(inspect(str(tmp_path))) == [
        ("few", "class 'dog': 1 readable, 2 wanted"),
        ("few", "class 'eel': 0 readable, 2 wanted"),
        ("few", "class 'fox': none readable in test"),
    ]
    assert len(inspect(str(tmp_path), least=1).faults) == 3
    assert len(inspect(str(tmp_path), least=6).faults) == 4


def test_wrong_extensions(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path, {"cat": 3, "dog": 2})
    path = (tmp_path / "cat" / "000.png").rename(tmp_path / "cat" / "0.JPG")
    (tmp_path / "cat" / "1.JPEG").write_bytes(image_bytes(1))
    (tmp_path / "cat" / "2.heic").write_bytes(image_bytes(2))
    assert faults(inspect(str(tmp_path))) == [
        ("extension", f"{path}: its content is PNG"),
        ("extension", f"{tmp_path / 'cat' / '2.heic'}: its content is JPEG"),
    ]
    # All of them are read.
    assert len(load("folder", tmp_path).train) == 5


def test_unusual_images_are_counted(tmp_path: Path, write_folder: WriteFolder) -> None:
    folder = write_folder(tmp_path, {"cat": 2}) / "cat"
    picture = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.convert("L").save(folder / "gray.png")
    picture.convert("LA").save(folder / "both.png")
    picture.convert("CMYK").save(folder / "print.jpg")
    picture.save(folder / "turned.jpg", exif=exif)
    # As telephones write them: several pictures in a JPEG.
    picture.save(folder / "phone.jpg", "MPO", save_all=True, append_images=[picture.rotate(90)])
    found = inspect(str(tmp_path))
    assert faults(found) == []
    assert found.unusual == {"gray": 2, "alpha": 1, "cmyk": 1, "turned": 1}


def test_names_with_spaces_and_accents(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path / "my été", {"un chat": 2, "日本": 2})
    assert inspect(str(tmp_path / "my été")).train == 4


def test_loops_of_links_end(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path, {"cat": 2, "dog": 2})
    (tmp_path / "cat" / "back").symlink_to(tmp_path)  # so that dogs would be cats
    (tmp_path / "self").symlink_to(tmp_path / "self")
    found = inspect(str(tmp_path))
    assert (found.classes, found.train) == (2, 4)
    assert faults(found) == [("unreadable", f"{tmp_path / 'self'}: a link that leads nowhere")]


def test_what_is_no_data_set(tmp_path: Path, write_folder: WriteFolder) -> None:
    with pytest.raises(UnknownNameError, match=r"'cifar10' is neither.* Did you mean 'cifar100'\?"):
        inspect("cifar10")
    with pytest.raises(UnknownNameError, match="'' is neither a published data set nor a folder"):
        inspect("")
    (tmp_path / "file").touch()
    with pytest.raises(StreamError, match="is a file, not a folder"):
        inspect(str(tmp_path / "file"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StreamError, match="holds no class folder"):
        inspect(str(tmp_path / "empty"))
    write_folder(tmp_path / "half" / "test", {"cat": 1})
    with pytest.raises(StreamError, match="class folders in 'test' but none in 'train'"):
        inspect(str(tmp_path / "half"))


def test_a_published_data_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "home"))
    offer(monkeypatch, "cub200", images=13)
    with pytest.raises(StreamError, match="perdure data fetch cub200"):
        inspect("cub200")
    write_cub200(archives_dir())
    images = fetch(PUBLISHED["cub200"]) / "CUB_200_2011" / "images"
    source = load("cub200")
    shutil.copy(source.train.names[0], source.test.names[0])
    Path(source.test.names[1]).write_bytes(b"")
    found = inspect("cub200")
    assert (found.name, found.classes, found.train, found.test) == ("cub200", 3, 6, 5)
    assert faults(found) == [
        ("incomplete", "12 images, 13 are published"),
        ("duplicate", f"{source.train.names[0]} (train) and {source.test.names[0]} (test)"),
        ("unreadable", f"{source.test.names[1]}: the file is empty"),
    ]
    assert str(images) in source.test.names[1]


def test_a_published_data_set_is_not_fetched_to_be_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "home"))
    offer(monkeypatch, "fashion_mnist")
    with pytest.raises(StreamError, match="Type: perdure data fetch fashion_mnist"):
        inspect("fashion_mnist")
    assert not (tmp_path / "home").exists()


def test_a_published_data_set_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "home"))
    offer(monkeypatch, "cifar100", images=18)
    write_cifar100(archives_dir())
    folder = fetch(PUBLISHED["cifar100"]) / "cifar-100-binary"
    assert inspect("cifar100").faults == []
    train = (folder / "train.bin").read_bytes()
    (folder / "test.bin").write_bytes(train[:3074] + (folder / "test.bin").read_bytes()[3074:])
    assert faults(inspect("cifar100")) == [
        ("duplicate", "cifar100/train[0] (train) and cifar100/test[0] (test)")
    ]
