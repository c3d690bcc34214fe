"""OpenVINO's representation: two files that give the model's answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openvino
import pytest

from perdure.atomic import atomic_write
from perdure.errors import OutputError
from perdure.learner.export.exported import export_model
from perdure.testing.trial import make_trial
from tests.learner.export.test_exported import Case, assert_same_logits, exported, small

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    trial = small(make_trial("lda", sizes=(2, 2), images=4))
    return exported(trial, tmp_path_factory.mktemp("ir") / "a.xml")


def test_answers_are_those_of_the_classifier(case: Case) -> None:
    assert case.made.runtime == "OpenVINO"
    assert sorted(path.name for path in case.made.path.parent.iterdir()) == ["a.bin", "a.xml"]
    assert case.made.bytes == sum(p.stat().st_size for p in case.made.path.parent.iterdir())
    core = openvino.Core()
    model = core.read_model(case.made.path)
    transform = case.classifier.state_.transform
    pixels = np.stack([transform(picture).numpy() for picture in case.pictures])
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    outputs = core.compile_model(model, "CPU", precise)({"images": pixels})
    assert_same_logits(outputs["logits"], case.classifier.logits(case.pictures))
    assert json.loads(model.get_rt_info(["perdure", "classes"]).astype(str)) == list(
        case.classifier.classes_
    )


def test_half_precision(case: Case, tmp_path: Path) -> None:
    made = export_model(
        case.classifier, tmp_path / "a.xml", pictures=case.pictures, precision="fp16"
    )
    assert made.attempts[0].passes
    assert made.bytes < 0.8 * case.made.bytes


def test_a_graph_never_stands_beside_weights_of_another(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.xml"
    export_model(case.classifier, path, pictures=case.pictures)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    seen: list[set[str]] = []

    def full(path: Path, content: bytes) -> None:
        seen.append({one.name for one in tmp_path.iterdir()})
        if path.suffix == ".xml":
            raise OutputError("the disk is full")
        atomic_write(path, content)

    monkeypatch.setattr("perdure.learner.export.exported.atomic_write", full)
    with pytest.raises(OutputError):
        export_model(case.classifier, path, pictures=case.pictures)
    assert all("a.xml" not in names for names in seen), (
        "a kill leaves no graph beside others' weights"
    )
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before
    monkeypatch.undo()
    export_model(case.classifier, path, pictures=case.pictures)
    assert {one.name for one in tmp_path.iterdir()} == {"a.bin", "a.xml"}
