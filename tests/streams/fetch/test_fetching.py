"""From a publisher's server, or a file put by hand, to a folder that is whole or not there."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from perdure.cache import archives_dir
from perdure.errors import ChecksumError, OutputError, PerdureError, StreamError
from perdure.streams.fetch import download, fetching, unpacking
from perdure.streams.fetch.fetching import MANIFEST, fetch
from perdure.streams.fetch.published import PUBLISHED
from tests.streams.published import (
    NOWHERE,
    Server,
    cub_members,
    imagenet_members,
    offer,
    serving,
    write_imagenet_a,
    write_tar,
    write_zip,
)

ARCHIVE = "imagenet-a.tar"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "_BLOCK", 1000)
    return tmp_path / "home" / "data"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that offers ImageNet-A."""
    write_imagenet_a(tmp_path / "offered")
    with serving(tmp_path / "offered") as (running, url):
        offer(monkeypatch, "imagenet_a", url)
        yield running


def left(home: Path) -> list[str]:
    """Whatever a fetch left beside locks."""
    files = (path.relative_to(home).as_posix() for path in home.rglob("*"))
    return sorted(name for name in files if not name.endswith(".lock"))


def put(name: str, content: bytes) -> Path:
    (archives_dir() / name).write_bytes(content)
    return archives_dir() / name


def test_from_the_server_to_a_folder(server: Server, home: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    folder = fetch(PUBLISHED["imagenet_a"], lambda *words: told.append(words))
    assert folder == home / "imagenet_a"
    archive = (server.folder / ARCHIVE).read_bytes()
    assert json.loads((folder / MANIFEST).read_text()) == {
        "benchmark": "imagenet_a",
        "publisher": "https://github.com/hendrycks/natural-adv-examples",
        "from": [
            {
                "file": ARCHIVE,
                "bytes": len(archive),
                "sha256": hashlib.sha256(archive).hexdigest(),
                "files": 16,
            }
        ],
    }
    for name, content in imagenet_members("imagenet-a").items():
        assert (folder / name).read_bytes() == content
    assert told[0] == (f"fetching {ARCHIVE}", 1000, len(archive))
    assert told[-1] == (f"unpacking {ARCHIVE}", len(archive), len(archive))
    assert left(home / "archives") == []  # it was downloaded, so it is not kept
    fetch(PUBLISHED["imagenet_a"])
    assert server.asked == [""]


def test_a_killed_download_goes_on(server: Server, home: Path) -> None:
    def kill(what: str, done: int, total: int | None) -> None:
        if done >= 5000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(PUBLISHED["imagenet_a"], kill)
    assert left(home) == ["archives", f"archives/{ARCHIVE}.part", f"archives/{ARCHIVE}.part.tag"]
    fetch(PUBLISHED["imagenet_a"])
    assert server.asked == ["", "bytes=5000-"]
    assert left(home / "archives") == []


def test_a_download_that_cannot_be_renamed_is_told_and_goes_on(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refuse)
        with pytest.raises(OutputError, match=r"cannot be changed \(Input/output error\)"):
            fetch(PUBLISHED["imagenet_a"])
    fetch(PUBLISHED["imagenet_a"])
    assert not any("archives/" in name for name in left(home))


def test_a_connection_that_ends_early_is_taken_up(server: Server) -> None:
    server.cuts = [3000, 2000]
    fetch(PUBLISHED["imagenet_a"])
    assert server.asked == ["", "bytes=3000-", "bytes=5000-"]


def test_a_connection_that_brings_nothing_more_ends_it(server: Server, home: Path) -> None:
    server.cuts = [3000, 0]
    with pytest.raises(StreamError, match=r"ended after 3,000 of [\d,]+ bytes") as caught:
        fetch(PUBLISHED["imagenet_a"])
    assert f"3,000 bytes of it are kept in '{home / 'archives' / ARCHIVE}.part'" in str(
        caught.value
    )
    fetch(PUBLISHED["imagenet_a"])
    assert server.asked[-1] == "bytes=3000-"


def test_another_version_is_fetched_from_its_beginning(server: Server, home: Path) -> None:
    server.cuts = [3000, 0]
    with pytest.raises(StreamError):
        fetch(PUBLISHED["imagenet_a"])
    part = home / "archives" / f"{ARCHIVE}.part"
    part.write_bytes(b"old" * 1000)
    server.version = "two"
    fetch(PUBLISHED["imagenet_a"])
    assert (home / "imagenet_a" / "imagenet-a" / "README.txt").is_file()


@pytest.mark.parametrize("more", [b"", b"too much"])
def test_a_part_that_is_all_there(server: Server, home: Path, more: bytes) -> None:
    content = (server.folder / ARCHIVE).read_bytes() + more
    put(f"{ARCHIVE}.part", content)
    put(f"{ARCHIVE}.part.tag", b'"one"')
    fetch(PUBLISHED["imagenet_a"])
    assert server.asked == [f"bytes={len(content)}-", ""][: 1 + bool(more)]
    assert left(home / "archives") == []


def test_a_host_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path
) -> None:
    published = offer(monkeypatch, "imagenet_a")
    file = replace(published.files[0], md5="0" * 32)
    offer(monkeypatch, "imagenet_a", files=(file,), advice="sudo apt install imagenet")
    with pytest.raises(StreamError) as caught:
        fetch(PUBLISHED["imagenet_a"])
    refused = OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    assert str(caught.value) == (
        f"'{ARCHIVE}' of ImageNet-A could not be fetched ({refused}).\n"
        f"Fetch elsewhere:\n  {NOWHERE}/{ARCHIVE} (about 690 MB, md5 {'0' * 32})\n"
        f"Put what you fetched into '{home / 'archives'}', as it is, or type: sudo apt install "
        "imagenet.\nThen type: perdure data fetch imagenet_a"
    )
    assert left(home) == ["archives"]
    offer(monkeypatch, "imagenet_a")
    write_imagenet_a(home / "archives")  # as the message says
    assert fetch(PUBLISHED["imagenet_a"]) == home / "imagenet_a"
    assert left(home / "archives") == [ARCHIVE]  # it is the user's


