"""The search for hyperparameters: what it sees, what it tries, and how it goes on."""

from __future__ import annotations

import dataclasses
import tomllib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from perdure.atomic import LOCK
from perdure.engine.build import make_backbone, make_stream
from perdure.engine.config import load_config
from perdure.engine.run import Run
from perdure.errors import BusyError, CheckpointError, ConfigError, StreamError
from perdure.methods import METHODS
from perdure.streams import Stream, TaskData
from perdure.tuning import (
    FRACTION,
    RATES,
    Search,
    SearchTrial,
    best,
    default_space,
    first_task_stream,
    make_search,
    read_trials,
    suggest,
    tune,
    validation_stream,
    write_winner,
)
from tests.tiny import small_config

SPACE: dict[str, tuple[Any, ...]] = {"lr": (0.003, 0.03, 0.1), "temperature": (1.0, 28.0)}

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("unchecked")]


def small_search(space: dict[str, tuple[Any, ...]] = SPACE, **options: Any) -> Search:
    changes = {"tasks": "5+5", "epochs": 1, "images_per_class": 10, **options}
    return make_search(small_config("finetune", **changes), space)


def scored(search: Search, *scores: float | None) -> list[SearchTrial]:
    trials: list[SearchTrial] = []
    for score in scores:
        trials.append(SearchTrial(suggest(search, trials), score, [], 0.0))
    return trials


def test_validation_images_stand_in_for_test_images_and_are_training_images() -> None:
    config = small_search().config
    assert config.stream.validation_fraction == FRACTION
    plain = make_stream(config.replace(validation_fraction=0.0))
    for data, whole in zip(validation_stream(config).tasks, plain.tasks, strict=True):
        assert data.test is data.val
        assert data.test.images is data.train.images
        own = {*data.train.indices.tolist(), *data.test.indices.tolist()}
        assert own == set(whole.train.indices.tolist())
        assert len(data.test) + len(data.train) == len(whole.train)


def test_no_test_image_is_ever_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = small_search({"lr": (0.01,)})
    read: list[str] = []
    monkeypatch.setattr(
        "perdure.tuning.trial_streams.make_stream", lambda *args: spied(make_stream(*args), read)
    )
    assert tune(search, 1, tmp_path / "tune")[0].score is not None
    assert read == []
    stream = spied(make_stream(search.config), read)
    Run(search.config, stream, make_backbone(search.config))()
    assert set(read) == {"image", "transformed"}


def spied(stream: Stream, read: list[str]) -> Stream:
    """The stream with test images that note how they are read."""
    own = type(stream.tasks[0].test.images)

    class Watched(own):  # type: ignore[misc, valid-type]
        def image(self, index: int) -> Any:
            read.append("image")
            return super().image(index)

        def transformed(self, *args: Any) -> Any:
            read.append("transformed")
            return super().transformed(*args)

    def watched(data: TaskData) -> TaskData:
        images = object.__new__(Watched)
        images.__dict__.update(data.test.images.__dict__)
        return dataclasses.replace(data, test=dataclasses.replace(data.test, images=images))

    return dataclasses.replace(stream, tasks=tuple(map(watched, stream.tasks)))


def test_first_task_becomes_pseudo_tasks_of_its_own_classes() -> None:
    search = small_search(tasks="5+3+2")
    first = validation_stream(search.config).tasks[0]
    stream = first_task_stream(validation_stream(search.config))
    assert stream.sizes == (3, 2)
    assert [data.task.classes for data in stream.tasks] == [(0, 1, 2), (3, 4)]
    assert [data.task.seen for data in stream.tasks] == [3, 5]
    assert sum((data.task.names for data in stream.tasks), ()) == first.task.names
    assert stream.class_names == first.task.names
    for side in ("train", "test"):
        whole, parts = getattr(first, side), [getattr(data, side) for data in stream.tasks]
        assert sorted(i for p in parts for i in p.indices.tolist()) == whole.indices.tolist()
        for part, data in zip(parts, stream.tasks, strict=True):
            assert set(part.labels.tolist()) == set(data.task.classes)


def test_search_on_the_first_task_reads_no_image_of_another(tmp_path: Path) -> None:
    search = dataclasses.replace(small_search(tasks="5+5"), chosen_on="first_task")
    trials = tune(search, 1, tmp_path)
    metrics = trials[0].metrics[0]
    assert metrics["forgetting"] is not None  # it has tasks to forget
    path = tmp_path / "winner.toml"
    write_winner(search, trials, path, 0.0)
    config = load_config(str(path))
    assert config.training.chosen_on == "first_task"
    assert config.stream.tasks == search.config.stream.tasks


