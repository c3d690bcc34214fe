"""The whole way once on the real CLIP weights: learn, keep, predict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.cli.command import Perdure


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Return a folder with twelve images of each of four digits."""
    data = load_digits()
    for digit in range(4):
        folder = tmp_path / "digits" / f"digit {digit}"
        folder.mkdir(parents=True)
        for number, pixels in enumerate(data.images[data.target == digit][:12]):
            image = Image.fromarray((pixels * (255 / 16)).astype(np.uint8))
            image.save(folder / f"{number}.png")
    return tmp_path / "digits"


@pytest.mark.weights
@pytest.mark.timeout(600)
def test_learn_and_predict(perdure: Perdure, digits: Path, tmp_path: Path) -> None:
    keys = [f"data={digits}", "test_fraction=0.25", "tasks=2+2"]
    size = ["img_size=64", "epochs=2", "batch_size=8"]
    out = tmp_path / "run"
    said = perdure("run", "digits/nsp2", *keys, *size, "--out", out, "--json")
    assert said.code == 0, said.err
    results = {entry["head"]: entry for entry in json.loads(said.out)["results"]}
    assert set(results) == {"linear", "gaussian"}
    assert results["gaussian"]["backbone"] == "clip_vit_base_patch16"
    assert results["gaussian"]["test_counts"] == [6, 6]
    # Chance is a quarter; these features know digits.
    assert results["gaussian"]["last_accuracy"] >= 0.6
    assert (out / "results.png").stat().st_size > 10_000

    said = perdure("predict", out, digits / "digit 0" / "3.png", "--json")
    assert said.code == 0, said.err
    (found,) = json.loads(said.out)
    assert found["class"] == "digit 0"
    assert 0 < found["probability"] <= 1