def test_every_file_that_is_wanted_is_named(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    published = offer(monkeypatch, "domainnet200")
    put("clipart.zip", b"")
    with pytest.raises(StreamError) as caught:
        fetch(published)
    named = [f"{domain}.zip" in str(caught.value) for domain in published.holds]
    assert named == [False, True, True, True, True, True]


def test_a_file_that_the_server_does_not_have(server: Server, home: Path) -> None:
    (server.folder / ARCHIVE).unlink()
    with pytest.raises(StreamError, match="HTTP Error 404"):
        fetch(PUBLISHED["imagenet_a"])
    assert left(home) == ["archives"]


def test_a_wrong_checksum(server: Server, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    file = replace(PUBLISHED["imagenet_a"].files[0], md5="0" * 32)
    published = replace(PUBLISHED["imagenet_a"], files=(file,))
    content = (server.folder / ARCHIVE).read_bytes()
    found = hashlib.md5(content).hexdigest()
    with pytest.raises(ChecksumError) as caught:
        fetch(published)
    for part in (f"has md5 {found}, not {'0' * 32}", "It was removed", published.publisher):
        assert part in str(caught.value)
    assert left(home) == ["archives"]
    path = put(ARCHIVE, content)
    with pytest.raises(ChecksumError, match=f"Remove '{path}'; nothing was unpacked"):
        fetch(published)
    assert path.read_bytes() == content
    assert fetch(replace(published, files=(replace(file, md5=found),))) == home / "imagenet_a"


def tar_of(info: tarfile.TarInfo, content: bytes = b"") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("imagenet-a/ok.txt"))
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def special(kind: bytes, name: str = "imagenet-a/x.jpg", target: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return tar_of(info)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tar_of(tarfile.TarInfo("../evil.txt"), b"x"), "'../evil.txt' would lie outside"),
        (tar_of(tarfile.TarInfo("imagenet-a/../../evil"), b"x"), "would lie outside its folder"),
        (tar_of(tarfile.TarInfo("/tmp/perdure-evil"), b"x"), "would lie outside its folder"),
        (special(tarfile.DIRTYPE, "../evil"), "would lie outside its folder"),
        (special(tarfile.SYMTYPE, target="/etc/passwd"), r"x\.jpg' is a link or device"),
        (special(tarfile.SYMTYPE, target="ok.txt"), "is a link or device"),
        (special(tarfile.LNKTYPE, target="imagenet-a/ok.txt"), "is a link or device"),
        (special(tarfile.FIFOTYPE), "is a link or device"),
        (special(tarfile.CHRTYPE), "is a link or device"),
    ],
)
def test_an_archive_that_is_not_to_be_trusted(
    monkeypatch: pytest.MonkeyPatch, home: Path, content: bytes, reason: str
) -> None:
    offer(monkeypatch, "imagenet_a")
    put(ARCHIVE, content)
    with pytest.raises(StreamError, match=reason):
        fetch(PUBLISHED["imagenet_a"])
    assert left(home) == ["archives", f"archives/{ARCHIVE}"]
    assert not list(home.parent.parent.rglob("*evil*"))


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("../evil.txt", 0, "would lie outside its folder"),
        ("/evil.txt", 0, "would lie outside its folder"),
        ("link", 0o120777, "'link' is a link or device"),
    ],
)
def test_a_zip_that_is_not_to_be_trusted(tmp_path: Path, name: str, mode: int, reason: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, b"target")
    (tmp_path / "out").mkdir()
    with pytest.raises(StreamError, match=reason):
        unpacking.unpack(tmp_path / "a.zip", tmp_path / "out", lambda done: None)
    assert list((tmp_path / "out").iterdir()) == []
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("name", ["bomb.tgz", "bomb.zip"])
def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    members = {"zeros.jpg": bytes(4_000_000)}
    path = tmp_path / name
    write_zip(path, members) if name == "bomb.zip" else write_tar(path, members, "w:gz")
    (tmp_path / "out").mkdir()

    def unpack() -> int:
        return unpacking.unpack(path, tmp_path / "out", lambda done: None)

    with pytest.raises(StreamError, match=r"may be a bomb: .* or [\d,]+ bytes"):
        unpack()
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.setattr(unpacking, "MOST_RATIO", 10_000)
    assert unpack() == 1
    for limit in ("MOST_ENTRIES", "MOST_BYTES"):
        with monkeypatch.context() as patched:
            patched.setattr(unpacking, limit, 0)
            with pytest.raises(StreamError, match="may be a bomb"):
                unpack()


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.zip"])
@pytest.mark.parametrize("length", [0, 100, 5_000, 7_168, 7_500, 12_000, None])
def test_an_archive_that_is_not_whole(tmp_path: Path, name: str, length: int | None) -> None:
    # In the tar the third file begins at 7,168, and its content at 7,680.
    members = {f"{index}.bin": os.urandom(3000) for index in range(4)}
    path = tmp_path / name
    if name == "a.zip":
        write_zip(path, members)
    else:
        write_tar(path, members, "w" if name == "a.tar" else "w:gz")
    cut = b"<html>Not found</html>" if length is None else path.read_bytes()[:length]
    path.write_bytes(cut)
    (tmp_path / "out").mkdir()
    with pytest.raises(StreamError, match=r"is damaged or not whole \(.+\)\. Remove it and fetch"):
        unpacking.unpack(path, tmp_path / "out", lambda done: None)


