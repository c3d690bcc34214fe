"""Runs as they lie on disk, what belongs together, and what is said of their settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.errors import OutputError
from perdure.reports.page.run_differences import list_runs, settings_of
from perdure.reports.results.groups import group
from perdure.reports.results.runs import by_stream, read_run, show
from perdure.reports.tables.text_table import TextTable
from tests.reports.run_folders import finished_run


def texts(table: TextTable) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_runs_over_other_images_or_tasks_stand_apart(tmp_path: Path) -> None:
    found = by_stream(
        [
            finished_run(tmp_path / "a"),
            finished_run(tmp_path / "b", changes={"stream": "fashion_mnist"}),
            finished_run(tmp_path / "c", "finetune"),
            finished_run(tmp_path / "d", changes={"test_counts": [40, 40, 41]}),
            finished_run(tmp_path / "e", changes={"task_sizes": [4, 1, 1]}),
            finished_run(tmp_path / "f", imbalance=100, increment="domains", domains=["a", "b"]),
            finished_run(tmp_path / "g", increment="classes+domains"),
            finished_run(tmp_path / "h", seed=1, increment="classes+domains"),
        ]
    )
    assert [(stream.title, len(stream.runs)) for stream in found] == [
        ("digits · 3 tasks of 2 classes · 120 test images", 2),
        ("fashion_mnist · 3 tasks of 2 classes · 120 test images", 1),
        ("digits · 3 tasks of 2 classes · 121 test images", 1),
        ("digits · 3 tasks of 4 + 2 × 1 classes · 120 test images", 1),
        (
            "digits · 3 tasks of 2 classes · new domains of a, b · imbalance 100 · 120 test images",
            1,
        ),
        ("digits · 3 tasks of 2 classes · new classes+domains · 120 test images", 2),
    ]


def test_seeds_are_joined_and_other_configurations_are_not(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / f"{seed}", seed=seed) for seed in (0, 1)]
    runs.append(finished_run(tmp_path / "short", seed=2, epochs=1))
    runs.append(finished_run(tmp_path / "random", seed=3, weights="random"))
    stream = by_stream(runs)[0]
    assert [(joined.label, joined.seeds) for joined in group(stream.entries)] == [
        ("nsp2 · linear · weights=auto, epochs=10", (0, 1)),
        ("nsp2 · linear · weights=auto, epochs=1", (2,)),
        ("nsp2 · linear · weights=random, epochs=10", (3,)),
    ]
    assert stream.owner(stream.entries[2]) is runs[2]


def test_keys_that_change_no_result_set_nothing_apart(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / f"{n}", seed=n, eval_batch_size=8 + n) for n in (0, 1)]
    stream = by_stream(runs)[0]
    assert len(stream.variants) == 1
    assert texts(settings_of(stream).differing) == []


def test_the_batch_sets_runs_apart_where_its_images_vote(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / f"{n}", "l2p", vote="batch", eval_batch_size=n) for n in (8, 9)]
    stream = by_stream(runs)[0]
    assert len(stream.variants) == 2
    assert texts(settings_of(stream).differing) == [["eval_batch_size", "8", "9"]]


def test_settings_are_shared_differ_or_belong_to_a_method(tmp_path: Path) -> None:
    runs = [
        finished_run(tmp_path / "a", eta1=0.5),
        finished_run(tmp_path / "b", "finetune", epochs=3),
    ]
    found = settings_of(by_stream(runs)[0])
    assert list(found.differing.heads) == ["key", "nsp2", "finetune"]
    assert texts(found.differing) == [["epochs", "10", "3"], ["protect", "null_space", "none"]]
    assert ["batch_size", "32"] in texts(found.shared)
    assert ["seeds", "0"] in texts(found.shared)
    assert ["prompt_length", "4"] in texts(found.shared)
    assert ["eta1", "0.5", "nsp2"] in texts(found.own)
    assert texts(list_runs(by_stream(runs)[0]))[0][1:5] == ["nsp2", "0", "12", "cpu, 2 threads"]


def test_a_run_without_its_configuration_is_a_variant_of_its_own(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / f"{seed}", seed=seed) for seed in (0, 1)]
    (tmp_path / "1" / "config.toml").unlink()
    blind = read_run(tmp_path / "1")
    assert blind is not None
    assert blind.config == {}
    assert len(by_stream([runs[0], blind])[0].variants) == 2


def test_an_empty_list_of_results_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]")
    assert read_run(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "content"), [("config.toml", "method ="), ("env.json", "{"), ("env.json", "[1]")]
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    finished_run(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(
        OutputError, match=rf"{name}' cannot be read \(.+\)\. Restore it, or remove"
    ):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "none"),
        (True, "true"),
        (0.5, "0.5"),
        (5e-5, "5e-05"),
        ([], "default"),
        ([1, 2], "1 2"),
    ],
)
def test_values_are_shown_as_one_would_type_them(value: object, shown: str) -> None:
    assert show(value) == shown
