"""``perdure predict --ray``: the same answers, and none of them twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch

from perdure.cluster import prediction
from tests.cluster.conftest import Perdure
from tests.cluster.shard_files import folder, parquet, samples, tar

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Photos of every form, some of which cannot be read."""
    folder(tmp_path / "photos")
    (tmp_path / "photos" / "a" / "3.png").write_text("no image")
    cells: list[dict[str, Any]] = [{"image": c} for n, c in samples() if n.endswith("png")]
    cells[5]["image"] = b"broken"
    tar(tmp_path / "x.tar", samples(first=6, count=3))
    parquet(tmp_path / "x.parquet", cells, 7)
    return ["photos", "x.tar", "x.parquet"]


def answers(out: Path) -> list[dict[str, Any]]:
    """All rows, in order."""
    return [
        row
        for part in sorted(out.glob("part-*.parquet"))
        for row in pyarrow.parquet.read_table(part).to_pylist()
    ]


def test_answers_are_those_of_one_process_bit_for_bit(
    perdure: Perdure, cluster: str, model: Path, sources: list[str], tmp_path: Path
) -> None:
    words = ("--batch-size", 5, "--top", 3)
    code, out, err = perdure(
        "predict", model, *sources, *words, "--ray", cluster, "--out", "out", "--json"
    )
    assert code == 1, err
    done = json.loads(out)
    assert (done["shards"], done["images"], done["faulty"], done["faults"]) == (3, 60, 2, [])
    rows = answers(tmp_path / "out")
    assert [row["path"] for row in rows if row["error"]] == ["photos/a/3.png", "x.parquet[5]"]
    torch.set_num_threads(1)
    for source, ours in (("photos", rows[:24]), ("x.parquet", rows[36:])):
        said = json.loads(perdure("predict", model, source, *words, "--json")[1])
        for one, row in zip(said, ours, strict=True):
            wanted = {"class": None, "probability": None, "top": None, "error": None, **one}
            wanted.setdefault("familiarity", None)
            assert row == wanted

    # A restart predicts what is missing or damaged, and nothing else.
    first, second, third = sorted((tmp_path / "out").glob("part-*.parquet"))
    before = third.stat()
    content = first.read_bytes(), second.read_bytes()
    first.write_bytes(first.read_bytes()[:100])
    second.unlink()
    again = perdure("predict", model, *sources, *words, "--ray", cluster, "--out", "out", "--json")
    assert json.loads(again[1]) == {**done, "before": 1}
    assert (first.read_bytes(), second.read_bytes()) == content
    assert third.stat() == before


def test_a_shard_that_is_cut_short_does_not_stop_the_others(
    perdure: Perdure, cluster: str, model: Path, sources: list[str], tmp_path: Path
) -> None:
    shard = tmp_path / "x.tar"
    whole, status = shard.read_bytes(), shard.stat()
    shard.write_bytes(whole[:2000])
    words = (model, *sources[1:], "--ray", cluster, "--out", "out", "--actors", 2)
    code, _, err = perdure("predict", *words)
    assert code == 1
    assert "'x.tar' is damaged or not whole" in err
    assert "1 of 2 shards have no answers" in err
    assert len(answers(tmp_path / "out")) == 24
    shard.write_bytes(whole)
    code, _, err = perdure("predict", *words)
    assert "another shards" in err, "a shard that was repaired is another one"
    assert status.st_size == shard.stat().st_size


def test_more_processes_than_the_cluster_has_room_for_are_refused(
    perdure: Perdure, cluster: str, model: Path, sources: list[str]
) -> None:
    words = ("--ray", cluster, "--out", "out", "--actors", 2, "--threads", 2)
    code, _, err = perdure("predict", model, *sources, *words)
    assert (code, "2 actors of 2 threads need more than the 2 CPUs" in err) == (2, True)


def test_a_shard_knows_its_whole_batches() -> None:
    asked = prediction.Prediction("m", "h", 5, 100, None)
    assert asked.shard_images == 1100
