"""Sample of the reliability campaign: kills, failing calls, mutated files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from commands import OPERATIONS, prepare
from inputs import LIGHT
from kills import kills, write_errors
from mutations import mutations

pytestmark = pytest.mark.long

# What trains cannot be forked from a process that has trained.
UNTRAINED = [one for one in OPERATIONS if one.name in ("first learn", "save")]
SMALL = [kind for kind in LIGHT if kind.name in ("model", "images", "archives")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERDURE_HOME", "home")
        folder = tmp_path_factory.mktemp("world")
        prepare(folder, trained=False)
        return folder


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_HOME", "home")


def test_killed_operations_leave_the_old_or_the_new(world: Path, tmp_path: Path) -> None:
    found = list(kills(2, 3, world, tmp_path, operations=UNTRAINED))
    assert [fault for fault in found if fault.why] == []
    assert len({fault.what for fault in found}) == 2


def test_a_loss_is_noticed(world: Path, tmp_path: Path) -> None:
    """A save that removes what was there before it writes."""
    save = UNTRAINED[1]

    def careless() -> None:
        shutil.rmtree("other")
        save.work()

    [fault] = kills(1, 5, world, tmp_path, operations=[replace(save, work=careless)])
    assert fault.why


def test_failing_calls_are_told(world: Path, tmp_path: Path) -> None:
    found = list(write_errors(1, 1, world, tmp_path, operations=UNTRAINED[1:]))
    assert len(found) == 1
    assert [fault for fault in found if fault.why] == []


def test_mutated_files_get_an_error_of_ours(world: Path, tmp_path: Path) -> None:
    found = list(mutations(20, 0, world, tmp_path, kinds=SMALL))
    assert len(found) == 20
    assert [fault for fault in found if fault.why] == []
