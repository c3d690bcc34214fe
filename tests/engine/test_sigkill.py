"""A run killed with SIGKILL at drawn steps, again and again, ends like one that was not."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.engine.killed_run import run_until

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("unchecked")]
TIMES = ("seconds",)
STEPS = 3 * 8
"""Three tasks of two epochs, of four steps each."""


def start(folder: Path, last_step: int) -> int | None:
    """Run in a process of its own, forked from this one, where all is imported."""
    process = multiprocessing.get_context("fork").Process(
        target=run_until, args=(folder, "nsp2", last_step)
    )
    process.start()
    process.join()
    return process.exitcode


def outcome(folder: Path) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = json.loads((folder / "results.json").read_text())
    return [{k: v for k, v in entry.items() if k not in TIMES} for entry in entries]


def test_killed_run_resumes_bit_identically(tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert start(straight, 0) == 0
    draw = random.Random(20241210)
    total, kills = STEPS, 0
    for step in [draw.randint(4, total // 2), draw.randint(4, total // 2), draw.randint(1, 3)]:
        code = start(killed, step)
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
    assert kills >= 2, "the drawn steps must really interrupt the run"
    assert start(killed, 0) == 0
    assert outcome(killed) == outcome(straight)
    ours = safetensors.torch.load_file(killed / "model" / "weights.safetensors")
    theirs = safetensors.torch.load_file(straight / "model" / "weights.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert start(killed, 0) == 0, "resuming a finished run is no error"
