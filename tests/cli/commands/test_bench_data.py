"""``perdure bench data``: the verdict follows from the figures, and nonsense is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perdure.bench.data import DRAWN, PHOTOGRAPH, drawn_photographs
from perdure.bench.verdict import Reading, verdict
from tests.cli.command import Perdure

SMALL = ("--backbone", "test_vit", "--img-size", 32, "--batch-size", 4, "--images", 8)


def test_waiting() -> None:
    """In turn, reading at the learner's own speed halves it; beside it, it costs nothing."""
    assert Reading(0, 1.0, 50.0).waiting(50.0) == 0.5
    assert Reading(2, 1.0, 50.0).waiting(50.0) == 0.0
    assert Reading(2, 1.0, 20.0).waiting(50.0) == pytest.approx(0.6)
    assert Reading(2, 20.0, 99.0).waiting(50.0, first=True) == pytest.approx(0.6)


def test_the_fewest_workers_that_suffice_are_named() -> None:
    readings = [Reading(2, 400.0, 400.0), Reading(0, 400.0, 310.0), Reading(1, 400.0, 400.0)]
    found = verdict(10.0, readings, cores=2)
    assert (found.starves, found.workers) == (False, 0)
    assert found.text == (
        "With workers=0 reading gives 31 × what the learner takes, which waits 3 % of the time."
    )


def test_workers_that_help_are_named() -> None:
    readings = [Reading(0, 50.0, 50.0), Reading(2, 90.0, 95.0), Reading(4, 150.0, 180.0)]
    found = verdict(100.0, readings, cores=8)
    assert (found.starves, found.workers) == (False, 2)
    assert found.text == (
        "workers=0 starves the learner, which waits 67 % of the time: try workers=2. With "
        "workers=2 reading gives 0.95 × what the learner takes, which waits 5 % of the time."
    )


def test_a_slow_first_pass_is_named() -> None:
    found = verdict(100.0, [Reading(0, 100.0, 123_456.0)], cores=2)
    assert not found.starves
    assert "gives 1,200 × what" in found.text
    assert found.text.endswith("In the first pass over a task's images it waits 50 %.")


@pytest.mark.parametrize(
    ("cores", "advice"), [(16, "more workers, as --workers 4, or smaller"), (2, "Try smaller")]
)
def test_starving(cores: int, advice: str) -> None:
    found = verdict(100.0, [Reading(0, 20.0, 20.0), Reading(2, 40.0, 40.0)], cores)
    assert (found.starves, found.workers) == (True, 2)
    assert found.text.startswith(
        "Reading starves the learner; at best, with workers=2, reading gives 0.4 × what the "
        "learner takes, which waits 60 % of the time."
    )
    assert advice in found.text


def test_photographs_are_drawn_alike_and_used_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    few, again = drawn_photographs(tmp_path / "a", 2), drawn_photographs(tmp_path / "b", 2)
    assert [path.read_bytes() for path in few.paths] == [p.read_bytes() for p in again.paths]
    assert few.paths[0].read_bytes() != few.paths[1].read_bytes()
    assert few.image(0).size == PHOTOGRAPH
    assert 40_000 < few.paths[0].stat().st_size < 100_000
    assert not few.in_memory


@pytest.mark.long
def test_command(perdure: Perdure) -> None:
    said = perdure("bench", "data", *SMALL, "--workers", "0,1", "--transform", "plain", "--json")
    assert said.code == 0, said.err
    assert "JPEG files are drawn into a temporary folder" in said.err
    found: dict[str, Any] = json.loads(said.out)
    assert found["data"] == f"{DRAWN} drawn JPEG files of 500 × 400 px"
    assert (found["images"], found["decoded_in_memory"]) == (8, False)
    needed = found["learner_images_per_second"]
    assert needed > 0
    readings = []
    for one in found["readings"]:
        reading = Reading(
            one["workers"], one["first_images_per_second"], one["later_images_per_second"]
        )
        assert one["times_needed"] == reading.later / needed
        assert one["waiting"] == reading.waiting(needed)
        assert one["waiting_first"] == reading.waiting(needed, first=True)
        readings.append(reading)
    assert [reading.workers for reading in readings] == [0, 1]
    judged = verdict(needed, readings, found["cores"])
    assert found["verdict"] == judged.text
    assert (found["starves"], found["workers"]) == (judged.starves, judged.workers)


def test_command_in_words(perdure: Perdure) -> None:
    said = perdure("bench", "data", *SMALL, "--data", "digits", "--workers", "0")
    assert said.code == 0, said.err
    assert "drawn" not in said.err
    lines = said.out.splitlines()
    assert lines[0].split() == ["data", "digits"]
    assert "decoded in memory          yes" in lines
    assert lines[-1].startswith(("With workers=0 reading gives ", "Reading starves the learner; "))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--workers", "0,99999"), "--workers 0,99999: allowed on this machine are 0 to "),
        (("--workers", "1,1"), "each once, as --workers 0,1,2."),
        (("--workers", "-1"), "'-1' is not a whole number of 0 or more"),
        (("--workers", "two"), "'two' is not a whole number of 0 or more"),
        (("--images", "0"), "'0' is not a whole number of 1 or more"),
        (("--method", "lda"), "Method 'lda' has no training step"),
        (("--transform", "nsp"), "Did you mean 'nsp2'"),
        (("--data", "digit"), "Did you mean 'digits'"),
    ],
)
def test_refusals(perdure: Perdure, words: tuple[str, ...], text: str) -> None:
    said = perdure("bench", "data", *words)
    assert said.code in (1, 2)
    assert text in said.err
