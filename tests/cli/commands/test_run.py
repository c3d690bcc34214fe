"""``perdure run``: what it leaves and says, going on, seeds, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perdure.cli.progress import Display
from perdure.engine.events import Event
from tests.cli.command import Perdure
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.long
def test_a_run_says_what_it_did_and_what_to_do_next(perdure: Perdure, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = perdure("run", "digits/nsp2", *TINY, "--out", out)
    assert said.code == 0
    assert "nsp2    gaussian" in said.out
    assert "nsp2 · linear" in said.out
    assert f"picture  {out / 'results.png'}" in said.out
    assert f"predict  perdure predict {out} IMAGE…" in said.out
    assert "task 5 of 5: pattern_8, pattern_1 (8 images)" in said.err
    assert "accuracy on all 10 classes so far: linear " in said.err
    assert (out / "results.png").stat().st_size > 10_000
    assert {path.name for path in out.iterdir()} >= {
        "accuracy.csv",
        "checkpoints",
        "config.toml",
        "env.json",
        "events.jsonl",
        "model",
        "results.json",
        "results.md",
    }


@pytest.mark.long
def test_results_go_to_a_folder_named_after_the_preset(perdure: Perdure) -> None:
    assert perdure("run", "digits/ncm", *TINY, "-q").code == 0
    assert Path("runs/digits/ncm/results.json").is_file()


@pytest.mark.long
def test_a_file_of_your_own(perdure: Perdure, tmp_path: Path) -> None:
    lines = [f"{key} = {value!r}" for key, value in (part.split("=") for part in TINY[:4])]
    lines = [line.replace("'32'", "32") for line in lines]
    file = tmp_path / "mine.toml"
    file.write_text("\n".join(['method = "ncm"', *lines]) + "\n")
    assert perdure("run", file, "images_per_class=4", "-q").code == 0
    assert Path("runs/mine/results.json").is_file()


def test_words_after_options_are_overrides(perdure: Perdure, tmp_path: Path) -> None:
    said = perdure(
        "run", "--out", tmp_path / "a", "digits/ncm", TINY[0], "--dry-run", *TINY[1:], "--json"
    )
    assert json.loads(said.out)["img_size"] == 32


def test_resume_on_a_finished_run_says_so(perdure: Perdure, finished: Path) -> None:
    said = perdure("run", "digits/nsp2", *TINY, "--out", finished, "--resume")
    assert said.code == 0
    assert said.err == f"This run is finished; its results are in {finished}.\n"
    assert "nsp2    gaussian" in said.out
    as_json = perdure("run", "digits/nsp2", *TINY, "--out", finished, "--resume", "--json")
    assert json.loads(as_json.out)["already_finished"] is True
    # The folder's own configuration is enough, as errors advise.
    own = perdure("run", finished / "config.toml", "--out", finished, "--resume")
    assert (own.code, own.err) == (0, said.err)


def test_a_finished_run_is_not_overwritten(perdure: Perdure, finished: Path) -> None:
    said = perdure("run", "digits/nsp2", *TINY, "--out", finished)
    assert said.code == 1
    assert said.err == (
        f"error: The folder '{finished}' is not empty. Add --resume to go on with the run in it, "
        "or choose another --out.\n"
    )


def test_resume_of_another_configuration(perdure: Perdure, finished: Path) -> None:
    said = perdure("run", "digits/nsp2", *TINY, "lr=0.5", "--out", finished, "--resume")
    assert said.code == 1
    assert "another configuration (lr: 0.01 there, 0.5 now)" in said.err
    assert f"perdure run {finished / 'config.toml'} --out {finished} --resume" in said.err


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let Ctrl-C be pressed when so many training steps have been shown."""
    left = [steps]
    show = Display.__call__

    def interrupted(self: Display, event: Event) -> None:
        show(self, event)
        if event.fields.get("phase") == "training":
            left[0] -= 1
            if left[0] == 0:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Display, "__call__", interrupted)


FEW = (*TINY, "tasks=5+5", "images_per_class=2")
WORDS = ("run", "digits/nsp2", *FEW, "batch_size=2", "checkpoint_every=1", "--out")


