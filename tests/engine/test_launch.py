"""Who is started by whom: what torchrun, srun and a user's environment say."""

from __future__ import annotations

import pytest

from perdure.engine.launch import Layout, layout
from perdure.errors import ConfigError

VARIABLES = (
    "NODE_RANK PERDURE_RANK TORCHELASTIC_RUN_ID GROUP_WORLD_SIZE SLURM_STEP_NUM_TASKS "
    "SLURM_STEP_NUM_NODES"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing has started this process."""
    for name in VARIABLES.split():
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8", "RANK": "5"}
SRUN = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "5"}


@pytest.mark.parametrize(("told", "starter"), [(TORCHRUN, "torchrun"), (SRUN, "srun")])
def test_what_has_started_the_processes_is_believed(
    told: dict[str, str], starter: str, environment: pytest.MonkeyPatch
) -> None:
    for name, value in told.items():
        environment.setenv(name, value)
    assert layout() == layout(4, 2) == Layout(4, 2, 5, started=True, starter=starter)
    with pytest.raises(ConfigError, match=r"devices=2 nodes=1, but \w+ has started 4 processes"):
        layout(2)


@pytest.mark.parametrize(
    "told",
    [
        {**TORCHRUN, "LOCAL_WORLD_SIZE": "3", "WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "9"},
    ],
)
def test_machines_with_other_numbers_of_processes_are_refused(
    told: dict[str, str], environment: pytest.MonkeyPatch
) -> None:
    for name, value in told.items():
        environment.setenv(name, value)
    with pytest.raises(
        ConfigError, match=r"[49] processes on 2 machines: as many are needed on each"
    ):
        layout()


def test_a_user_says_which_machine_this_is(environment: pytest.MonkeyPatch) -> None:
    assert layout(3) == Layout(3, 1, 0, started=False)
    environment.setenv("NODE_RANK", "1")
    assert layout(3, 2) == Layout(3, 2, 3, started=False)
    assert layout(3).rank == 0, "one machine needs no number"
    environment.setenv("PERDURE_RANK", "4")
    assert layout(3, 2) == Layout(3, 2, 4, started=True)


@pytest.mark.parametrize("number", ["2", "-1", "first", ""])
def test_a_machine_with_no_number_of_the_run_is_refused(
    number: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("NODE_RANK", number)
    with pytest.raises(ConfigError, match="with nodes=2: set it to 0 … 1"):
        layout(1, 2)