def test_a_size_below_zero_is_no_room_for_more(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = -(2**40)
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    (tmp_path / "out").mkdir()
    with pytest.raises(StreamError, match=r"may be a bomb|is damaged"):
        unpacking.unpack(tmp_path / "a.tar", tmp_path / "out", lambda done: None)


def test_an_archive_without_what_the_loader_needs(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    offer(monkeypatch, "cub200")
    members = cub_members()
    del members["CUB_200_2011/train_test_split.txt"]
    write_tar(archives_dir() / "CUB_200_2011.tgz", members, "w:gz")
    with pytest.raises(
        StreamError, match=r"There is no 'CUB_200_2011/train_test_split.txt' in what was unpacked"
    ):
        fetch(PUBLISHED["cub200"])
    assert left(home) == ["archives", "archives/CUB_200_2011.tgz"]


def test_what_is_in_the_way_is_left_alone(server: Server, home: Path) -> None:
    (home / "imagenet_a" / "imagenet-r").mkdir(parents=True)
    with pytest.raises(StreamError, match=r"exists, but does not hold 'imagenet-a'. Put that in"):
        fetch(PUBLISHED["imagenet_a"])
    assert left(home) == ["archives", "imagenet_a", "imagenet_a/imagenet-r"]
    assert server.asked == []
    (home / "imagenet_a" / "imagenet-r").rmdir()
    fetch(PUBLISHED["imagenet_a"])  # an empty folder is not in the way


def test_what_a_killed_process_left_is_removed(server: Server, home: Path) -> None:
    (home / ".imagenet_a.making" / "imagenet-a" / "half").mkdir(parents=True)
    folder = fetch(PUBLISHED["imagenet_a"])
    assert not (folder / "imagenet-a" / "half").exists()
    assert not (home / ".imagenet_a.making").exists()


def test_two_processes_do_not_write_the_same_files(server: Server, home: Path) -> None:
    with (
        FileLock(archives_dir() / ".imagenet_a.lock"),
        pytest.raises(StreamError, match="Another process is fetching 'imagenet_a'"),
    ):
        fetch(PUBLISHED["imagenet_a"])
    assert left(home) == ["archives"]


@pytest.mark.parametrize(("module", "function"), [(os, "fsync"), (shutil, "copyfileobj")])
def test_a_disk_that_fills_up(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch, module: object, function: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(module, function, full)
        with pytest.raises(OutputError, match=r"[Ff]ree some.*PERDURE_HOME"):
            fetch(PUBLISHED["imagenet_a"])
    assert not (home / "imagenet_a").exists()
    assert not (home / ".imagenet_a.making").exists()
    fetch(PUBLISHED["imagenet_a"])


def test_an_error_at_the_last_moment(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fetching, "atomic_write", broken)
        with pytest.raises(KeyboardInterrupt):
            fetch(PUBLISHED["imagenet_a"])
    assert left(home) == ["archives", f"archives/{ARCHIVE}", f"archives/{ARCHIVE}.fetched"]
    # What was downloaded is not taken for the user's: once it is unpacked, it goes.
    fetch(PUBLISHED["imagenet_a"])
    assert (len(server.asked), left(home / "archives")) == (1, [])


def test_what_was_downloaded_is_removed_however_late_the_process_was_killed(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fetching, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(PUBLISHED["imagenet_a"])
    assert left(home / "archives") == [ARCHIVE, f"{ARCHIVE}.fetched"]
    assert fetch(PUBLISHED["imagenet_a"]) == home / "imagenet_a"
    assert left(home / "archives") == []
    (home / "archives" / f"{ARCHIVE}.part").write_bytes(b"of before it was put there by hand")
    fetch(PUBLISHED["imagenet_a"])
    assert left(home / "archives") == []


def test_an_interrupt_while_a_download_is_checked_keeps_it(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(download, "_check", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(PUBLISHED["imagenet_a"])
    assert f"archives/{ARCHIVE}.part" in left(home)
    fetch(PUBLISHED["imagenet_a"])
    assert len(server.asked) == 2  # the second is told that it has all of it
    assert left(home / "archives") == []


def test_a_url_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "imagenet_a", "nonsense")
    with pytest.raises(PerdureError, match="could not be fetched"):
        fetch(PUBLISHED["imagenet_a"])
