"""`perdure run` on several processes, started as a user would."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors.torch
import tomli_w

from perdure.engine.rendezvous import ANSWER
from perdure.testing.trial import BACKBONE, SIDE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PERDURE = (sys.executable, "-m", "perdure")
KEYS = {
    "method": "nsp2",
    "heads": ["linear", "gaussian"],
    "backbone": BACKBONE,
    "weights": "random",
    "img_size": SIDE,
    "precision": "fp32",
    "device": "cpu",
    "data": f"synthetic:6x{SIDE}",
    "images_per_class": 8,
    "test_images_per_class": 4,
    "tasks": "2+2+2",
    "epochs": 4,
    "batch_size": 5,
    "eval_batch_size": 6,
    "checkpoint_every": 2,
}
SLURM = {"SLURM_JOB_ID": "1234", "SLURM_NODELIST": "localhost", "SLURM_NODEID": "0"}
BATCH = {**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "NODE_RANK": "1"}
"""What a batch job without srun sets, on a cluster that numbers its machines besides."""
PATIENCE = 30.0
"""Seconds within which the others stop."""


@pytest.fixture
def preset(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(tomli_w.dumps(KEYS))
    return str(path)


def command(
    *words: str, start: tuple[str, ...] = PERDURE, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    everything = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    return subprocess.run(
        [*start, *words], capture_output=True, text=True, env=everything, check=False
    )


def accuracies(folder: Path) -> list[object]:
    return [entry["accuracy_matrix"] for entry in json.loads((folder / "results.json").read_text())]


def test_devices_and_torchrun_give_what_one_process_gives(preset: str, tmp_path: Path) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    torchrun += ("--nproc-per-node", "3", "-m", "perdure")
    folders = [tmp_path / name for name in ("alone", "devices", "torchrun")]
    runs = [
        command("run", preset, "--out", str(folders[0])),
        command("run", preset, "devices=2", "--out", str(folders[1]), env=BATCH),
        command("run", preset, "--out", str(folders[2]), start=torchrun),
    ]
    assert [one.returncode for one in runs] == [0, 0, 0], [one.stderr for one in runs]
    for one in runs:
        assert one.stdout.count("results  ") == 1, "rank 0 alone tells"
    matrices = [accuracies(folder) for folder in folders]
    assert matrices[0] == matrices[1] == matrices[2]
    processes = [json.loads((f / "env.json").read_text())["processes"] for f in folders]
    assert processes == [1, 2, 3]


def test_tasks_of_srun_share_a_run_however_they_were_counted(preset: str, tmp_path: Path) -> None:
    """Counted as ``--ntasks``, which Fabric would refuse."""
    tasks = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_NTASKS": "2"}
    with ThreadPoolExecutor(2) as pool:
        ended = pool.map(
            lambda rank: command(
                *("run", preset, "epochs=1", "--out", str(tmp_path / "r")),
                env={**SLURM, **tasks, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            ),
            ("0", "1"),
        )
        first, second = ended
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert json.loads((tmp_path / "r" / "env.json").read_text())["processes"] == 2


def test_address_that_nothing_answers_at_ends_all(preset: str, tmp_path: Path) -> None:
    """After the two minutes that every process waits."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    begun = time.monotonic()
    found = command(
        *("run", preset, "nodes=2", "devices=2", "--out", str(tmp_path / "r")),
        env={"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "1"},
    )
    assert found.returncode == 1
    assert time.monotonic() - begun < ANSWER + 60
    assert f"found nobody at 127.0.0.1:{port} for 120 seconds" in found.stderr
    assert not (tmp_path / "r").exists()


def child_of(process: subprocess.Popen[str]) -> int:
    """The other rank: the one child of rank 0 that is this program."""
    for one in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"perdure" in Path(f"/proc/{one}/cmdline").read_bytes():
            return int(one)
    raise AssertionError("no other rank")


@pytest.mark.parametrize("rank", [0, 1])
def test_killed_rank_stops_the_others_and_the_run_goes_on(
    rank: int, preset: str, tmp_path: Path
) -> None:
    folder, told = tmp_path / "run", tmp_path / "told"
    words = ["run", preset, "epochs=12", "--out", str(folder)]
    with told.open("w") as errors:
        first = subprocess.Popen(
            [*PERDURE, *words, "devices=2"],
            stderr=errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        while not (folder / "checkpoints" / "manifest.json").exists():
            assert first.poll() is None, told.read_text()
            time.sleep(0.1)
        other = child_of(first)
        begun = time.monotonic()
        os.kill([first.pid, other][rank], signal.SIGKILL)
        first.wait(PATIENCE)
        while Path(f"/proc/{other}").exists() and time.monotonic() - begun < PATIENCE:
            time.sleep(0.1)
    assert not Path(f"/proc/{other}").exists() or rank == 1
    assert time.monotonic() - begun < PATIENCE
    assert f"error: Rank {1 - rank} of 2 stops: another rank has ended" in told.read_text()
    again = command("run", preset, "epochs=12", "--resume", "--out", str(folder), "devices=1")
    assert again.returncode == 0, again.stderr
    assert "going on after" in again.stderr
    assert safetensors.torch.load_file(folder / "model" / "weights.safetensors")


def test_port_in_use_is_named(preset: str, tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        words = ("run", preset, "devices=2", "--out", str(tmp_path / "r"))
        found = command(*words, env={"MASTER_PORT": port})
    assert found.returncode == 1
    assert f"do not meet at 127.0.0.1:{port}" in found.stderr
    assert "The port is taken: set MASTER_PORT to a free one" in found.stderr
    assert not (tmp_path / "r").exists()


def test_occupied_folder_is_refused_by_all(preset: str, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine").touch()
    found = command("run", preset, "devices=2", "--out", str(tmp_path / "r"))
    assert found.returncode == 1
    assert "is not empty. Add --resume" in found.stderr
    assert "error: Rank 1 stops, because rank 0 does: The folder" in found.stderr
