"""``perdure bench predict``: what it times, and that it can be typed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from perdure.bench import prediction
from perdure.streams.images.find_images import Listed
from tests.cli.command import Perdure

SMALL = ("--images", 5, "--rounds", 2, "--batch-size", 2, "--json")


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not import everything anew in another process."""
    monkeypatch.setattr(prediction, "_import_seconds", lambda: 1.5)


@pytest.mark.long
def test_random_weights(perdure: Perdure) -> None:
    drawn = ("--backbone", "test_vit", "--img-size", 32, "--precision", "fp32")
    said = perdure("bench", "predict", "--method", "iprompt", *drawn, *SMALL)
    assert said.code == 0
    report = json.loads(said.out)
    assert (report["method"], report["img_size"]) == ("iprompt", 32)
    assert (report["images"], report["rounds"], report["batch_size"]) == (5, 2, 2)
    assert report["import_seconds"] == 1.5
    for figure in ("share_of_bare", "share_of_model", "load_seconds", "decode_ms_per_image"):
        assert report[figure] > 0


@pytest.mark.long
def test_figures_of_a_model(
    perdure: Perdure, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clocks are moved by what is timed alone: 3 s, then 1 s, then 2 s, for five images."""
    passed = [0.0]
    plain = iter([3.0, 1.0] * 3)
    listed: list[Path] = []

    def move(pixels: torch.Tensor, size: int, compute: object) -> None:
        assert (tuple(pixels.shape), size) == ((5, 3, 32, 32), 2)
        passed[0] += next(plain)

    def predict(
        classifier: object, files: Iterable[Listed], out: object, form: str, batch_size: int
    ) -> None:
        assert batch_size == 2
        assert form == "csv"
        listed.extend(one.path for one in files)
        assert listed[-1].read_bytes().startswith(b"\xff\xd8")
        passed[0] += 2

    monkeypatch.setattr("perdure.bench.training.now", lambda device: passed[0])
    monkeypatch.setattr(prediction, "_each", move)
    monkeypatch.setattr("perdure.cli.commands.predict.write_predictions", predict)
    said = perdure("bench", "predict", finished, *SMALL)
    assert said.code == 0
    report = json.loads(said.out)
    assert len(listed) == 3 * 5  # once to warm up
    assert report["bare_images_per_second"] == pytest.approx(5 / 3)
    assert report["model_images_per_second"] == 5
    assert report["predict_images_per_second"] == 2.5
    assert (report["share_of_bare"], report["share_of_model"]) == (1.5, 0.5)


def test_refusals(perdure: Perdure, finished: Path) -> None:
    said = perdure("bench", "predict", finished, "--img-size", 32)
    assert said.code == 2
    assert f"--img-size is for a model with random weights; '{finished}' has its own" in said.err
    said = perdure("bench", "predict", "--method", "lda", "--backbone", "test_vit")
    assert said.code == 2
    assert "'lda' trains no prompts" in said.err
    assert perdure("bench", "predict", "--images", "0").code == 2
