"""Looking something up waits for nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import classifier

HEAVY = ("torch", "timm", "torchvision", "sklearn", "scipy", "matplotlib", "datasets", "onnx")
CODE = """
import sys
from perdure.cli.main import main
code = main(sys.argv[2:])
loaded = sorted(set(sys.argv[1].split(",")) & set(sys.modules))
print(code, *loaded, file=sys.stderr)
"""
LOOKUPS = {
    "ls methods": 0,
    "ls presets": 0,
    "ls data": 0,
    "ls backbones": 0,
    "ls heads": 0,
    "ls transforms": 0,
    "show nsp2": 0,
    "show digits/nsp2": 0,
    "show digits": 0,
    "show gaussian": 0,
    "show run": 0,
    "show clip_vit_base_patch16": 0,
    "show MODEL": 0,
    "show nspp2": 2,
    "run digits/nsp2 epoch=3 --dry-run": 2,
    "nonsense": 2,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("startup") / "model"
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    classifier().learn(images, list("aabb")).save(folder)
    return folder


@pytest.mark.parametrize("words", LOOKUPS)
def test_a_lookup_imports_nothing_heavy(words: str, model: Path) -> None:
    command = words.replace("MODEL", str(model)).split()
    done = subprocess.run(
        [sys.executable, "-c", CODE, ",".join(HEAVY), *command],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines()[-1].split() == [str(LOOKUPS[words])]
