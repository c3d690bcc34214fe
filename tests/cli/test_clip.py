"""``perdure run`` with texts: what a dry run says, and refusals that leave the folder free."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from perdure.randomness import generator
from tests.cli.command import Perdure
from tests.tiny import TINY

CLIP = (*TINY, "backbone=vit_xsmall_patch16_clip_224", "class_embeddings=text")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def texts(path: Path, width: int = 512) -> Path:
    names = [f"pattern_{label}" for label in range(10)]
    vectors = {name: torch.randn(width, generator=generator(0, name)) for name in names}
    safetensors.torch.save_file(vectors, path)
    return path


@pytest.mark.long
def test_run_and_predict_with_texts_of_a_file(
    perdure: Perdure, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.experiment.draw", lambda *args: None)
    file, out = texts(tmp_path / "mine.safetensors"), tmp_path / "out"
    keys = [*CLIP, f"text_features={file}", "refine_epochs=1", "tasks=5+5"]
    said = perdure("run", "digits/clip_nsp2", *keys, "--out", out, "-q", "--json")
    assert said.code == 0, said.err
    heads = [entry["head"] for entry in json.loads(said.out)["results"]]
    assert heads == ["language", "gaussian"]
    file.unlink()
    said = perdure("predict", out, photos / "cat" / "0.png", "--head", "language", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)[0]["class"].startswith("pattern_")


@pytest.mark.long
def test_dry_run_looks_texts_up(perdure: Perdure, tmp_path: Path) -> None:
    said = perdure("run", "digits/clip_finetune", *CLIP, "--dry-run")
    assert said.code == 0, said.err
    assert "3 matrices of 4 × 256 (3,072 parameters) and the logit scale per task" in said.out
    assert "the run computes text features with ViT-B-16/openai" in said.out
    assert not (tmp_path / "cache").exists()
    file = texts(tmp_path / "mine.safetensors")
    said = perdure("run", "digits/clip_finetune", *CLIP, f"text_features={file}", "--dry-run")
    assert said.code == 0, said.err
    assert "computes text features" not in said.out


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("key", "code", "message"),
    [
        ("text_features=absent.safetensors", 2, "there is no such file"),
        ("text_features=narrow.safetensors", 2, "these vectors have 300 numbers, but the image"),
        ("text_features=ViT-B-16/opnai", 2, "Did you mean 'openai'?"),
        (
            "backbone=test_vit",
            1,
            "needs projection, the image projection that texts are compared",
        ),
    ],
)
def test_refused_before_the_folder_is_claimed(
    perdure: Perdure, tmp_path: Path, dry: list[str], key: str, code: int, message: str
) -> None:
    texts(Path("narrow.safetensors"), width=300)
    out = tmp_path / "out"
    keys = [*CLIP, key]
    said = perdure("run", "digits/clip_zero_shot", *keys, "--out", out, *dry)
    assert (said.code, said.out) == (code, "")
    assert message in said.err
    assert not out.exists()


def test_unreachable_tower(perdure: Perdure, tmp_path: Path) -> None:
    said = perdure("run", "digits/clip_zero_shot", *CLIP, "--out", tmp_path / "out")
    assert (said.code, said.out) == (1, "")
    assert "neither cached nor can they be fetched" in said.err
    assert "text_features=FILE.safetensors" in said.err
    assert not (tmp_path / "out").exists()
