"""``perdure doctor`` and ``perdure bench``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from perdure.cli.commands import doctor as module
from perdure.engine.config import Config
from perdure.streams import PUBLISHED
from tests.cli.command import Perdure
from tests.streams.published import offer


def findings(perdure: Perdure, code: int = 0) -> dict[str, dict[str, str]]:
    said = perdure("doctor", "--json")
    assert (said.code, said.err) == (code, "")
    made = json.loads(said.out)
    assert made["ok"] is (code == 0)
    return {finding["name"]: finding for finding in made["findings"]}


def test_a_working_machine(perdure: Perdure, tmp_path: Path) -> None:
    found = findings(perdure)
    assert {"python", "torch", "timm", "cpu", "cache", "images digits"} <= set(found)
    assert "bf16" in found["cpu"]["found"]
    assert "threads" in found["cpu"]["found"]
    assert found["cache"]["found"] == f"{tmp_path / 'cache'}, 0 MB"
    assert not (tmp_path / "cache").exists()
    said = perdure("doctor")
    assert said.code == 0
    assert said.out.endswith("\nEverything essential works.\n")


def test_what_is_missing_comes_with_advice(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, "fashion_mnist")
    missing = [one for one in findings(perdure).values() if one["verdict"] == "missing"]
    names = {one["name"] for one in missing}
    images = {f"images {name}" for name, known in PUBLISHED.items() if known.files}
    assert {"weights clip_vit_base_patch16", *images} <= names
    assert all(one["advice"] for one in missing if one["name"] != "cuda")


def test_what_is_at_hand(perdure: Perdure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in (
        "weights/clip_vit_base_patch16.safetensors",
        *(f"data/fashion_mnist/{name}.gz" for name in PUBLISHED["fashion_mnist"].holds),
    ):
        (tmp_path / "cache" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / place).write_bytes(bytes(600_000))
    offer(monkeypatch, "fashion_mnist")
    found = findings(perdure)
    assert found["weights clip_vit_base_patch16"]["verdict"] == "ok"
    assert found["images fashion_mnist"]["verdict"] == "ok"
    assert found["cache"]["found"].endswith("3 MB")


def test_broken_packages(perdure: Perdure, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = {
        "no-such-package": ("no_such_package", ()),
        "torch": ("torch", (999, 1)),
        "numpy": ("no_such_module", ()),
    }
    monkeypatch.setattr(module, "PACKAGES", packages)
    found = findings(perdure, code=1)
    assert {found[name]["verdict"] for name in packages} == {"broken"}
    assert "needed is 999.1" in found["torch"]["found"]
    assert found["torch"]["advice"].endswith('-m pip install --upgrade "torch>=999.1"')
    assert "Something essential is broken" in perdure("doctor").out


@pytest.mark.parametrize(
    ("version", "verdict"), [((3, 10), "broken"), ((3, 12), "ok"), ((3, 14), "missing")]
)
def test_python_versions(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], verdict: str
) -> None:
    monkeypatch.setattr(module, "PACKAGES", {})
    with monkeypatch.context() as patched:
        patched.setattr(sys, "version_info", (*version, 1, "final", 0))
        finding = module._python()
    assert finding.verdict == verdict


def test_a_cache_that_cannot_be_written(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "file" / "cache"))
    finding = findings(perdure, code=1)["cache"]
    assert finding["verdict"] == "broken"
    assert "PERDURE_HOME" in finding["advice"]


def test_bench_step(perdure: Perdure, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[Config, int]] = []

    def step_report(config: Config, pairs: int, profile: bool) -> dict[str, Any]:
        assert not profile
        given.append((config, pairs))
        return {"share_of_floor": 0.81234, "bf16": None, "threads": 2, "runs": [1.5, 2.25]}

    stub = ModuleType("perdure.bench.step")
    stub.step_report = step_report  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "perdure.bench.step", stub)
    said = perdure("bench", "step", "--method", "finetune", "--batch-size", 4, "--pairs", "2")
    ((config, pairs),) = given
    assert pairs == 2
    asked = {
        "method": "finetune",
        "batch_size": 4,
        "precision": "auto",
        "backbone": "vit_base_patch16_224.augreg_in21k",
        "weights": "random",
        "img_size": 224,
    }
    assert asked.items() <= config.flat().items()
    assert said.out.splitlines() == [
        "share of floor  0.8123",
        "bf16            n/a",
        "threads         2",
        "runs            1.5, 2.25",
    ]
    assert json.loads(perdure("bench", "step", "--json").out)["share_of_floor"] == 0.81234
