"""TensorBoard's files tell what the run's own log tells, once, and change nothing."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from perdure.engine.config import Config
from perdure.engine.events import Event
from perdure.errors import ConfigError
from perdure.experiment import check, run
from perdure.reports.results.tensorboard import scalars, written
from tests.tiny import small_config

STEPS = 10
"""Of a task: two epochs of 5 classes with 4 images in batches of 4."""
STOPPED_AFTER = STEPS + 5
"""In the second task, two steps after a checkpoint."""


class Stop(Exception):
    """Stands for a power cut."""


def two_tasks(**changes: Any) -> Config:
    options = {"tasks": "5+5", "images_per_class": 4, "test_images_per_class": 2}
    return small_config("l2p", heads=["linear", "gaussian"], **options, **changes)


class StopLater:
    """Stops a run after some steps."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, event: Event) -> None:
        self.steps += event.fields.get("phase") == "training"
        if self.steps == STOPPED_AFTER:
            raise Stop


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folders of a run without and of one with, stopped and resumed."""
    place = tmp_path_factory.mktemp("scalars")
    run(two_tasks(), place / "without")
    with pytest.raises(Stop):
        run(two_tasks(logger="tensorboard"), place / "with", on_event=StopLater())
    run(two_tasks(logger="tensorboard"), place / "with", resume=True)
    return place / "without", place / "with"


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    log = (folder / "events.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, log) if line["kind"] == kind]


@pytest.mark.long
def test_results_are_the_same(folders: tuple[Path, Path]) -> None:
    without, with_files = folders
    assert not (without / "tensorboard").exists()
    weights = [(folder / "model" / "weights.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]
    for one, other in zip(
        *(json.loads((folder / "results.json").read_text()) for folder in (without, with_files)),
        strict=True,
    ):
        assert one["config_hash"] == other["config_hash"]
        assert one["accuracy_matrix"] == other["accuracy_matrix"]


def test_figures_are_those_of_the_log(folders: tuple[Path, Path]) -> None:
    found = written(folders[1] / "tensorboard")
    wanted: dict[tuple[str, int], float] = {}
    for line in lines(folders[1], "epoch"):
        for name in ("cross_entropy", "key_pull"):
            wanted[f"epoch_loss/{name}/task_{line['task'] + 1:02d}", line["epoch"]] = line[name]
    for line in lines(folders[1], "accuracy"):
        tasks = {f"task_{task:02d}": share for task, share in enumerate(line["tasks"], start=1)}
        for name, share in {"all": line["accuracy"], **tasks}.items():
            wanted[f"accuracy/{line['head']}/{name}", line["task"] + 1] = share
    for line in lines(folders[1], "selection"):
        for name in set(line) - {"time", "kind", "task"}:
            wanted[f"selection/{name}", line["task"] + 1] = line[name]
    assert len(wanted) == 2 * 2 * 2 + 2 * (2 + 3) + 2 * 3
    compared = {key: found[key] for key in wanted}
    assert compared == {key: pytest.approx(value, rel=1e-6) for key, value in wanted.items()}
    steps = {
        (f"loss/cross_entropy/task_{task}", step)
        for task in ("01", "02")
        for step in range(1, STEPS + 1)
    }
    assert steps <= set(found)
    rates = [key for key in found if key[0].startswith("images_per_second/")]
    assert len(rates) == 4
    assert all(found[key] > 0 for key in rates)
    assert len(found) == len(wanted) + 2 * len(steps) + len(rates)


def test_what_was_repeated_stands_there_once(folders: tuple[Path, Path]) -> None:
    files = list((folders[1] / "tensorboard").iterdir())
    assert len(files) == 2
    assert len(lines(folders[1], "resume")) == 1
    events = EventAccumulator(str(folders[1] / "tensorboard"), {"scalars": 0}).Reload()
    for tag in events.Tags()["scalars"]:
        steps = [one.step for one in events.Scalars(tag)]
        assert max(Counter(steps).values()) == 1, tag
        assert steps == sorted(steps)


@pytest.mark.parametrize("module", ["torch.utils.tensorboard", "tensorboard.backend"])
def test_missing_package(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(module)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    config = two_tasks(logger="tensorboard")
    with pytest.raises(ConfigError, match=r"pip install 'perdure\[tensorboard\]'"):
        run(config, tmp_path / "r")
    with pytest.raises(ConfigError, match=r"pip install 'perdure\[tensorboard\]'"):
        check(config)
    assert not (tmp_path / "r").exists()


def test_what_is_no_figure_and_what_has_no_task() -> None:
    for event in (
        Event("progress", 0, {"phase": "survey", "done": 1, "total": 2}),
        Event("progress", fields={"phase": "fetching"}),
        Event("note", fields={"text": "…"}),
        Event("done", fields={"seconds": 1.0}),
    ):
        assert list(scalars(event, 0)) == []
    # Cumulative methods train every round as a first task.
    epoch = Event("epoch", 0, {"epoch": 1, "images_per_second": 5.0, "cross_entropy": 0.5})
    assert [tag for tag, _, _ in scalars(epoch, 2)] == [
        "images_per_second/task_03",
        "epoch_loss/cross_entropy/task_03",
    ]
    row = Event("accuracy", 1, {"head": "linear", "accuracy": 0.5, "tasks": [None, 0.5]})
    assert list(scalars(row, 1)) == [
        ("accuracy/linear/all", 2, 0.5),
        ("accuracy/linear/task_02", 2, 0.5),
    ]


def test_other_loggers_are_refused() -> None:
    with pytest.raises(ConfigError, match="logger='tensorbord': Input should be 'tensorboard'"):
        two_tasks(logger="tensorbord")
