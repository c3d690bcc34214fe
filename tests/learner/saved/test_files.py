"""Whenever a save is interrupted, the folder holds the old model or the new one."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from filelock import FileLock

from perdure.atomic import LOCK
from perdure.errors import CheckpointError, OutputError
from perdure.learner import ContinualClassifier
from perdure.learner.saved import contents
from perdure.learner.saved.contents import Contents, is_model, read_contents
from perdure.learner.saved.files import is_unfinished
from tests.learner.killed_save import save_and_die
from tests.learner.models import (
    FILES,
    MODELS,
    Killed,
    copy,
    killed_at,
    load,
    names,
    new_classifier,
    old_classifier,
    same,
)

DISK = ((Path, "open"), (os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "iterdir"))

FOLDER_SYNCS = {0, 2, 4, 6, 8}
"""Of a save's calls of fsync: the first ends what settled, then every file and its folder."""


def kill(folder: Path, classifier: ContinualClassifier, operation: int) -> bool:
    """Save, and die before an operation; tells whether the save lived to see it."""
    try:
        with killed_at(operation, DISK):
            classifier.save(folder, keep_versions=0)
    except Killed:
        return True
    return False


def files_of(folder: Path) -> Contents:
    """What a folder holds, wherever it lies."""
    return dataclasses.replace(read_contents(folder), folder=Path())


def committed_only(folder: Path) -> Path:
    """Leave a folder as a save does that dies when its pointer is written and no file renamed."""
    classifier = old_classifier()
    for operation in itertools.count():
        copy(MODELS / "format-1", folder)
        assert kill(folder, classifier, operation)
        if (folder / "config.json").exists():
            break
    return folder


@pytest.mark.long
@pytest.mark.parametrize("start", ["format-1", "format-2", "interrupted"])
def test_killed_anywhere_it_is_the_old_or_the_new(tmp_path: Path, start: str) -> None:
    before, folder = tmp_path / "before", tmp_path / "model"
    if start == "interrupted":
        committed_only(before)
        assert {name for name in names(before) if "-" in name}, "files must be waiting"
    else:
        copy(MODELS / start, before)
    new, found = new_classifier(), []
    new.save(tmp_path / "new")
    old_files, new_files = files_of(before), files_of(tmp_path / "new")
    for operation in itertools.count():
        copy(before, folder)
        if not kill(folder, new, operation):
            break
        files = files_of(folder)
        assert files in (old_files, new_files)
        found.append(files == new_files)
    assert found == sorted(found), "once new, always new"
    assert set(found) == {False, True}
    assert len(found) > 15
    kill(folder, new, found.index(True))
    old_classifier().save(folder, keep_versions=0)
    assert names(folder) == FILES
    assert same(load(folder), old_classifier())


@pytest.mark.long
def test_a_first_save_leaves_nothing_or_the_model(tmp_path: Path) -> None:
    new, found = new_classifier(), []
    for operation in itertools.count():
        folder = tmp_path / str(operation)
        folder.mkdir()
        if not kill(folder, new, operation):
            break
        found.append(is_model(folder))
        if not found[-1]:
            with pytest.raises(CheckpointError, match=r"config\.json' is missing"):
                load(folder)
            assert is_unfinished(folder), "the lesson can be repeated"
    assert set(found) == {False, True}
    assert same(load(tmp_path / str(found.index(True))), new)
    repeated = tmp_path / str(found.index(True) - 1)
    new.save(repeated)
    # The "killed" writes were of this process, which lives: theirs are not swept.
    assert {name for name in names(repeated) if not name.startswith(".perdure-")} == FILES
    (tmp_path / "0" / "photo-202311270001.jpg").touch()
    assert not is_unfinished(tmp_path / "0")
    assert names(folder) == FILES


@pytest.mark.long
@pytest.mark.parametrize("start", ["format-1", "format-2"])
def test_a_full_disk_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    new, fsync, failures = new_classifier(), os.fsync, 0
    for broken in range(9):
        folder, calls = copy(MODELS / start, tmp_path / "model"), itertools.count()

        def full(descriptor: int, at: int = broken, calls: itertools.count[int] = calls) -> None:
            if next(calls) == at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"disk is full|may not last") as told:
            new.save(folder, keep_versions=0)
        if broken in FOLDER_SYNCS:
            assert "may not last through a power cut" in str(told.value)
            assert any(same(load(folder), whole) for whole in (load(MODELS / start), new))
            new.save(folder)
            assert same(load(folder), new)
            continue
        failures += 1
        assert names(folder) == names(MODELS / start)
        assert same(load(folder), load(MODELS / start))
    assert failures == 4, "one per file"


@pytest.mark.slow  # the test of every point, above, is the quick one
def test_sigkill(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.engine.killed_run", "tests.learner.killed_save"])
    for moment, expected in (("before", old_classifier()), ("after", new_classifier())):
        folder = tmp_path / moment
        old_classifier().save(folder)
        process = processes.Process(target=save_and_die, args=(folder, moment))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert names(folder) > FILES, "files must be waiting"
        assert same(load(folder), expected)


def test_a_reader_meets_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy(MODELS / "format-2", tmp_path / "model")
    unseal, new = contents.unseal, new_classifier()

    def saved_meanwhile(path: Path, data: bytes) -> object:
        description = unseal(path, data)
        monkeypatch.setattr(contents, "unseal", unseal)
        new.save(folder)
        return description

    monkeypatch.setattr(contents, "unseal", saved_meanwhile)
    assert same(load(folder), new)


def test_two_savers(tmp_path: Path) -> None:
    folder = copy(MODELS / "format-2", tmp_path / "model")
    with (
        FileLock(folder / LOCK),
        pytest.raises(OutputError, match=r"Another process is saving .* Wait"),
    ):
        new_classifier().save(folder)
    assert same(load(folder), old_classifier())


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file' cannot be written \(File exists\)\. Choose"):
        old_classifier().save(tmp_path / "file")
    folder = copy(MODELS / "format-2", tmp_path / "model")

    read_bytes = Path.read_bytes

    def lying(path: Path) -> bytes:
        return b"" if path.name.startswith("weights-") else read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", lying)
    with pytest.raises(CheckpointError, match=r"was written, but reads otherwise\. .* is whole"):
        new_classifier().save(folder, keep_versions=0)
    monkeypatch.undo()
    assert names(folder) == FILES
    assert same(load(folder), old_classifier())
