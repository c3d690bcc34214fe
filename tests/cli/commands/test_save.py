"""The model that a run leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from perdure.learner import ContinualClassifier
from perdure.learner.saved.contents import is_model
from tests.cli.command import Perdure


def test_a_run_tells_its_model_what_it_taught(finished: Path) -> None:
    assert is_model(finished / "model")
    assert not is_model(finished)
    history = ContinualClassifier.load(finished / "model").history_
    entries = json.loads((finished / "results.json").read_text())
    assert [len(lesson.new) for lesson in history.lessons] == entries[0]["task_sizes"]
    for index, lesson in enumerate(history.lessons):
        assert set(lesson.images) == set(lesson.new)
        assert min(lesson.images.values()) > 0
        assert lesson.held_out == sum(entries[0]["test_counts"][: index + 1])
        for entry in entries:
            measured = lesson.accuracy[entry["head"]]
            assert measured == pytest.approx(entry["accuracy_curve"][index])


def test_save(perdure: Perdure, finished: Path) -> None:
    said = perdure("save", finished, "complete", "--json")
    whole = json.loads(said.out)
    assert whole["folder"] == "complete"
    assert whole["learning"] > 10 * whole["prediction"]
    for name in ("classes.json", "weights.safetensors"):
        assert Path("complete", name).read_bytes() == (finished / "model" / name).read_bytes()
    said = perdure("save", "complete", "small", "--inference-only")
    assert (said.code, said.err) == (0, "")
    assert re.fullmatch(r"small: (.* kB) \(\1 to predict, 0 bytes more to learn on\)\n", said.out)
    small = Path("small", "weights.safetensors").stat().st_size
    assert small < Path("complete", "weights.safetensors").stat().st_size / 10
    said = perdure("save", "complet", "small")
    assert (said.code, said.out) == (1, "")
    assert "does not exist. Did you mean 'complete'?" in said.err


def test_save_into_what_is_no_model_is_refused(perdure: Perdure, finished: Path) -> None:
    Path("site").mkdir()
    Path("site", "config.json").write_text('{"theme": "dark"}')
    Path("site", "README.md").write_text("My site")
    said = perdure("save", finished, "site")
    assert (said.code, said.out) == (1, "")
    assert "holds no model, and its config.json would be replaced" in said.err
    assert Path("site", "README.md").read_text() == "My site"
    Path("site", "config.json").rename(Path("site", "model.json"))
    assert perdure("save", finished, "site").code == 1
    Path("site", "model.json").unlink()
    assert "its README.md would be replaced" in perdure("save", finished, "site").err