def test_no_seed_of_a_search_on_the_first_task_sees_classes_to_come() -> None:
    seeds = (3, 4, 5)
    search = make_search(
        small_search(seed=3, images_per_class=6).config, SPACE, seeds, chosen_on="first_task"
    )
    first = make_stream(search.config).tasks[0]
    held = {*first.train.indices.tolist(), *first.val.indices.tolist()}
    for seed in seeds:
        stream = search.stream({}, seed)
        assert stream.class_names == first.task.names
        for data in stream.tasks:
            assert {*data.train.indices.tolist(), *data.test.indices.tolist()} <= held
    assert len({make_stream(search.trial({}, seed)).class_order for seed in seeds}) > 1


def test_search_on_another_stream_leaves_the_stream_of_the_winner(tmp_path: Path) -> None:
    own = small_search(images_per_class=5)
    other = {"data": "digits", "tasks": "B0-Inc5", "images_per_class": 6}
    search = make_search(own.config, SPACE, other=other)
    assert [len(data.train) + len(data.test) for data in search.stream({}, 0).tasks] == [30, 30]
    trials = tune(search, 1, tmp_path)
    path = tmp_path / "winner.toml"
    write_winner(search, trials, path, 0.0)
    config = load_config(str(path))
    assert config.training.chosen_on == "other_stream"
    assert config.stream.images_per_class == own.config.stream.images_per_class
    with pytest.raises(CheckpointError, match="another stream"):
        read_trials(own, tmp_path)


def test_too_small_a_first_task_is_refused_and_says_what_to_type() -> None:
    stream = validation_stream(small_search(tasks="3+7").config)
    with pytest.raises(StreamError, match=r"has 3 classes: .* need 4.*--on data=digits"):
        first_task_stream(stream)


def test_trials_differ_and_cover_a_space_that_fits_the_budget(tmp_path: Path) -> None:
    search = small_search()
    trials = scored(search, 0.1, 0.5, None, 0.3, 0.2, 0.9)
    assert len({tuple(trial.values.items()) for trial in trials}) == search.size == 6


def test_suggestion_depends_on_the_trials_alone() -> None:
    search = small_search()
    assert suggest(search, scored(search, 0.1, 0.2)) == suggest(search, scored(search, 0.1, 0.2))


def test_search_learns_from_its_trials() -> None:
    """With one key that decides the score, later trials prefer its good values."""
    search = small_search({"lr": tuple(0.001 * 1.1**step for step in range(60))})
    trials: list[SearchTrial] = []
    for _ in range(25):
        values = suggest(search, trials)
        place = search.space["lr"].index(values["lr"])
        trials.append(SearchTrial(values, 1 - abs(place - 45) / 60, [], 0.0))
    places = [search.space["lr"].index(trial.values["lr"]) for trial in trials]
    late = [abs(place - 45) for place in places[15:]]
    assert sum(late) / len(late) < 15  # 20 at random


def test_best_ignores_what_diverged_and_takes_the_earlier_of_equals() -> None:
    trials = [
        SearchTrial({"lr": n}, score, [], 0.0) for n, score in enumerate((None, 0.5, 0.5, 0.1))
    ]
    assert best(trials) is trials[1]
    assert best(trials[:1]) is None


def test_finished_trials_are_kept_and_a_larger_budget_adds_to_them(tmp_path: Path) -> None:
    search = small_search()
    one = tune(search, 1, tmp_path)
    two = tune(search, 2, tmp_path)
    assert two[:1] == one
    assert read_trials(search, tmp_path) == two
    assert tune(search, 1, tmp_path) == two
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trials.json"]


def test_an_interrupted_search_makes_the_same_trials(tmp_path: Path) -> None:
    search = small_search()
    straight = tune(search, 2, tmp_path / "straight")
    tune(search, 1, tmp_path / "again")
    (tmp_path / "again" / "trial-000" / "0").mkdir(parents=True)  # killed while it cleared up
    for trial, other in zip(straight, tune(search, 2, tmp_path / "again"), strict=True):
        assert (trial.values, trial.metrics) == (other.values, other.metrics)
    assert not list((tmp_path / "again").glob("trial-*"))


def test_every_run_is_announced_before_it_begins(tmp_path: Path) -> None:
    """Displays take from it how many tasks and classes there are."""
    kinds: list[str] = []
    search = small_search({"lr": (0.01,)})
    tune(search, 1, tmp_path, lambda *_: nullcontext(lambda event: kinds.append(event.kind)))
    assert kinds[0] == "run"
    assert "accuracy" in kinds