@pytest.mark.long
def test_an_interrupted_run_goes_on(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(patched, 7)
        said = perdure(*WORDS, tmp_path / "a b")
    assert (said.code, said.out) == (130, "")
    command = " ".join(["perdure", *WORDS, f"'{tmp_path}/a b'", "--resume"])
    assert said.err.endswith(f"\ninterrupted. Go on with: {command}\n")
    again = perdure(*WORDS, tmp_path / "a b", "--resume")
    assert again.code == 0
    assert "going on after 1 task, step 1\n" in again.err
    straight = perdure(*WORDS, tmp_path / "straight", "--json")
    kept = json.loads((tmp_path / "a b" / "results.json").read_text())
    assert [one["confusion"] for one in kept] == [
        one["confusion"] for one in json.loads(straight.out)["results"]
    ]


@pytest.mark.long
def test_a_run_that_goes_on_by_its_own_file_is_of_its_preset(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ("stopped", "straight"):
        with monkeypatch.context() as patched:
            interrupt_after(patched, 7 if folder == "stopped" else 1000)
            perdure(*WORDS, tmp_path / folder)
    stopped = tmp_path / "stopped"
    assert perdure("run", stopped / "config.toml", "--out", stopped, "--resume").code == 0
    kept, straight = (
        [{**entry, "seconds": 0} for entry in json.loads((folder / "results.json").read_text())]
        for folder in (stopped, tmp_path / "straight")
    )
    assert kept == straight
    assert kept[0]["preset"] == "digits/nsp2"
    one, other = (tmp_path / name / "model" / "config.json" for name in ("stopped", "straight"))
    assert one.read_text() == other.read_text()


@pytest.mark.long
def test_a_damaged_checkpoint_is_refused(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(patched, 7)
        assert perdure(*WORDS, tmp_path / "out").code == 130
    steps = sorted((tmp_path / "out" / "checkpoints").glob("step-*"))
    steps[-1].write_bytes(steps[-1].read_bytes()[:100])
    said = perdure(*WORDS, tmp_path / "out", "--resume")
    assert said.code == 1
    assert f"error: '{steps[-1]}' is damaged" in said.err
    steps[-1].unlink()
    assert perdure(*WORDS, tmp_path / "out", "--resume").code == 0


@pytest.mark.slow  # test_an_interrupted_run_goes_on sends the same signal to this process
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_in_a_real_process(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[3] / "src"), *sys.path])
    words = ["run", "digits/finetune", *TINY, "epochs=10000", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "perdure.cli", *words],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    first = process.stderr.readline() + process.stderr.readline()
    assert "task 1 of 5: " in first
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert err.endswith("--resume\n")


@pytest.mark.long
def test_seeds(perdure: Perdure, tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    said = perdure("run", "digits/ncm", *FEW, "--seeds", "3,1", "--out", out)
    assert said.code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "seed-1",
        "seed-3",
        "summary.json",
        "summary.md",
        "summary.png",
    ]
    assert "Mean ± standard deviation over seeds." in said.out
    assert "seed 1: task 1 of 2" in said.err
    (row,) = json.loads((out / "summary.json").read_text())
    assert row["seeds"] == [3, 1]
    assert row["last_accuracy"]["n"] == 2
    more = perdure("run", "digits/ncm", *FEW, "--seeds", "1,2", "--out", out, "--resume", "--json")
    assert "seed 1 is finished" in more.err
    made = json.loads(more.out)
    assert [run["already_finished"] for run in made["runs"]] == [True, False]
    assert made["summary"][0]["seeds"] == [1, 2]


@pytest.mark.parametrize("seeds", ["", "a", "0,0", "0;1", "-1", "1.5"])
def test_wrong_seeds(perdure: Perdure, seeds: str) -> None:
    said = perdure("run", "digits/ncm", *TINY, f"--seeds={seeds}")
    assert said.code == 2
    assert "allowed are different whole numbers joined by commas, as --seeds 0,1,2" in said.err


def test_two_ways_to_name_the_seed(perdure: Perdure) -> None:
    said = perdure("run", "digits/ncm", *TINY, "seed=3", "--seeds", "0,1")
    assert (said.code, said.err) == (
        2,
        "error: seed=3 and --seeds 0,1 contradict each other. Leave one out.\n",
    )


@pytest.mark.parametrize(
    ("words", "guess"),
    [
        (["digits/nps2"], "Unknown preset 'digits/nps2'. Did you mean 'digits/nsp2'?"),
        (["digit/nsp2"], "Unknown preset 'digit/nsp2'. Did you mean 'digits/nsp2'?"),
        (["method=nsp2"], "Unknown preset 'method=nsp2'. A preset is benchmark/method"),
        (
            ["digits/nsp2", "epoch=1"],
            "Unknown key 'epoch' of a run with method 'nsp2'. Did you mean 'epochs'?",
        ),
        (
            ["digits/nsp2", "temperatur=1"],
            "'temperatur' of a run with method 'nsp2'. Did you mean 'temperature'?",
        ),
        (["digits/ncm", "eta1=1"], "Unknown key 'eta1' of a run with method 'ncm'."),
        (["digits/ncm", "method=lad"], "Unknown method 'lad'. Did you mean 'lda'?"),
        (["digits/nsp2", "heads=gausian"], "Unknown head 'gausian'. Did you mean 'gaussian'?"),
        (
            ["digits/nsp2", "data=digit"],
            "is no known data set. Did you mean 'digits'?",
        ),
        (["digits/nsp2", "transform=plane"], "Unknown transform 'plane'. Did you mean 'plain'?"),
        (["digits/nsp2", "schedule=cosin"], "schedule='cosin': Input should be"),
        (["digits/nsp2", "schedule=cosin"], "Did you mean 'cosine'?"),
        (["digits/nsp2", "precision=bf61"], "Did you mean 'bf16'?"),
        (["digits/nsp2", "conditions=exakt"], "Did you mean 'exact'?"),
        (["digits/nsp2", "class_order=sortet"], "Did you mean 'sorted'?"),
        (["digits/nsp2", "weights=radom"], "Did you mean 'random'?"),
        (["digits/nsp2", "backbone=vit_base_patch16_22"], "Did you mean 'vit_base_patch16_224'?"),
        (["digits/nsp2", "backbone=test_vit.r160"], "Did you mean 'r160_in1k'?"),
        (["digits/nsp2", "device=gpuu"], "Unknown device 'gpuu'. Allowed: auto, cpu, cuda"),
    ],
)
def test_wrong_names(perdure: Perdure, words: list[str], guess: str) -> None:
    given = words[1:] if any(word.startswith(("backbone", "weights")) for word in words) else []
    said = perdure("run", words[0], *TINY, *(given or words[1:]), "--out", "out")
    assert (said.code, said.out) == (2, "")
    assert guess in said.err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("epochs=0", "epochs=0: it must be 1 or more"),
        ("epochs=many", "epochs='many': Input should be a valid integer"),
        ("lr=-1", "lr=-1: it must be above 0"),
        ("lr=inf", "'inf' is not a finite number"),
        ("eta1=2", "eta1=2: it must be 0 or more and at most 1"),
        ("prompt_length=0", "prompt_length=0: it must be 1 or more"),
        ("validation_fraction=1", "validation_fraction=1: it must be 0 or more and below 1"),
        ("shrinkage=validation", "add validation_fraction=0.25"),
        ("heads=linear,linear", "each head at most once"),
        ("img_size=33", "Nearest sizes that fit: 32 and 48"),
        ("tasks=two", "Cannot read tasks=two"),
        ("epochs", "Override 'epochs' is not of the form key=value"),
    ],
)
def test_wrong_values(perdure: Perdure, override: str, expected: str) -> None:
    said = perdure("run", "digits/nsp2", *TINY, override, "--out", "out")
    assert (said.code, said.out) == (2, "")
    assert expected in said.err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["tasks=B0-Inc11"], "tasks=B0-Inc11 does not fit 10 classes"),
        (["tasks=4+4"], "the sizes add up to 8, and must add up to 10"),
        (["prompt_blocks=[0,6]"], "prompt_blocks=[0, 6]: [6] outside the blocks of 'test_vit"),
        (["lr=1e30", "batch_size=2"], "The loss is not finite"),
    ],
)
def test_runs_that_cannot_work(perdure: Perdure, overrides: list[str], expected: str) -> None:
    said = perdure("run", "digits/nsp2", *TINY, *overrides, "--out", "out")
    assert (said.code, said.out) == (1, "")
    assert expected in said.err


