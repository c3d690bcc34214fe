"""``perdure bench cost``: figures that can be worked out, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perdure.backbones.catalog import create_backbone
from perdure.bench import cost
from perdure.bench.floor import Shape
from perdure.engine.config import make_config
from perdure.errors import PerdureError
from tests.cli.command import Perdure

pytestmark = pytest.mark.long

CLIP = "vit_xsmall_patch16_clip_224"


def measure(method: str, backbone: str = "test_vit", pairs: int = 1) -> dict[str, Any]:
    small = {"batch_size": 4, "img_size": 32, "precision": "fp32", "device": "cpu"}
    keys = {"method": method, "backbone": backbone, "weights": "random", **small}
    return cost.measure(make_config(keys), pairs)


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """All methods at the small size, the late task an early one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "LATE", 4)
        return {name: measure(name) for name in cost.methods_on("test_vit")}


def test_methods_are_those_that_train_prompts() -> None:
    assert {"nsp2", "iprompt", "l2p", "clip_nsp2"} <= set(cost.trained_methods())
    assert not {"lda", "ncm", "linear", "clip_zero_shot"} & set(cost.trained_methods())


def test_methods_that_need_a_projection_are_measured_where_there_is_one() -> None:
    everything = set(cost.trained_methods())
    assert set(cost.methods_on(CLIP)) == set(cost.methods_on("clip_vit_base_patch16")) == everything
    assert everything - set(cost.methods_on("test_vit")) == {
        "clip_finetune",
        "clip_joint",
        "clip_nsp2",
    }


def test_state_of_the_language_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Per class a vector of 512 numbers, a mean of 256 and a factor of 256 × 256."""
    monkeypatch.setattr(cost, "LATE", 4)
    row = measure("clip_nsp2", CLIP)
    assert row["head_bytes_per_class"] == 4 * (512 + 256 + 256**2)
    assert row["state_bytes_per_task"] == 0


def test_counted_operations_are_those_of_the_formula(rows: dict[str, dict[str, Any]]) -> None:
    """The class row alone leaves the last block, so fewer than the whole forward."""
    backbone = create_backbone("test_vit", weights="random", img_size=32, precision="fp32")
    shape = Shape.of(backbone.spec, backbone.hidden, backbone.patch, 4)
    plain, prompted = shape.forward_flops(1), shape.prompt_flops(1)
    found = rows["finetune"]["inference_flops_per_image"]
    in_last = 2 * shape.tokens * shape.linear_weights
    assert plain - in_last < found < plain + prompted
    assert 1.5 < rows["finetune"]["train_flops_per_image"] / found < 2.1


def test_a_query_pass_costs_a_forward(rows: dict[str, dict[str, Any]]) -> None:
    one = rows["iprompt"]["inference_flops_per_image"]
    for name in ("l2p", "dualprompt", "coda_prompt"):
        assert rows[name]["inference_flops_per_image"] > 1.7 * one


@pytest.mark.parametrize("name", ["nsp2", "iprompt", "pgp", "finetune", "l2p"])
def test_state_and_operations_do_not_grow(rows: dict[str, dict[str, Any]], name: str) -> None:
    row = rows[name]
    assert row["state_bytes_per_task"] == 0
    assert row["train_flops_per_image_task100"] == row["train_flops_per_image"]


def test_growth_is_that_of_an_expert(rows: dict[str, dict[str, Any]]) -> None:
    """Three blocks of 20 keys and 20 values, and a key, of 64 floats."""
    assert rows["dualprompt"]["state_bytes_per_task"] == 4 * (3 * 2 * 20 * 64 + 64)
    assert all(row["head_bytes_per_class"] == 4 * 65 for row in rows.values())


def test_refusals() -> None:
    for method, pairs, text in (
        ("lda", 1, "trains no prompts"),
        ("nsp", 1, "Did you mean 'nsp2'"),
        ("nsp2", 0, r"pairs=0: each must be 1 or more\."),
        ("clip_nsp2", 1, "'clip_nsp2' needs an image projection, and 'test_vit' has none"),
    ):
        with pytest.raises(PerdureError, match=text):
            measure(method, pairs=pairs)


def test_command(
    perdure: Perdure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: dict[str, dict[str, Any]],
) -> None:
    monkeypatch.setattr(cost, "cost_report", lambda config, pairs: rows[config.training.method])
    said = perdure("bench", "cost", "--out", tmp_path / "c", "--methods", "nsp2,l2p")
    assert said.code == 0
    assert "nsp2 on vit_base_patch16_224.augreg_in21k, batches of 8" in said.err
    assert "has no image projection" not in said.err
    assert [line.split()[0] for line in said.out.splitlines()[1:3]] == ["nsp2", "l2p"]
    assert (tmp_path / "c" / "cost.png").read_bytes().startswith(b"\x89PNG")
    said = perdure("bench", "cost", "--out", tmp_path / "c", "--json")
    assert "has no image projection: without clip_finetune, clip_joint, clip_nsp2" in said.err
    listed = json.loads(said.out)
    assert json.loads((tmp_path / "c" / "cost.json").read_text()) == listed
    assert {row["method"] for row in listed} == set(rows)
    needed = {"method", "train_ms_per_image", "train_flops_per_image", "inference_flops_per_image"}
    needed |= {"state_bytes", "state_bytes_per_task", "step_ratio_task100"}
    assert all(needed <= set(row) for row in listed)
    assert perdure("bench", "cost", "--batch-sizes", "1,x").code == 2
