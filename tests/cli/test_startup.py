"""Looking something up waits for nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import classifier

HEAVY = (
    "torch",
    "timm",
    "torchvision",
    "sklearn",
    "scipy",
    "matplotlib",
    "datasets",
    "onnx",
    "ray",
)
NUMERIC = ("numpy", "jaxtyping")
"""What takes a tenth of a second or two, and is needed for pictures alone."""
CODE = """
import json, sys
from perdure.cli.main import main
heavy, *commands = json.loads(sys.argv[1])
said = []
for command in commands:
    code = main(command)
    said.append([code, *sorted(set(heavy) & set(sys.modules))])
print(json.dumps(said), file=sys.stderr)
"""
WITHOUT_NUMPY = {
    "ls methods": 0,
    "ls presets": 0,
    "ls heads": 0,
    "ls transforms": 0,
    "show digits/nsp2": 0,
    "show run": 0,
    "show MODEL": 0,
    "run digits/nsp2 epoch=3 --dry-run": 2,
    "tune digits/nsp2 epoch=3": 2,
    "tune digits/nsp2 --space epoch=1,2": 2,
    "learn NEW photos epoch=3": 2,
    "learn MODEL photos lr=-1": 2,
    "predict MODEL photos --ray": 2,
    "run digits/nsp2 --cpus 2": 2,
    "tune digits/nsp2 epoch=3 --ray": 2,
    "nonsense": 2,
}
WITH_NUMPY = {
    "ls data": 0,
    "ls backbones": 0,
    "show nsp2": 0,
    "show digits": 0,
    "show gaussian": 0,
    "show clip_vit_base_patch16": 0,
    "show nspp2": 2,
}


@pytest.mark.long
def test_a_lookup_imports_nothing_heavy(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    classifier().learn(images, list("aabb")).save(tmp_path / "model")
    for lookups, heavy in ((WITHOUT_NUMPY, (*HEAVY, *NUMERIC)), (WITH_NUMPY, HEAVY)):
        paths = {"MODEL": str(tmp_path / "model"), "NEW": str(tmp_path / "new")}
        commands = [[paths.get(word, word) for word in words.split()] for words in lookups]
        done = subprocess.run(
            [sys.executable, "-c", CODE, json.dumps([heavy, *commands])],
            capture_output=True,
            text=True,
            check=True,
        )
        said = json.loads(done.stderr.splitlines()[-1])
        assert dict(zip(lookups, said, strict=True)) == {
            words: [code] for words, code in lookups.items()
        }
