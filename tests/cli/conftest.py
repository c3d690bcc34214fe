"""The command in this process, on runs of a second; no network and nobody's cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perdure.cli.main import main
from tests.cli.command import Perdure, Said
from tests.tiny import TINY, WORDS


@pytest.fixture(autouse=True)
def alone(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """Give a test a cache and a working folder of its own, and no network."""
    if request.node.get_closest_marker("weights") is None:
        monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model only loses by more
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def perdure(capsys: pytest.CaptureFixture[str]) -> Perdure:
    """Run the command and return its exit code and what it wrote."""

    def run(*words: object) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in words])
        written = capsys.readouterr()
        return Said(code, written.out, written.err)

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main(["run", "digits/nsp2", *TINY, "--out", str(out), "-q"]) == 0
    return out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with three classes of four images."""
    for place, name in enumerate(("cat", "dog", "eel")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((9, 12, 3), 70 * place + number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def own_images(photos: Path) -> list[str]:
    """Return overrides that learn the photos, one class after two."""
    return [*WORDS, f"data={photos}", "tasks=2+1", "epochs=1"]