@pytest.mark.long
def test_one_class_under_a_linear_head_only(perdure: Perdure) -> None:
    tiny = [*TINY, "tasks=9+1"]
    said = perdure("run", "digits/nsp2", *tiny, "heads=linear", "--out", "out")
    assert said.code == 2
    assert "Task 2 has the single class 'pattern_1'" in said.err
    assert "Add heads=linear,gaussian" in said.err
    assert not Path("out").exists()
    assert perdure("run", "digits/nsp2", *tiny, "--out", "out", "-q").code == 0


class TestOwnImages:
    """A folder per class, and everything that can be wrong with it."""

    def test_works(self, perdure: Perdure, own_images: list[str]) -> None:
        said = perdure("run", "digits/ncm", *own_images, "--out", "out")
        assert said.code == 0
        assert "note: The last task has 1 class, the one before it 2." in said.err

    def test_missing_folder(self, perdure: Perdure, photos: Path, own_images: list[str]) -> None:
        said = perdure("run", "digits/ncm", *own_images, f"data=folder:{photos}s", "--out", "out")
        assert (said.code, said.out) == (1, "")
        assert f"The folder '{photos}s' does not exist. Did you mean 'photos'?" in said.err
        # The corrected command must find the folder free.
        assert not Path("out").exists()

    def test_no_path(self, perdure: Perdure) -> None:
        said = perdure("run", "digits/ncm", *TINY, "data=folder")
        assert said.code == 2
        assert "data=folder names no folder. Type data=FOLDER" in said.err

    def test_empty_class(self, perdure: Perdure, photos: Path, own_images: list[str]) -> None:
        (photos / "fox").mkdir()
        said = perdure("run", "digits/ncm", *own_images, "tasks=2+2", "--out", "out")
        assert said.code == 1
        assert f"No image file in the class folder '{photos / 'fox'}'." in said.err
        assert not Path("out").exists()

    def test_class_only_in_test(
        self, perdure: Perdure, photos: Path, own_images: list[str]
    ) -> None:
        names = [path.name for path in photos.iterdir()]
        for split in ("train", "test"):
            (photos / split).mkdir()
        for name in names:
            (photos / name).rename(photos / "train" / name)
        for name in (*names, "fox"):
            (photos / "test" / name).mkdir()
            (photos / "test" / name / "0.png").write_bytes(b"")
        said = perdure("run", "digits/ncm", *own_images, "--out", "out")
        assert said.code == 1
        assert "The class 'fox' is in" in said.err

    @pytest.mark.long
    def test_unreadable_image(self, perdure: Perdure, photos: Path, own_images: list[str]) -> None:
        broken = photos / "dog" / "0.png"
        broken.write_bytes(broken.read_bytes()[:40])
        said = perdure("run", "digits/ncm", *own_images, "--out", "out", "-q")
        assert said.code == 1
        assert str(broken) in said.err
        assert not Path("out").exists()
        words = ("run", "digits/ncm", *own_images, "--out", "out", "-q", "--skip-unreadable")
        skipped = perdure(*words)
        assert skipped.code == 0
        assert "note: 1 unreadable image was left out, first: " in skipped.err
        assert str(broken) in skipped.err


