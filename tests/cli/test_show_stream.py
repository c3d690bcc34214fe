"""``perdure show STREAM --plot``: what it draws, says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perdure.reports.figures.stream import StreamCounts, count_stream, draw_stream
from perdure.streams import StreamConfig, build_stream
from tests.cli.command import Perdure
from tests.streams.test_increments import drawn


def inked(path: Path) -> float:
    """Share of a picture that is not white."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    return float((pixels.min(2) < 250).mean())


def test_a_stream_is_drawn_where_it_is_said(perdure: Perdure, tmp_path: Path) -> None:
    said = perdure("show", "digits", "--plot", "tasks=B4-Inc2", "imbalance=50")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[0] == "picture  digits.png"
    assert said.out.splitlines()[1].startswith("note     imbalance=50 leaves 9")
    assert 0.05 < inked(Path("digits.png")) < 0.6
    out = tmp_path / "other.png"
    made = json.loads(perdure("show", "digits/nsp2", "--plot", "--json", "--out", out).out)
    assert made["picture"] == str(out)
    assert [task["task"] for task in made["tasks"]] == [1, 2, 3, 4, 5]
    assert made["tasks"][0]["domain"] is None
    assert sum(sum(task["train"].values()) for task in made["tasks"]) == 1262
    assert {name for task in made["tasks"] for name in task["test"]} == set("0123456789")


def test_own_images_are_drawn(perdure: Perdure, photos: Path) -> None:
    lines = ["path,label,domain"]
    lines += [
        f"{file.relative_to(photos)},{file.parent.name},{'ab'[int(file.stem) % 2]}"
        for file in sorted(photos.rglob("*.png"))
    ]
    table = photos / "list.csv"
    table.write_text("\n".join(lines) + "\n")
    made = json.loads(perdure("show", table, "--plot", "increment=domains", "--json").out)
    assert made["picture"] == "list.png"
    assert made["notes"] == ["Every domain is a task: a, b. The key tasks is not read."]
    expected = {"cat": 1, "dog": 1, "eel": 1}
    assert made["tasks"] == [
        {"task": place, "domain": name, "train": expected, "val": {}, "test": expected}
        for place, name in ((1, "a"), (2, "b"))
    ]
    assert inked(Path("list.png")) > 0.05


def test_what_cannot_be_drawn(perdure: Perdure) -> None:
    for words, code, text in (
        (("digit", "--plot"), 2, "Unknown stream 'digit' for --plot. Did you mean 'digits'?"),
        (("digits", "--plot", "--out", "a.jpg"), 2, "--out a.jpg: the picture is a PNG. Type"),
        (("digits", "tasks=5+5"), 2, "Type: perdure show digits --plot tasks=5+5"),
        (("digits", "--out", "a.png"), 2, "--out a.png has no use without --plot"),
        (("digits", "--plot", "taks=5+5"), 2, "Did you mean 'tasks'?"),
        (("digits", "--plot", "tasks"), 2, "'tasks' is not of the form key=value"),
        (("digits", "--plot", "increment=domains"), 2, "does not know the domains of its images"),
        (("digits", "--plot", "--out", "no/such/place.png"), 1, "no/such"),
    ):
        said = perdure("show", *words)
        assert (said.code, said.out) == (code, ""), words
        assert text in said.err, words
    assert not list(Path.cwd().iterdir())


def test_counts_are_those_of_the_stream() -> None:
    source = drawn({"real": [3, 0, 5], "sketch": [2, 4, 2]})
    config = StreamConfig(class_order="sorted", increment="domains", validation_fraction=0.4)
    counts = count_stream(build_stream(config, 0, source))
    assert counts.classes == ("ant", "cat", "bee")
    assert counts.domains == ("real", "sketch")
    assert counts.train.tolist() == [[2, 1], [3, 1], [0, 2]]
    assert counts.val.tolist() == [[1, 1], [2, 1], [0, 2]]
    assert counts.test.tolist() == [[2, 2], [2, 2], [0, 2]]


@pytest.mark.long
@pytest.mark.parametrize(("classes", "tasks"), [(1, 1), (200, 100)])
def test_pictures_of_every_size(classes: int, tasks: int, tmp_path: Path) -> None:
    train = np.zeros((classes, tasks), np.int64)
    train[np.arange(classes), np.arange(classes) * tasks // classes] = 1 + np.arange(classes)
    none = np.zeros_like(train)
    names = tuple(f"a $trange$ name of a class, number {index}" for index in range(classes))
    draw_stream(StreamCounts(names, (), train, none, none), "odd", tmp_path / "odd.png")
    with Image.open(tmp_path / "odd.png") as picture:
        assert 500 < picture.size[0] < 2000
        assert 400 < picture.size[1] < 2000
    assert inked(tmp_path / "odd.png") > 0.02
