"""``perdure export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perdure.learner.export.check import Agreement
from perdure.learner.export.exported import Exported
from perdure.learner.export.rounding import Attempt
from tests.cli.command import Perdure


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what was to be exported; nothing is traced, which takes seconds."""
    calls: list[Any] = []

    def stand_in(
        classifier: Any, path: Path, head: str | None, images: list[Path], precision: Any
    ) -> Exported:
        calls.append((classifier.classes_.tolist(), path, head, images))
        tried = Attempt("weights in half precision", 3, 4, 1e-3, None)
        return Exported(
            path=path,
            bytes=3 * 2**20,
            runtime="ONNX Runtime",
            opset=18,
            precision=precision,
            head=head or "gaussian",
            inputs={"images": "uint8 (batch, 3, 32, 32)"},
            outputs={"logits": "float32 (batch, 4)", "probabilities": "float32 (batch, 4)"},
            about={"preprocessing": '{"resize": 32}'},
            agreement=Agreement(4, len(images), 8.3e-7),
            attempts=() if precision == "fp32" else (tried,),
        )

    monkeypatch.setattr("perdure.learner.export.exported.export_model", stand_in)
    return calls


def test_for_people(
    perdure: Perdure, finished: Path, photos: Path, tmp_path: Path, asked: list[Any]
) -> None:
    out = tmp_path / "a.onnx"
    said = perdure("export", finished, out, "--head", "linear", "--check", photos / "dog")
    assert said.code == 0
    assert "Tracing the model" in said.err
    classes, path, head, images = asked[0]
    assert (classes[0][:8], path, head) == ("pattern_", out, "linear")
    assert images == sorted((photos / "dog").iterdir())
    shown = [line.split(maxsplit=1) for line in said.out.splitlines()]
    assert ["file", str(out)] in shown
    assert ["size", "3.0 MiB, opset 18"] in shown
    assert ["input", "images: uint8 (batch, 3, 32, 32)"] in shown
    assert ["output", "logits: float32 (batch, 4)"] in shown
    assert "on 4 random images and 4 of yours" in said.out
    assert "8e-07 of a logit" in said.out
    assert ["rounded", "nothing: fp32"] in shown
    said = perdure("export", finished, out, "--precision", "fp16")
    assert "weights in half precision: 3 of 4 images agree (75.0 %)" in said.out


def test_as_json(perdure: Perdure, finished: Path, tmp_path: Path, asked: list[Any]) -> None:
    said = perdure("export", finished / "model", tmp_path / "a.onnx", "--json")
    found = json.loads(said.out)
    assert asked[0][2:] == (None, [])
    assert found["path"] == str(tmp_path / "a.onnx")
    assert (found["bytes"], found["head"]) == (3 * 2**20, "gaussian")
    assert found["agreement"] == {"random": 4, "real": 0, "largest_difference": 8.3e-7}


def test_refusals(perdure: Perdure, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    for words, code, text in (
        ((finished, tmp_path / "a.pb"), 2, "must end in .onnx (ONNX) or .xml (OpenVINO), as a"),
        ((finished, out, "--precision", "int4"), 2, "Known: fp16, fp32, int8"),
        ((finished, out, "--precision", "int8"), 2, "needs at least 150 photographs"),
        ((f"{finished}s", out), 1, f"does not exist. Did you mean '{finished.name}'?"),
        ((tmp_path, out), 1, "holds no model"),
        ((finished, out, "--check", tmp_path / "b.png"), 2, "There is no image"),
        ((finished, out, "--head", "gausian"), 2, "has no head 'gausian'. It has: linear, gau"),
        ((finished, tmp_path / "no" / "a.onnx", "--head", "x"), 1, "mkdir -p"),
    ):
        said = perdure("export", *words)
        assert (said.code, said.out) == (code, ""), words
        assert text in said.err
    assert not out.exists()


@pytest.mark.slow
def test_a_file(perdure: Perdure, finished: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    said = perdure("export", finished, out, "--check", photos / "dog", "--json")
    assert said.code == 0
    found = json.loads(said.out)
    assert found["bytes"] == out.stat().st_size
    assert found["agreement"]["real"] == 4