class TestFolder:
    """Output folders that cannot be used."""

    @pytest.mark.parametrize("more", [[], ["--resume"], ["--dry-run"], ["--seeds", "0"]])
    def test_is_a_file(self, perdure: Perdure, tmp_path: Path, more: list[str]) -> None:
        (tmp_path / "file").write_text("mine")
        for out in (tmp_path / "file", tmp_path / "file" / "below"):
            said = perdure("run", "digits/ncm", *TINY, "--out", out, *more)
            assert (said.code, said.out) == (1, "")
            assert "is a file, not a folder. Choose another place." in said.err
        assert (tmp_path / "file").read_text() == "mine"

    @pytest.mark.parametrize("more", [[], ["--resume"], ["--dry-run"]])
    def test_holds_something_else(self, perdure: Perdure, tmp_path: Path, more: list[str]) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("mine")
        said = perdure("run", "digits/ncm", *TINY, "--out", tmp_path / "out", *more)
        assert said.code == 1
        assert re.search(r"[Cc]hoose another (place|--out)\.", said.err)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]

    @pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions mean nothing here"
    )
    def test_cannot_be_written(self, perdure: Perdure, tmp_path: Path) -> None:
        (tmp_path / "locked").mkdir(mode=0o500)
        said = perdure("run", "digits/ncm", *TINY, "--out", tmp_path / "locked" / "out")
        assert said.code == 1
        assert "cannot be written. Choose another place." in said.err


def test_disk_full_while_learning(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("perdure.experiment.run", full)
    said = perdure("run", "digits/ncm", *TINY, "--out", tmp_path / "out")
    assert (said.code, said.out) == (1, "")
    assert said.err == "error: [Errno 28] No space left on device\n"
