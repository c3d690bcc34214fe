"""``perdure tune`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import Perdure
from tests.tiny import TINY

SMALL = [word for word in TINY if not word.startswith("images_per_class")]
COMMAND = ["tune", "digits/finetune", *SMALL, "images_per_class=8", "tasks=5+5", "-q"]


@pytest.mark.long
def test_a_search_prints_its_trials_and_leaves_a_preset(perdure: Perdure, tmp_path: Path) -> None:
    words = [
        *COMMAND,
        "--budget",
        2,
        "--out",
        tmp_path,
        "--space",
        "lr=0.003,0.01",
        "temperature=5",
    ]
    said = perdure(*words)
    assert said.code == 0, said.err
    judged = "Validation images of all tasks of the stream itself, linear head, mean of 1 seed"
    assert judged in said.out
    assert "2 trials of 2 settings: lr of [0.003, 0.01]" in said.err
    assert (tmp_path / "winner.toml").is_file()
    again = perdure(*words, "--json")
    found = json.loads(again.out)
    assert len(found["trials"]) == 2
    assert found["values"] in [trial["values"] for trial in found["trials"]]
    run = perdure("run", found["winner"], *SMALL, "--out", tmp_path / "run", "--dry-run")
    assert run.code == 0, run.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--first-task", "--on", "data=digits"], "--first-task and --on name two streams"),
        (["--on", "lr=0.1"], "--on lr=…: only keys of a stream may differ, as data=digits"),
        (["--space", "lr"], "--space lr: write key=value,value, as lr=0.001,0.01."),
        (["--space", "lr="], "--space lr=: write key=value,value"),
        (["--space", "lrr=1,2"], "Did you mean 'lr'?"),
        (["--space", "heads=linear(head_inputs=centred,head_init=fresh),ncn"], "head 'ncn'"),
        (["--budget", "0"], "'0' is not a whole number of 1 or more"),
        (["--head", "gaussian1"], "this configuration evaluates linear, gaussian"),
        (["--seeds", "1,1"], "different whole numbers"),
        (["devices=2"], "devices=2 nodes=1: every trial of a search is learned by one process"),
        (["--space", "devices=1,2"], "devices cannot be searched"),
    ],
)
def test_wrong_words(perdure: Perdure, tmp_path: Path, words: list[str], text: str) -> None:
    said = perdure(*COMMAND, *words, "--out", tmp_path / "tune")
    assert said.code == 2
    assert text in said.err
    assert not (tmp_path / "tune").exists()


def test_what_trains_nothing_has_nothing_to_search(perdure: Perdure) -> None:
    said = perdure("tune", "digits/lda", *SMALL)
    assert said.code == 2
    assert "nothing to search for method 'lda'" in said.err
