"""Start-up times: commands that only look something up, and `perdure predict` up to its forward.

    python benchmarks/speed/startup.py [--rounds 5] [--against OTHER/src]

Look-ups are timed as whole processes, in turn with those of another tree, if one is named: seconds by
the clock, and of the processor, which other work beside it moves less. Predicting is timed up to the
first forward of the backbone and compared, in turn in one run, with importing torch and timm and
building the same backbone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from perdure import ContinualClassifier

BACKBONE = "vit_base_patch16_224.augreg_in21k"
LOOKUPS = (
    "ls methods",
    "ls presets",
    "ls data",
    "ls backbones",
    "ls heads",
    "ls transforms",
    "show nsp2",
    "show digits/nsp2",
    "show digits",
    "show gaussian",
    "show run",
    "show clip_vit_base_patch16",
    "show MODEL",
    "show nspp2",
    "run digits/nsp2 epoch=3 --dry-run",
    "tune digits/nsp2 epoch=3",
    "learn NEW photos epoch=3",
    "--help",
)
"""MODEL stands for a saved model's folder, NEW for one that does not exist."""
BUILD = f"""
import torch, timm
from perdure.backbones.catalog import create_backbone
create_backbone({BACKBONE!r}, weights="random", precision="fp32")
"""
PREDICT = """
import os, sys
from perdure.backbones.frozen import FrozenBackbone
FrozenBackbone.forward = FrozenBackbone.__call__ = lambda *_, **__: os._exit(0)
from perdure.cli.main import main
main(["predict", *sys.argv[1:]])
"""
"""Ends where the forward would begin."""


def seconds(*words: str, src: str = "") -> tuple[float, float]:
    """Run a process of this interpreter; return how long it took by clock and processor."""
    env = {**os.environ, "PYTHONPATH": src} if src else None
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=False, env=env)
    clock, after = time.perf_counter() - began, os.times()
    user = after.children_user - before.children_user
    return clock, user + after.children_system - before.children_system


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", metavar="SRC", help="src of another tree")
    args = parser.parse_args()
    rounds, trees = args.rounds, ["", *([args.against] if args.against else [])]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_model(folder / "model")
        picture = folder / "picture.png"
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(picture)
        for words in LOOKUPS:
            paths = {"MODEL": str(folder / "model"), "NEW": str(folder / "new")}
            command = ["-m", "perdure.cli", *(paths.get(word, word) for word in words.split())]
            times = [[seconds(*command, src=src) for src in trees] for _ in range(rounds)]
            for number, src in enumerate(trees):
                both = zip(*(one[number] for one in times), strict=True)
                clock, cpu = map(statistics.median, both)
                print(f"{clock:6.2f} s ({cpu:.2f} s of CPU)  perdure {words}  {src}")
        predict = ("-c", PREDICT, str(folder / "model"), str(picture))
        pairs = [(seconds("-c", BUILD)[0], seconds(*predict)[0]) for _ in range(rounds)]
    builds, predictions = zip(*pairs, strict=True)
    ratio = statistics.median(late / early for early, late in pairs)
    print(f"{statistics.median(builds):6.2f} s  torch and timm imported, the backbone built")
    print(f"{statistics.median(predictions):6.2f} s  perdure predict, up to its forward")
    print(f"{ratio:6.2f}    ratio of the two, median of {rounds} pairs")


def save_model(folder: Path) -> None:
    """Teach two classes of noise and save them."""
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    options = {"weights": "random", "precision": "fp32"}
    ContinualClassifier("lda", BACKBONE, options=options).learn(images, list("aabb")).save(folder)


if __name__ == "__main__":
    main()