def test_another_search_in_the_folder_is_refused(tmp_path: Path) -> None:
    tune(small_search(), 1, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"holds a search with another space\. Choose another"
    ):
        tune(small_search({"lr": (0.1, 0.2)}), 2, tmp_path)
    (tmp_path / "trials.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot be read as trials of a search"):
        tune(small_search(), 2, tmp_path)


def test_winner_is_a_preset_that_runs_alike(tmp_path: Path) -> None:
    search = make_search(load_config("digits/nsp2", ["epochs=2"]), {"lr": (0.003, 0.03)})
    trials = scored(search, 0.25, 0.5)
    write_winner(search, trials, tmp_path / "winner.toml", 0.0)
    config = load_config(str(tmp_path / "winner.toml"))
    lr = trials[1].values["lr"]
    same = load_config("digits/nsp2", ["epochs=2", f"lr={lr}", "chosen_on=same_stream"])
    assert config.flat() == same.flat()
    text = (tmp_path / "winner.toml").read_text("utf-8")
    assert "validation images of all tasks of the stream itself (50.0 %)" in text
    assert "temperature" in tomllib.loads(text)


@pytest.mark.parametrize("name", list(METHODS))
def test_default_space_is_small_and_allowed(name: str) -> None:
    config = small_config(name)
    space = default_space(config)
    if not METHODS[name].traits.trains:
        assert space == {}
        with pytest.raises(ConfigError, match=rf"nothing to search for method '{name}'"):
            make_search(config)
        return
    assert space["lr"] == RATES
    assert 1 < make_search(config).size <= 16


@pytest.mark.parametrize(
    ("space", "text"),
    [
        ({"lr": ()}, "nothing to search"),
        ({"lrr": (1,)}, "'lrr'.*Did you mean 'lr'"),
        ({"lr": (0.1, -1.0)}, r"lr=-1\.0"),
        ({"seed": (0, 1)}, "seed cannot be searched: name the seeds"),
        (
            {"images_per_class": (5, 10)},
            "images_per_class cannot be searched: scores on other images",
        ),
        ({"shrinkage": ("validation", 0.1)}, "chooses by the very images"),
        (
            {"heads": ("gaussian,linear", "linear")},
            "heads=linear: trials are judged by head=gaussian, which this one would not evaluate",
        ),
    ],
)
def test_wrong_spaces_are_refused(space: dict[str, tuple[Any, ...]], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        small_search(space, heads="gaussian,linear")


def test_wrong_budget_and_head_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"budget=0: it must be 1 or more\."):
        tune(small_search(), 0, tmp_path)
    with pytest.raises(ConfigError, match="head=gausian: this configuration evaluates linear"):
        make_search(small_config("finetune"), SPACE, head="gausian")


def test_a_class_with_a_single_image_is_refused(tmp_path: Path) -> None:
    search = small_search(images_per_class=1)
    with pytest.raises(StreamError, match="has one training image, and needs two"):
        tune(search, 1, tmp_path)


def test_a_diverging_setting_is_recorded_and_the_search_goes_on(tmp_path: Path) -> None:
    search = small_search({"lr": (1e30, 0.01)}, epochs=2)
    trials = tune(search, 2, tmp_path)
    scores = {trial.values["lr"]: trial.score for trial in trials}
    assert scores[0.01] is not None
    assert scores[1e30] is None
    assert best(trials) in trials


def test_two_searches_do_not_share_a_folder(tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK), pytest.raises(BusyError, match="searching in"):
        tune(small_search(), 1, tmp_path)


def test_another_stream_must_hold_images_out() -> None:
    with pytest.raises(ConfigError, match="validation_fraction=0: settings are judged"):
        make_search(small_config("finetune"), SPACE, other={"validation_fraction": 0.0})


def test_backbones_that_are_searched_are_those_of_the_trials(tmp_path: Path) -> None:
    """What a trial's run would find in a search of its own, whichever came before it."""
    space: dict[str, tuple[Any, ...]] = {"img_size": (32, 64)}
    found = {}
    for sizes in ((32, 64), (32,), (64,)):
        out = tmp_path / "-".join(map(str, sizes))
        for trial in tune(small_search({**space, "img_size": sizes}), 2, out):
            found.setdefault(trial.values["img_size"], []).append(trial.metrics)
    assert all(together == alone for together, alone in found.values())


def test_a_search_over_none_goes_on(tmp_path: Path) -> None:
    space: dict[str, tuple[Any, ...]] = {"protect": (None, "sensitivity")}
    first = tune(small_search(space), 1, tmp_path)
    both = tune(small_search(space), 2, tmp_path)
    assert both[:1] == first
    assert {trial.values["protect"] for trial in both} == {None, "sensitivity"}
    write_winner(small_search(space), both, tmp_path / "winner.toml", 0.0)
