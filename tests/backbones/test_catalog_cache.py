"""Where the cache is, on each platform, and what is said when it cannot be used."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from perdure.cache import archives_dir, home, sha256_of, weights_dir
from perdure.errors import OutputError


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PERDURE_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("linux", ".cache/perdure"),
        ("darwin", "Library/Caches/perdure"),
        ("win32", "AppData/Local/perdure"),
    ],
)
def test_home(
    platform: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    assert home() == tmp_path / expected
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert home() == tmp_path / expected
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert home() == tmp_path / "xdg" / "perdure"
    monkeypatch.setenv("PERDURE_HOME", "~/own")
    assert home() == tmp_path / "own"
    assert not home().exists()


def test_folders_are_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "a" / "b"))
    assert weights_dir() == tmp_path / "a" / "b" / "weights"
    assert archives_dir() == tmp_path / "a" / "b" / "data" / "archives"
    assert weights_dir().is_dir()
    assert archives_dir().is_dir()


def test_a_cache_that_cannot_be_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"file/weights cannot be created .*Set PERDURE_HOME"):
        weights_dir()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match=r"archives cannot be written\. Set PERDURE_HOME"):
        archives_dir()


def test_no_home_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    with pytest.raises(OutputError, match=r"No home folder .* Set PERDURE_HOME"):
        home()


def test_sha256_of(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(content)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(content).hexdigest()
