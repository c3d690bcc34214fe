"""A text tower of open_clip with random weights, in a cache of its own, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import safetensors.torch
import torch

WIDTH = 16
MODEL = "tiny-language"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give a test a cache of its own and no network."""
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of random weights of the model, which open_clip knows from then on."""
    folder = tmp_path_factory.mktemp("tower")
    about = {
        "embed_dim": WIDTH,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 32,
            "patch_size": 16,
            "head_width": 8,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 32,
            "heads": 4,
            "layers": 2,
        },
    }
    (folder / f"{MODEL}.json").write_text(json.dumps(about))
    open_clip.add_model_config(folder / f"{MODEL}.json")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = open_clip.create_model(MODEL).state_dict()
    file = folder / "weights.safetensors"
    safetensors.torch.save_file(drawn, file)
    return file


@pytest.fixture
def tower(weights: Path) -> str:
    """Return what to type for that tower."""
    return f"{MODEL}/{weights}"
