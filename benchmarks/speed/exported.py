"""Exported files: size, time, agreement with fp32 and accuracy of every format and precision.

    perdure learn clothes PHOTOS/train
    python benchmarks/speed/exported.py clothes PHOTOS --out FOLDER

PHOTOS holds train/ and test/, each with a folder per class. A file that is not in FOLDER yet is
exported by `export_model` with `--images` drawn images of train/, which int8 is calibrated and checked
on; those that are not written say what was tried. Then all images of test/ are asked of each. Times are
of one image, a round of all files in turn, after one round that is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perdure.errors import ExportError
from perdure.learner import ContinualClassifier
from perdure.learner.export.exported import export_model
from perdure.learner.export.formats import Run, format_of
from perdure.learner.export.rounding import PRECISIONS
from perdure.learner.labelled import LabelledImages, Side, gather
from perdure.randomness import permutation

FILES = tuple(f"{precision}{end}" for end in (".onnx", ".xml") for precision in PRECISIONS)
BASE = FILES[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--files", default=",".join(FILES), help="their names, joined by commas")
    parser.add_argument("--images", type=int, default=450)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    classifier = ContinualClassifier.load(args.model, device="cpu")
    drawn = pictures(classifier, args.photos, "train")
    handed = [drawn.images.names[k] for k in permutation(len(drawn.images), 0, "export")]
    made: dict[str, Path] = {}
    for name in (BASE, *(one for one in FILES[1:] if one in args.files.split(","))):
        path = args.out / name
        try:
            if not path.exists():
                tried = exported(classifier, path, handed[: args.images])
                print(f"{name}: {tried or 'written'}", flush=True)
            made[name] = path
        except ExportError as error:
            print(f"{name}: {error}", flush=True)
    runs = {name: runner(path) for name, path in made.items()}
    asked = pictures(classifier, args.photos, "test")
    transform = classifier.state_.transform
    pixels = [transform(asked.images.image(place))[None] for place in range(len(asked.images))]
    names = classifier.classes_.tolist()
    labels = np.array([names.index(asked.names[label]) for label in asked.images.labels])
    answers = {
        name: np.array([int(run(one)[0].argmax()) for one in pixels]) for name, run in runs.items()
    }
    seconds = timed(runs, pixels[: args.rounds + 1])
    print(f"\n{len(labels)} images; {torch.get_num_threads()} threads\n")
    print("| file | MiB | ms per image | of fp32 ONNX | agree with it | accuracy |")
    print("| :-- | --: | --: | --: | --: | --: |")
    for name, path in made.items():
        ratio = statistics.median(b / a for a, b in zip(seconds[BASE], seconds[name], strict=True))
        agree, right = (answers[name] == answers[BASE]).mean(), (answers[name] == labels).mean()
        size = sum(map(len, contents(path).values()))
        print(
            f"| `{name}` | {size / 2**20:.1f} | {1e3 * statistics.median(seconds[name]):.0f} | "
            f"{ratio:.2f} | {100 * agree:.1f} % | {100 * right:.1f} % |"
        )


def exported(classifier: ContinualClassifier, path: Path, handed: Sequence[str]) -> str:
    """Export a file, and return what was tried."""
    precision: Any = path.stem
    made = export_model(classifier, path, pictures=handed, precision=precision)
    return "; ".join(map(str, made.attempts))


def pictures(classifier: ContinualClassifier, photos: Path, side: Side) -> LabelledImages:
    config = classifier.state_.model.config
    return gather(photos, None, side, config.stream, 0)


def contents(path: Path) -> dict[str, bytes]:
    """What a file consists of, by ending."""
    ends = (".bin", ".xml") if path.suffix == ".xml" else (path.suffix,)
    return {end: path.with_suffix(end).read_bytes() for end in ends}


def runner(path: Path) -> Run:
    """The file that was written, as its runtime runs it."""
    return format_of(path).runner(contents(path))


def timed(runs: dict[str, Run], pixels: list[Tensor]) -> dict[str, list[float]]:
    """Seconds of every image by every file, in turn, but for the first."""
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    for one in pixels:
        for key, run in runs.items():
            began = time.perf_counter()
            run(one)
            seconds[key].append(time.perf_counter() - began)
    return {key: values[1:] for key, values in seconds.items()}


if __name__ == "__main__":
    main()
