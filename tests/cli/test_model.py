"""The model that a run leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perdure.learner import ContinualClassifier
from perdure.learner.saving import is_model


def test_a_run_tells_its_model_what_it_taught(finished: Path) -> None:
    assert is_model(finished / "model")
    assert not is_model(finished)
    history = ContinualClassifier.load(finished / "model").history
    entries = json.loads((finished / "results.json").read_text())
    assert [len(lesson.new) for lesson in history.lessons] == entries[0]["task_sizes"]
    for index, lesson in enumerate(history.lessons):
        assert set(lesson.images) == set(lesson.new)
        assert min(lesson.images.values()) > 0
        assert lesson.held_out == sum(entries[0]["test_counts"][: index + 1])
        for entry in entries:
            measured = lesson.accuracy[entry["head"]]
            assert measured == pytest.approx(entry["accuracy_curve"][index])
