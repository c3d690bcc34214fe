"""``perdure predict``."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure.cli.main import main
from perdure.learner import ContinualClassifier
from perdure.learner.predict_files import Answer, predict_files
from tests.cli.command import Perdure

CLASSES = 10
"""What the finished run has learned."""


@pytest.fixture
def images(photos: Path) -> list[Path]:
    """Return four image files in one folder."""
    return sorted((photos / "dog").iterdir())


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Put bytes on standard input."""

    def put(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return put


@pytest.fixture
def broken(photos: Path) -> Path:
    """Return the folder of all photos, two of the fourteen broken."""
    (photos / "eel" / "1.png").write_text("no image")
    (photos / "eel" / "2x.jpg").touch()
    (photos / "cat" / "notes.txt").write_text("not called like an image")
    (photos / "dog" / ".hidden.png").write_text("hidden")
    (photos / "last.webp").write_bytes((photos / "cat" / "0.png").read_bytes())
    return photos


def test_for_people(perdure: Perdure, finished: Path, images: list[Path]) -> None:
    said = perdure("predict", finished, *images)
    assert (said.code, said.err) == (0, "")
    heads, *rows = said.out.splitlines()
    assert heads.split() == ["probability", "class", "image"]
    for row, image in zip(rows, images, strict=True):
        share, sign, name, path = row.split()[:4]
        assert (sign, path) == ("%", str(image))
        assert 0 < float(share) <= 100
        assert name.startswith("pattern_")
        assert row.index(name) == heads.index("class")
        assert row.index(path) == heads.index("image")


def test_table_names_likely_classes_beside_the_first(
    perdure: Perdure, finished: Path, images: list[Path]
) -> None:
    (one,) = json.loads(perdure("predict", finished, images[0], "--head", "linear", "--json").out)
    others = [
        f"{other['class']} {100 * other['probability']:.1f} %"
        for other in one["top"][1:]
        if other["probability"] >= 0.001
    ]
    assert others
    said = perdure("predict", finished, images[0], "--head", "linear")
    assert said.out.endswith(f"{images[0]}  ({', '.join(others)})\n")
    said = perdure("predict", finished, images[0], "--head", "linear", "--top", "1")
    assert said.out.endswith(f"{images[0]}\n")


def test_as_json(perdure: Perdure, finished: Path, images: list[Path]) -> None:
    said = perdure("predict", finished / "model", images[0].parent, "--json")
    assert perdure("predict", finished, images[0].parent, "--format", "json").out == said.out
    found = json.loads(said.out)
    assert [one["path"] for one in found] == [str(image) for image in images]
    for one in found:
        assert list(one) == ["path", "class", "probability", "top"]
        assert len(one["top"]) == 5
        assert one["top"][0] == {"class": one["class"], "probability": one["probability"]}
        shares = [other["probability"] for other in one["top"]]
        assert shares == sorted(shares, reverse=True)
    (alone,) = json.loads(perdure("predict", finished, images[2], "--json").out)
    assert alone["class"] == found[2]["class"]
    assert alone["probability"] == pytest.approx(found[2]["probability"], rel=1e-4)
    # Every element is in a line of its own.
    lines = said.out.splitlines()
    assert (lines[0], lines[-1]) == ("[", "]")
    assert [json.loads(line.rstrip(",")) for line in lines[1:-1]] == found


def test_as_csv(perdure: Perdure, finished: Path, broken: Path) -> None:
    awkward = broken / 'a, "b".png'
    shutil.copy(broken / "cat" / "0.png", awkward)
    said = perdure("predict", finished, broken, "--format", "csv", "--top", "2")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    heads = ["path", "class", "probability", "class_2", "probability_2", "error"]
    assert list(rows[0]) == heads
    found = json.loads(perdure("predict", finished, broken, "--json", "--top", "2").out)
    assert [row["path"] for row in rows] == [one["path"] for one in found]
    assert rows[0]["path"] == str(awkward)
    for row, one in zip(rows, found, strict=True):
        if "error" in one:
            assert list(row.values()) == [one["path"], "", "", "", "", one["error"]]
        else:
            assert (row["class_2"], row["error"]) == (one["top"][1]["class"], "")
            assert float(row["probability"]) == one["probability"]
            assert float(row["probability_2"]) == one["top"][1]["probability"]


@pytest.mark.long
def test_goes_on_after_bad_images_and_counts_them(
    perdure: Perdure, finished: Path, broken: Path
) -> None:
    order = [f"{name}/{n}.png" for name in ("cat", "dog", "eel") for n in range(4)]
    order = [*order[:11], "eel/2x.jpg", order[11], "last.webp"]
    for size in ("1", "3", "64"):
        said = perdure("predict", finished, broken, "--json", "--batch-size", size)
        assert said.code == 1
        note, count = said.err.splitlines()
        assert count == "2 of 14 images could not be read"
        assert note == (
            f"note: left out of '{broken}': 1 hidden file or folder (dog/.hidden.png); 1 other file "
            "(cat/notes.txt)"
        )
        found = json.loads(said.out)
        assert [one["path"] for one in found] == [str(broken / name) for name in order]
        faults = {Path(one["path"]).name: one["error"] for one in found if "error" in one}
        assert set(faults) == {"1.png", "2x.jpg"}
        assert faults["2x.jpg"] == "the file is empty"
        assert faults["1.png"].startswith("no image of a known format (JPEG, PNG,")
    said = perdure("predict", finished, broken)
    assert f"          -  -          {broken / 'eel' / '2x.jpg'}: the file is empty\n" in said.out


def test_paths_on_standard_input(
    perdure: Perdure, finished: Path, images: list[Path], stdin: Callable[[bytes], None]
) -> None:
    long = "x" * 5000
    empty = images[0].parent / "empty"
    empty.mkdir()
    lines = [images[1], "gone.png", "", images[0].parent, long, empty, "nul\0.png"]
    stdin("\r\n".join(map(str, lines)).encode())
    said = perdure("predict", finished, images[3], "--top", 1, "-", "--json")
    assert (said.code, said.err) == (1, "4 of 10 images could not be read\n")
    found = json.loads(said.out)
    expected = [images[3], images[1], "gone.png", *images, long, empty, "nul\0.png"]
    assert [one["path"] for one in found] == list(map(str, expected))
    assert [one["error"] for one in found if "error" in one] == [
        "No such file or directory",
        "File name too long",
        "this folder holds no image file",
        "embedded null byte",
    ]
    for form, nothing in (("json", []), ("csv", None)):
        stdin(b"\n")
        said = perdure("predict", finished, "-", "--format", form)
        assert (said.code, said.err) == (0, "")
        if form == "json":
            assert json.loads(said.out) == nothing
        else:
            assert said.out.startswith("path,class,probability,class_2,")


def test_names_in_whatever_bytes(
    perdure: Perdure, finished: Path, images: list[Path], stdin: Callable[[bytes], None]
) -> None:
    odd = bytes(images[0].parent) + b"/\xff\n.png"
    Path(images[0]).rename(odd.decode("utf-8", "surrogateescape"))
    said = perdure("predict", finished, images[0].parent)
    assert said.code == 0
    assert len(said.out.splitlines()) == 1 + len(images)
    assert "\\udcff\\n.png'" in said.out
    stdin(odd.replace(b"\n", b"") + b"\n")
    assert "No such file" in perdure("predict", finished, "-").out


def test_top(perdure: Perdure, finished: Path, images: list[Path]) -> None:
    (one,) = json.loads(perdure("predict", finished, images[0], "--json", "--top", 1000).out)
    assert len({other["class"] for other in one["top"]}) == CLASSES
    assert sum(other["probability"] for other in one["top"]) == pytest.approx(1, abs=1e-4)
    for wrong in ("0", "-1", "x"):
        said = perdure("predict", finished, images[0], f"--top={wrong}")
        assert (said.code, said.out) == (2, "")
        assert f"Argument --top: '{wrong}' is not a whole number of 1 or more" in said.err


def test_formats_that_are_not(perdure: Perdure, finished: Path, images: list[Path]) -> None:
    said = perdure("predict", finished, images[0], "--format", "jsn")
    assert said.code == 2
    assert "Did you mean 'json'? Known: csv, json, table." in said.err
    said = perdure("predict", finished, images[0], "--format", "csv", "--json")
    assert (said.code, said.out) == (2, "")
    assert "--json and --format csv exclude each other" in said.err


@pytest.mark.long
def test_head(perdure: Perdure, finished: Path, images: list[Path]) -> None:
    last = perdure("predict", finished, images[0], "--json").out
    assert perdure("predict", finished, images[0], "--head", "gaussian", "--json").out == last
    assert perdure("predict", finished, "--head", "linear", images[0], "--json").out != last
    said = perdure("predict", finished, images[0], "--head", "gausian", "--json")
    assert (said.code, said.out) == (2, "")
    assert "This model has no head 'gausian'. It has: linear, gaussian." in said.err


def test_images_that_are_not_there(
    perdure: Perdure, finished: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("Nothing is computed before all paths are looked at.")

    monkeypatch.setattr(ContinualClassifier, "load", load)
    said = perdure("predict", finished, images[1], images[0].with_name("0.pn"))
    assert (said.code, said.out) == (2, "")
    assert "Did you mean '0.png'?" in said.err
    (images[0].parent / "empty" / "deeper").mkdir(parents=True)
    said = perdure("predict", finished, images[0].parent / "empty")
    assert (said.code, said.out) == (2, "")
    assert "empty' holds no image file. Expected are files ending in .avif, .bmp" in said.err


def test_folders_without_a_model(
    perdure: Perdure, finished: Path, images: list[Path], tmp_path: Path
) -> None:
    said = perdure("predict", f"{finished}s", images[0])
    assert (said.code, said.out) == (1, "")
    assert f"does not exist. Did you mean '{finished.name}'?" in said.err
    said = perdure("predict", images[0].parent, images[0])
    assert "holds no model" in said.err
    shutil.copy(finished / "config.toml", tmp_path / "config.toml")
    said = perdure("predict", tmp_path, images[0])
    assert "is not finished. Go on with `perdure run " in said.err


def test_damaged_model(
    perdure: Perdure, finished: Path, images: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(finished / "model", tmp_path / "model")
    weights = tmp_path / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    said = perdure("predict", tmp_path, images[0])
    assert (said.code, said.out) == (1, "")
    assert f"error: '{weights}' is damaged" in said.err


class Terminal(io.StringIO):
    """A standard stream that is a terminal, or a pipe whose reader leaves after some text.

    Args:
        terminal: whether it is one.
        room: characters until the reader leaves.
    """

    def __init__(self, terminal: bool, room: float = float("inf")) -> None:
        super().__init__()
        self._terminal, self._room = terminal, room

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        self._room -= len(text)
        if self._room < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


def test_a_reader_that_leaves_ends_it_quietly(
    monkeypatch: pytest.MonkeyPatch, finished: Path, broken: Path
) -> None:
    answered: list[Answer] = []

    def counted(*args: Any, **options: Any) -> Any:
        for answer in predict_files(*args, **options):
            answered.append(answer)
            yield answer

    monkeypatch.setattr("perdure.learner.predict_files.predict_files", counted)
    out, err = Terminal(False, 400), Terminal(False)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    code = main(["predict", str(finished), str(broken), "--batch-size", "1", "--top", "1"])
    assert (code, err.getvalue()) == (0, "")
    assert 0 < len(answered) < 14


@pytest.mark.parametrize("piped", [True, False])
def test_the_bar_and_the_rows_do_not_mix(
    monkeypatch: pytest.MonkeyPatch, finished: Path, broken: Path, piped: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out, err = Terminal(not piped), Terminal(True)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["predict", str(finished), str(broken), "--top", "1", "--batch-size", "4"]) == 1
    rows = f"{broken / 'dog' / '0.png'}\n"
    assert (rows in out.getvalue().replace("\r", "")) is piped
    assert (str(broken / "dog" / "0.png") in err.getvalue()) is not piped
    assert "images" in err.getvalue()
    assert "2 of 14 images could not be read" in err.getvalue()


def test_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, perdure: Perdure, finished: Path, broken: Path
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        yield Answer(broken, fault="first")
        raise KeyboardInterrupt

    monkeypatch.setattr("perdure.learner.predict_files.predict_files", interrupted)
    said = perdure("predict", finished, broken, "--json")
    assert (said.code, said.err) == (130, "\ninterrupted.\n")
    assert "]" not in said.out[1:]
