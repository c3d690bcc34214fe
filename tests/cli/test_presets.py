"""Every preset: short, explained, valid, and run once on a tiny stand-in."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from perdure.engine.config import load_config, preset_file, preset_names
from tests.cli.command import TINY, Perdure

EVERY = {
    "clip_finetune",
    "clip_joint",
    "clip_nsp2",
    "clip_zero_shot",
    "coda_prompt",
    "dualprompt",
    "finetune",
    "iprompt",
    "joint",
    "l2p",
    "l2p_nsp2",
    "l2p_pgp",
    "lda",
    "linear",
    "ncm",
    "nsp2",
    "pgp",
}
BENCHMARKS = {
    "demo": {"finetune", "lda", "ncm", "nsp2"},
    "digits": EVERY,
    "fashion_mnist": EVERY,
}
SMALL_CLIP = ("backbone=vit_xsmall_patch16_clip_224", "refine_epochs=2")
PRESETS = sorted(f"{benchmark}/{name}" for benchmark, names in BENCHMARKS.items() for name in names)


def test_every_preset_is_tested() -> None:
    assert preset_names() == PRESETS
    assert len(PRESETS) == 38


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_short_and_explains_itself(name: str) -> None:
    text = preset_file(name).read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) <= 40
    assert all(len(line) <= 100 for line in lines)
    assert lines[0].startswith("# ")
    assert f"# perdure run {name}" in lines
    config = load_config(name)
    benchmark, _, method = name.partition("/")
    assert config.run.method == method
    shared = tomllib.loads((preset_file(name).parent / "_base.toml").read_text("utf-8"))  # type: ignore[attr-defined]
    assert not shared.keys() & tomllib.loads(text).keys(), f"shared by {benchmark}/_base.toml"


@pytest.mark.parametrize("name", PRESETS)
def test_preset_runs(
    perdure: Perdure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # Pictures take half the time of a tiny run and are tested elsewhere.
    monkeypatch.setattr("perdure.experiment.draw", lambda *args: None)
    projected = SMALL_CLIP if "/clip_" in name else ()
    said = perdure(
        "run", name, *TINY, "tasks=5+5", *projected, "--out", tmp_path / "out", "-q", "--json"
    )
    assert (said.code, said.err) == (0, "")
    entries = json.loads(said.out)["results"]
    config = load_config(name)
    assert [entry["head"] for entry in entries] == list(config.head_names)
    assert {entry["preset"] for entry in entries} == {name}
    assert len(entries[0]["accuracy_matrix"]) == 2
