"""Atomic writes: the whole new content, or the whole old one and a clear reason."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perdure.atomic import alone, atomic_folder, atomic_write, check_place
from perdure.errors import OutputError


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    path.write_bytes(b"old")
    return path


def assert_untouched(target: Path) -> None:
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("data", [b"", b"new", bytes(range(256)) * 5000])
def test_replaces_the_whole_content(target: Path, data: bytes) -> None:
    atomic_write(target, data)
    assert target.read_bytes() == data
    assert list(target.parent.iterdir()) == [target]


def test_makes_a_new_file_with_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    atomic_write(str(tmp_path / "new"), b"new")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "new")]
    assert modes[0] == modes[1]


def test_takes_a_name_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    atomic_write("plain", b"new")
    assert (tmp_path / "plain").read_bytes() == b"new"


def test_a_symbolic_link_stays_a_link(target: Path) -> None:
    link = target.with_name("link")
    link.symlink_to(target)
    atomic_write(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


CAUSES = {
    errno.ENOSPC: r"the disk is full .* \(3 bytes were to be written\)\. Free some space",
    errno.EDQUOT: r"the disk is full or your quota is used up",
    errno.EACCES: r"does not permit you to write in '.*'\. Choose another folder",
    errno.EPERM: r"does not permit you to write",
    errno.EROFS: r"the file system is read-only",
    errno.EIO: os.strerror(errno.EIO),
}


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("number", CAUSES)
def test_a_failure_leaves_the_old_file_and_says_why(
    target: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    monkeypatch.setattr(os, step, failing(number))
    with pytest.raises(OutputError, match=CAUSES[number]) as raised:
        atomic_write(target, b"new")
    text = str(raised.value)
    assert text.startswith(f"Cannot write '{target}': ")
    assert text.endswith("Nothing was changed.")
    assert_untouched(target)


def test_an_interrupt_leaves_the_old_file(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(target, b"new")
    assert_untouched(target)


def test_a_folder_that_cannot_be_synced_is_no_failure(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", failing(errno.EACCES))
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new"


def test_a_folder_whose_sync_fails_is_told(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def broken(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OutputError, match=r"may not last through a power cut.*Check the disk"):
        atomic_write(target, b"new")
    assert target.read_bytes() == b"new"


def test_what_a_killed_write_left_goes_with_the_next(target: Path) -> None:
    if (child := os.fork()) == 0:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        atomic_write(target, b"never")
    os.waitpid(child, 0)
    (left,) = target.parent.glob(".perdure-*")
    alive = left.with_name(left.name.replace(f"-{child}-", f"-{os.getppid()}-"))
    elsewhere = left.with_name(left.name.replace(left.name[9:17], "0" * 8))
    older = left.with_name(".perdure-0123456789abcdef.tmp")
    for path in (alive, elsewhere, older):
        path.write_bytes(b"being written")
    os.utime(older, (0, 0))
    atomic_write(target, b"new")
    assert set(target.parent.iterdir()) == {target, alive, elsewhere}


def test_a_folder_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with alone(tmp_path / "new", "working"), alone(tmp_path / "new", "working"):
        assert [path.name for path in (tmp_path / "new").iterdir()] == [".lock"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [(), ("kept",)])
def test_a_folder_of_that_name_is_refused(tmp_path: Path, content: tuple[str, ...]) -> None:
    folder = tmp_path / "results.json"
    folder.mkdir()
    for name in content:
        (folder / name).touch()
    with pytest.raises(OutputError, match=r"a folder of that name exists\. Choose another name"):
        atomic_write(folder, b"new")
    assert list(tmp_path.iterdir()) == [folder]
    assert [path.name for path in folder.iterdir()] == list(content)


def test_a_parent_that_is_a_file_is_named(target: Path) -> None:
    with pytest.raises(OutputError, match=f"'{target}' is not a folder"):
        atomic_write(target / "deeper" / "file", b"new")
    assert_untouched(target)


def test_the_outermost_missing_folder_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "runs"
    with pytest.raises(OutputError, match=rf"'{missing}' is missing\. .*mkdir -p '{missing}/one'"):
        atomic_write(missing / "one" / "file", b"new")
    assert not list(tmp_path.iterdir())


def test_a_place_is_checked_without_creating_it(target: Path) -> None:
    assert check_place(target.parent / "new" / "er") == target.parent
    with pytest.raises(OutputError, match=r"json' is a file, not a folder\. Choose another place"):
        check_place(target / "below")
    assert_untouched(target)


def test_a_name_too_long_for_the_file_system(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=os.strerror(errno.ENAMETOOLONG)):
        atomic_write(tmp_path / ("x" * 300), b"new")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(target: Path) -> None:
    target.parent.chmod(0o555)
    try:
        with pytest.raises(OutputError, match="does not permit you to write in"):
            atomic_write(target, b"new")
    finally:
        target.parent.chmod(0o755)
    assert_untouched(target)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    try:
        mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk is not permitted here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_disk_that_is_really_full(full_disk: Path) -> None:
    target = full_disk / "results.json"
    target.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"the disk is full .* \(100,000 bytes"):
        atomic_write(target, bytes(100_000))
    assert_untouched(target)


def test_a_folder_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    made, left = tmp_path / "made", tmp_path / ".made.making"
    left.mkdir()
    (left / "half").write_text("of a killed process")

    def fail() -> None:
        with atomic_folder(made, "It failed") as work:
            (work / "one").write_text("1")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OutputError, match=r"^It failed in '.*' \(full\)\. Free some space"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(made, "It failed") as work:
        (work / "one").write_text("1")
        assert not made.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert [path.name for path in made.iterdir()] == ["one"]
