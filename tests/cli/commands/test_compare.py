"""``perdure compare`` and ``perdure demo``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perdure.cli.commands.demo import DEMO
from perdure.cli.progress import Display
from perdure.engine.events import Event
from tests.cli.command import Perdure
from tests.tiny import TINY

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("unchecked")]

FEW = (*TINY, "tasks=5+5")


@pytest.fixture
def other(perdure: Perdure, tmp_path: Path) -> Path:
    """Return the folder of a second finished run."""
    assert perdure("run", "digits/ncm", *TINY, "--out", tmp_path / "runs" / "ncm", "-q").code == 0
    return tmp_path / "runs" / "ncm"


def test_compare(perdure: Perdure, finished: Path, other: Path) -> None:
    said = perdure("compare", finished, other, "--out", "both")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    # Presets that differ by their method only take no column.
    assert [line.split()[:2] for line in lines if line.startswith((" nsp2", " ncm"))] == [
        ["nsp2", "linear"],
        ["nsp2", "gaussian"],
        ["ncm", "ncm"],
    ]
    assert "preset" not in said.out
    assert "picture  both/comparison.png" in lines
    assert Path("both/comparison.png").stat().st_size > 10_000
    assert Path("both/comparison.md").read_text().count("\n| ") == 4
    rows = json.loads(Path("both/comparison.json").read_text())
    assert [row["preset"] for row in rows] == ["digits/nsp2", "digits/nsp2", "digits/ncm"]


def test_compare_takes_folders_of_runs_and_files(
    perdure: Perdure, finished: Path, other: Path
) -> None:
    words = ("compare", other.parent, finished / "results.json", other, "--json")
    said = perdure(*words)
    made = json.loads(said.out)
    assert [row["method"] for row in made["rows"]] == ["ncm", "nsp2", "nsp2"]
    assert made["files"][0] == "runs/comparison/comparison.png"


def test_compare_of_what_is_not_there(perdure: Perdure, tmp_path: Path) -> None:
    said = perdure("compare", tmp_path / "nowhere")
    assert (said.code, said.out) == (1, "")
    assert f"'{tmp_path / 'nowhere'}' does not exist. Name the folder of a finished run" in said.err
    (tmp_path / "empty").mkdir()
    assert "holds no results.json" in perdure("compare", tmp_path / "empty").err
    (tmp_path / "file").touch()
    assert "is no folder" in perdure("compare", tmp_path / "file").err


def test_compare_of_an_unfinished_run(perdure: Perdure, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('method = "ncm"\n')
    said = perdure("compare", tmp_path)
    assert said.code == 1
    assert "is not finished. Go on with `perdure run " in said.err


def test_compare_of_damaged_results(perdure: Perdure, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[{")
    said = perdure("compare", tmp_path)
    assert said.code == 1
    assert "results.json' is damaged" in said.err


def test_compare_into_a_file(perdure: Perdure, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = perdure("compare", finished, "--out", tmp_path / "file")
    assert said.code == 1
    assert "Choose another place." in said.err


def test_demo(perdure: Perdure, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        show = Display.__call__

        def interrupted(self: Display, event: Event) -> None:
            show(self, event)
            if self.config.training.method == "nsp2" and event.kind == "accuracy":
                raise KeyboardInterrupt

        patched.setattr(Display, "__call__", interrupted)
        said = perdure("demo", *FEW)
    assert (said.code, said.out) == (130, "")
    assert said.err.endswith(f"Go on with: perdure demo {' '.join(FEW)}\n")

    said = perdure("demo", *FEW)
    assert said.code == 0
    assert "finetune: finished before; its results are used again\n" in said.err
    assert "nsp2: going on after" in said.err or "nsp2: task 1 of 2" in said.err
    assert said.out.count("within-") == 1, "one table"
    assert [line.split()[0] for line in said.out.splitlines()[-5:]] == [
        "picture",
        "table",
        "runs",
        "time",
        "predict",
    ]
    out = Path("runs/demo")
    assert {path.name for path in out.iterdir() if path.is_dir()} == {
        name.partition("/")[2] for name in DEMO
    }
    rows = json.loads((out / "comparison.json").read_text())
    assert [(row["method"], row["head"]) for row in rows] == [
        ("finetune", "linear"),
        ("finetune", "gaussian"),
        ("nsp2", "linear"),
        ("nsp2", "gaussian"),
        ("ncm", "ncm"),
        ("lda", "gaussian"),
    ]
    assert (out / "comparison.png").is_file()
    assert (out / "comparison.md").is_file()

    said = perdure("demo", *FEW, "--json", "-q")
    assert said.err.count("finished before") == 4
    assert json.loads(said.out)["rows"] == rows


def test_demo_of_several_processes_is_refused(perdure: Perdure) -> None:
    said = perdure("demo", *FEW, "devices=2")
    assert (said.code, said.out) == (2, "")
    assert "The demo runs in one process" in said.err


def test_demo_with_other_settings_is_refused_at_once(perdure: Perdure, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    assert perdure("run", "demo/lda", *FEW, "--out", out / "lda", "-q").code == 0
    said = perdure("demo", *FEW, "lr=0.5", "--out", out)
    assert (said.code, said.out) == (1, "")
    assert "another configuration" in said.err
    assert [path.name for path in out.iterdir()] == ["lda"]


def test_runs_of_other_settings_are_no_seeds_of_one(perdure: Perdure, tmp_path: Path) -> None:
    for name, more in (("one", ()), ("other", ("seed=1", "epochs=2"))):
        words = ("run", "digits/nsp2", *FEW, *more, "--out", tmp_path / "runs" / name, "-q")
        assert perdure(*words).code == 0
    words = ("run", "digits/nsp2", *TINY, "tasks=4+6", "seed=2", "--out", tmp_path / "others", "-q")
    assert perdure(*words).code == 0
    both = json.loads(perdure("compare", tmp_path / "runs", tmp_path / "others", "--json").out)
    assert len({row["stream"] for row in both["rows"]}) == 2
    rows = json.loads(perdure("compare", tmp_path / "runs", "--json").out)["rows"]
    assert [row["options"] for row in rows if row["head"] == "linear"] == ["epochs=1", "epochs=2"]
