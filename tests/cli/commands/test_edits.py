"""``perdure rename``, ``merge``, ``forget``, ``history`` and ``undo`` on a model of photos."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from perdure.cli.main import main
from tests.cli.command import Perdure
from tests.cli.commands.test_learn import TINY, contents, draw


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was taught in two lessons; not to be changed."""
    place = tmp_path_factory.mktemp("twice")
    for names in (("cat", "dog"), ("owl",)):
        draw(place / names[-1], *names)
        words = ["learn", str(place / "pets"), str(place / names[-1]), "-q"]
        assert main([*words, *(TINY if names[-1] == "dog" else ())]) == 0
    return place / "pets"


@pytest.fixture
def pets(twice: Path, tmp_path: Path) -> Path:
    """A copy of that model."""
    return Path(shutil.copytree(twice, tmp_path / "pets"))


@pytest.mark.long
def test_history_and_undo_of_lessons(perdure: Perdure, pets: Path) -> None:
    said = perdure("history", pets)
    assert said.code == 0
    assert "what undo takes back" in said.out
    assert said.out.rstrip().endswith("learned owl (3 images)")
    one = json.loads(perdure("history", pets, "--json").out)
    assert [len(lesson["new"]) for lesson in one["lessons"]] == [2, 1]
    assert [change["text"] for change in one["undoable"]] == ["learned owl (3 images)"]
    said = perdure("undo", pets)
    assert (said.code, said.err) == (0, "")
    assert "undone    learned owl (3 images)\n" in said.out
    assert "2 classes (cat, dog)" in said.out
    assert "nothing to undo" in perdure("history", pets).out
    before = contents(pets)
    said = perdure("undo", pets)
    assert said.code == 1
    assert "error: There is nothing to undo" in said.err
    assert contents(pets) == before


@pytest.mark.long
def test_rename_merge_and_back(perdure: Perdure, pets: Path) -> None:
    assert "'owl' is called '=1+1'" in perdure("rename", pets, "owl", "=1+1").out
    assert json.loads(perdure("merge", pets, "cat", "dog", "--json").out)["classes"] == [
        "=1+1",
        "dog",
    ]
    told = json.loads(perdure("history", pets, "--json").out)["undoable"]
    assert [one["text"] for one in told][1:] == ["owl is called =1+1", "cat is called dog"]
    assert json.loads(perdure("undo", pets, "--json").out) == {
        "model": str(pets),
        "undone": "cat is called dog",
        "classes": ["cat", "dog", "=1+1"],
    }
    assert "owl is called =1+1" in perdure("undo", pets).out


def test_forget_is_for_good(perdure: Perdure, pets: Path) -> None:
    said = perdure("forget", pets, "dog")
    assert (said.code, said.err) == (0, "")
    assert "'dog' is forgotten" in said.out
    assert json.loads(perdure("undo", pets, "--json").out)["classes"] == ["cat"]
    told = json.loads(perdure("forget", pets, "cat", "--json").out)
    assert told["name"] == "cat"


@pytest.mark.parametrize(
    "words",
    [("rename", "eel", "x"), ("rename", "cat", "dog"), ("merge", "cat", "cat"), ("forget", "x")],
)
def test_what_is_refused_changes_nothing(
    perdure: Perdure, pets: Path, words: tuple[str, ...]
) -> None:
    before = contents(pets)
    said = perdure(words[0], pets, *words[1:])
    assert (said.code, said.out) == (2, "")
    assert contents(pets) == before
