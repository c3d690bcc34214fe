"""``perdure run`` and ``perdure tune`` with ``--ray``: the same results, whatever fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from perdure.cluster.jobs import Resources, jobs_on_ray
from perdure.cluster.runs import laid_out, run_all
from perdure.engine.folder import claim_folder
from perdure.errors import ConfigError, JobError, OutputError
from perdure.tuning import STARTING, SearchTrial, make_search, suggest, tune
from tests.cluster.conftest import Perdure
from tests.tiny import TINY, small_config

ON_RAY = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]
RUN = [*TINY, "device=cpu"]
TUNE = [
    *("tune", "digits/finetune", "--space", "lr=0.003,0.01,0.03", "temperature=5,28", "--quiet"),
    *[word for word in RUN if not word.startswith("images_per_class")],
    *("images_per_class=8", "tasks=5+5", "--json"),
]


def ray() -> Any:
    """Mark a test that starts Ray."""

    def marked(test: Any) -> Any:
        for mark in ON_RAY:
            test = mark(test)
        return test

    return marked


def results(folder: Path) -> list[dict[str, Any]]:
    """Results without times."""
    entries = json.loads((folder / "results.json").read_text())
    entries = entries["results"] if isinstance(entries, dict) else entries
    return [{k: v for k, v in one.items() if "seconds" not in k} for one in entries]


def test_a_job_that_was_ended_before_its_first_checkpoint_is_started_again(tmp_path: Path) -> None:
    """The process that was killed has claimed the folder, and nothing more."""
    folder, config = tmp_path / "run", small_config(method="ncm")

    def killed_once(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        def wait() -> Any:
            claim_folder(folder, config, resume=False)
            return function(*arguments)

        return wait

    (done,), faults = run_all({folder: config}, killed_once, resume=False, diagnose=False)
    assert done.entries[0]["method"] == "ncm"
    assert not faults


def test_the_folder_of_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    folder, config = tmp_path / "run", small_config(method="ncm")
    claim_folder(folder, config, resume=False)

    def at_once(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        return lambda: function(*arguments)

    with pytest.raises(OutputError, match="is not empty"):
        run_all({folder: config}, at_once, resume=False, diagnose=False)


@ray()
def test_runs_have_the_results_of_one_process(
    perdure: Perdure, cluster: str, tmp_path: Path
) -> None:
    presets = ("digits/ncm", "digits/finetune")
    words = (*RUN, "--seeds", "1", "--ray", cluster, "--out", "all", "-q", "--json")
    code, out, err = perdure("run", *presets, *words)
    assert code == 0, err
    said = json.loads(out)
    assert len(said["runs"]) == 2
    assert (tmp_path / "all" / "summary.json").is_file()
    torch.set_num_threads(1)
    for preset in presets:
        assert perdure("run", preset, *RUN, "--seeds", "1", "--out", f"one/{preset}", "-q")[0] == 0
        one, other = (tmp_path / where / preset / "seed-1" for where in ("one", "all"))
        assert results(one) == results(other)
        weights = "model/weights.safetensors"
        assert (one / weights).read_bytes() == (other / weights).read_bytes()
    again = json.loads(perdure("run", *presets, *words, "--resume")[1])
    assert all(one["already_finished"] for one in again["runs"])


@ray()
def test_a_run_that_fails_stops_no_other(perdure: Perdure, cluster: str, tmp_path: Path) -> None:
    (tmp_path / "none.toml").write_text('method = "ncm"\ndata = "folder:none"\n')
    words = (
        *[word for word in RUN if not word.startswith("data=")],
        "--ray",
        cluster,
        "--out",
        "all",
    )
    code, _, err = perdure("run", "digits/ncm", "none.toml", *words)
    assert code == 1, err
    assert "all/none failed: The folder 'none' does not exist" in err
    assert (tmp_path / "all" / "digits" / "ncm" / "results.json").is_file()


@pytest.mark.slow
@ray()
def test_a_search_makes_the_trials_of_one_process(
    perdure: Perdure, cluster: str, tmp_path: Path
) -> None:
    words = (*TUNE, "--budget", 6, "--at-once", 2, "--seeds", "0,1")
    torch.set_num_threads(1)
    code, out, err = perdure(*words, "--out", "one")
    assert code == 0, err
    ours = json.loads(out)
    code, out, err = perdure(*words, "--out", "two", "--ray", cluster)
    assert code == 0, err
    theirs = json.loads(out)
    for one, other in zip(ours["trials"], theirs["trials"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


@ray()
def test_a_job_that_is_killed_costs_itself_alone(cluster: str) -> None:
    with jobs_on_ray(cluster, Resources()) as submit:
        killed, failed, sound = submit(os._exit, 9), submit(int, "x"), submit(int, "7")
        with pytest.raises(JobError, match="did not come back"):
            killed()
        with pytest.raises(JobError, match="invalid literal"):
            failed()
        assert sound() == 7
        assert submit(os.getpid)() != submit(os.getpid)(), "a process of its own"
        assert submit(torch.get_num_threads)() == 1
        assert submit(os.getcwd)() == str(Path.cwd())


@ray()
@pytest.mark.parametrize("resources", [Resources(cpus=3), Resources(gpus=1.0)])
def test_what_fits_on_no_machine_is_refused(cluster: str, resources: Resources) -> None:
    with (
        pytest.raises(ConfigError, match="fits on no machine"),
        jobs_on_ray(cluster, resources),
    ):
        pass


@pytest.mark.slow
@ray()
def test_a_search_goes_on_after_its_driver_is_killed(perdure: Perdure, tmp_path: Path) -> None:
    words = [*TUNE, "--budget", "5", "--out", "two", "--ray"]
    code = "import sys; from perdure.cli.main import main; sys.exit(main(sys.argv[1:]))"
    driver = subprocess.Popen([sys.executable, "-c", code, *words], env={**os.environ})
    trials = tmp_path / "two" / "trials.json"
    ends = time.monotonic() + 120
    while not trials.exists() and time.monotonic() < ends and driver.poll() is None:
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert trials.exists()
    code_, out, err = perdure(*words)
    assert code_ == 0, err
    torch.set_num_threads(1)
    ours = json.loads(perdure(*words[:-1], "--out", "one")[1])
    for one, other in zip(ours["trials"], json.loads(out)["trials"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_first_settings_wait_for_no_trial() -> None:
    search = make_search(small_config("finetune"), {"lr": (0.001, 0.01, 0.1), "epochs": (1, 2, 3)})
    trials: list[SearchTrial] = []
    for number in range(STARTING):
        assert search.waits_for(number) == 0
        chosen = suggest(search, trials)
        assert suggest(search, [], [trial.values for trial in trials]) == chosen
        trials.append(SearchTrial(chosen, 0.1 * number, [], 0.0))
    assert search.waits_for(STARTING) == STARTING


@pytest.mark.long
def test_trials_at_once_change_no_search_but_their_own(tmp_path: Path) -> None:
    config = small_config("finetune", tasks="5+5", epochs=1)
    search = make_search(config, {"lr": (0.001, 0.01, 0.1), "epochs": (1, 2)}, at_once=3)
    assert [search.waits_for(number) for number in (3, 4, 5, 9)] == [0, 2, 3, 7]
    straight = tune(search, 6, tmp_path / "straight")
    for budget in (1, 5, 6):
        trials = tune(search, budget, tmp_path / "again")
    assert [one.values for one in trials] == [one.values for one in straight]
    assert len({tuple(one.values.values()) for one in trials}) == 6
    assert "at_once" not in make_search(config, {"lr": (0.1,)}).describe()


@pytest.mark.long
def test_a_trial_that_fails_is_made_again(tmp_path: Path) -> None:
    config = small_config("finetune", tasks="5+5", epochs=1)
    search = make_search(config, {"lr": (0.001, 0.01, 0.1)})
    broken = {1}

    def start(number: int, chosen: Any, seed: int, folder: Path) -> Any:
        def run() -> Any:
            if number in broken:
                raise JobError("its process did not come back")
            from perdure.tuning import TrialRunner

            return TrialRunner(search).run(number, chosen, seed, folder)

        return run

    ends: list[int] = []
    first = tune(search, 3, tmp_path, start=start, on_trial=lambda number, _: ends.append(number))
    assert [one.fault for one in first] == ["", "its process did not come back", ""]
    assert [one.score is None for one in first] == [False, True, False]
    broken.clear()
    second = tune(search, 3, tmp_path, start=start, on_trial=lambda number, _: ends.append(number))
    assert ends == [0, 1, 2, 1]
    assert second[1].score is not None
    assert [one.values for one in second] == [one.values for one in first]
    assert (first[0], first[2]) == (second[0], second[2])


def test_folders_of_runs(tmp_path: Path) -> None:
    one, two = small_config("ncm"), small_config("lda")
    assert list(laid_out([one], [], None)) == [Path("runs/ncm")]
    assert list(laid_out([one], [0, 2], tmp_path)) == [tmp_path / "seed-0", tmp_path / "seed-2"]
    both = laid_out([one, two], [3], Path("x"))
    assert [(str(folder), run.training.seed) for folder, run in both.items()] == [
        ("x/ncm/seed-3", 3),
        ("x/lda/seed-3", 3),
    ]
    with pytest.raises(ConfigError, match="Two runs would be written to 'runs/ncm'"):
        laid_out([one, one], [], None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "digits/ncm", "--cpus", "2"], "--cpus has no use without --ray"),
        (["tune", "digits/l2p", "--gpus", "1"], "--gpus has no use without --ray"),
        (["run", "digits/ncm", "digits/l2p"], "digits/l2p"),
        (["run", "digits/ncm", "digits/l2q", "--ray"], "Did you mean"),
        (["run", "digits/ncm", "digits/ncm", "--ray"], "Name each preset once"),
        (["run", "digits/ncm", "--ray", "--dry-run"], "--dry-run checks one preset"),
        (["run", "digits/ncm", "--ray", "--gpus", "1.5"], "no number of GPUs"),
        (["run", "digits/ncm", "--ray", "--gpus", "nan"], "no number of GPUs"),
        (["tune", "digits/l2p", "--ray", "--cpus", "0"], "not a whole number of 1 or more"),
        (["tune", "digits/l2p", "--at-once", "0"], "not a whole number of 1 or more"),
        (["run", "digits/ncm", "--ray", "ray://"], "this is no address"),
    ],
)
def test_a_command_that_cannot_be_right_is_refused(
    perdure: Perdure, words: list[str], said: str
) -> None:
    code, _, err = perdure(*words)
    assert (code, said in err) == (2, True), err


@pytest.mark.parametrize("words", [["run", "digits/ncm"], ["tune", "digits/l2p"]])
def test_without_ray_it_is_said_what_to_install(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = perdure(*words, "--ray")
    assert (code, "pip install 'perdure[ray]'" in err) == (2, True)
