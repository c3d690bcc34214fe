"""Archives of one's own photographs are taken as the folder that they hold."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from perdure.cache import unpacked_dir
from perdure.cli.arguments import find_images
from perdure.errors import OutputError, StreamError
from perdure.learner.labelled import gather
from perdure.learner.unlabelled import pictures_to_predict
from perdure.streams import StreamConfig, resolve
from perdure.streams.fetch import archives
from perdure.streams.fetch.archives import unpacked
from perdure.streams.fetch.unpacking import unpack
from perdure.streams.inspection import inspect
from tests.streams.published import image_bytes, write_tar, write_zip


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "home"))


def members(*names: str) -> dict[str, bytes]:
    return {name: image_bytes(number, "PNG") for number, name in enumerate(names)}


PHOTOS = members("ant/0.png", "ant/more/1.png", "bee/0.png", "__MACOSX/._0.png", "bee/odd")


@pytest.mark.parametrize("name", ["p.zip", "P.ZIP", "p.tar", "P.TAR", "p.tar.gz", "p.tgz"])
@pytest.mark.parametrize("around", ["", "pets/"])
def test_an_archive_is_taken_as_a_folder_is(tmp_path: Path, name: str, around: str) -> None:
    content = {around + member: pixels for member, pixels in PHOTOS.items()}
    archive = tmp_path / name
    if name.lower().endswith(".zip"):
        write_zip(archive, content)
    else:
        write_tar(archive, content, "w" if name.lower() == "p.tar" else "w:gz")
    assert resolve(str(archive)) == f"folder:{archive}"
    lesson = gather(archive, None, "train", StreamConfig(), 0)
    assert lesson.counts() == {"ant": 2, "bee": 1}
    told = f"left out of '{archive}': 1 image whose name has no ending of one (bee/odd)"
    assert lesson.left_out == inspect(str(archive), least=1).told == told
    notes: list[str] = []
    assert len(list(find_images([str(archive)], say=notes.append))) == 3
    assert notes == [told]
    assert inspect(str(archive), least=1).train == 3
    assert len(pictures_to_predict(archive, StreamConfig())) == 3
    assert len(list(unpacked_dir().glob("*-*"))) == 1  # once for all


def test_a_folder_around_the_classes(tmp_path: Path) -> None:
    def classes(*names: str) -> list[str]:
        write_zip(tmp_path / "pets.zip", members(*names))
        return sorted(path.name for path in unpacked(tmp_path / "pets.zip").iterdir())

    assert classes("x/ant/0.png", "x/bee/0.png") == ["ant", "bee"]
    assert classes("pets/ant/0.png") == ["ant"]
    assert classes("ant/0.png") == ["ant"]
    assert classes("ant/2024/0.png") == ["ant"]  # a class with a folder within
    assert classes("x/train/ant/0.png", "x/test/ant/0.png") == ["test", "train"]


def test_what_killed_processes_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = unpacked_dir() / ".other-0123456789abcdef.making" / "half"
    left.mkdir(parents=True)
    archive = write_zip(tmp_path / "p.zip", PHOTOS)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(archives, "unpack", killed)
        with pytest.raises(KeyboardInterrupt):
            unpacked(archive)
    assert [path.name for path in unpacked_dir().iterdir()] == [".lock"]
    assert unpacked(archive).is_dir()


def test_damage_and_lack_of_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.zip").write_bytes(b"PK no zip")
    with pytest.raises(StreamError, match=r"p\.zip' is damaged or not whole.*pack it anew"):
        unpacked(tmp_path / "p.zip")
    write_zip(tmp_path / "p.zip", PHOTOS)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives, "unpack", full)
    with pytest.raises(OutputError, match=r"No space left.*Free some space"):
        unpacked(tmp_path / "p.zip")


ODD = {
    "too long": ["x" * 300 + ".png"],
    "file and folder": ["a", "a/b.png"],
    "folder and file": ["a/b.png", "a"],
    "deep": ["d/" * 3000 + "x.png"],
}


@pytest.mark.parametrize("names", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_odd_entries_get_a_sentence(tmp_path: Path, names: list[str], kind: str) -> None:
    archive, out = tmp_path / f"p.{kind}", tmp_path / "out"
    out.mkdir()
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for name in names:
                info = zipfile.ZipInfo("x")
                info.filename = name
                file.writestr(info, b"content")
    else:
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
            for name in names:
                info_of = tarfile.TarInfo(name)
                info_of.size = 1
                tar.addfile(info_of, io.BytesIO(b"x"))
    with pytest.raises(StreamError, match=r"cannot be written here|is damaged") as caught:
        unpack(archive, out, lambda done: None)
    assert "Free some space" not in str(caught.value)


def test_names_in_a_zip_that_does_not_say_how_they_are_written(tmp_path: Path) -> None:
    """A Mac writes UTF-8 without saying so; others write what a PC had, which stays as it is."""
    for name in ("k\u00e4fer".encode(), b"k\x84fern"):
        write_zip(tmp_path / "p.zip", {"0123456/0.png": image_bytes(0, "PNG")})
        content = (tmp_path / "p.zip").read_bytes()
        (tmp_path / "p.zip").write_bytes(content.replace(b"0123456", name.ljust(7, b"_")))
        unpack(tmp_path / "p.zip", tmp_path / "out", lambda done: None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "k\u00e4fer_",
        "k\u00e4fern_",
    ]
