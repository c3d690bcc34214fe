"""Exported files: size, time, agreement with fp32 and accuracy of every format and precision.

    perdure learn clothes PHOTOS/train
    python benchmarks/speed/exported.py clothes PHOTOS --out FOLDER

PHOTOS holds train/ and test/, each with a folder per class. Every file is exported by
`export_model` with `--images` drawn images of train/, which int8 is calibrated and checked on;
those that are not written say what was tried. Then all images of test/ are asked of each. Times are
of one image, a round of all files in turn, after one round that is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perdure.errors import ExportError
from perdure.learner import ContinualClassifier
from perdure.learner.export.exported import Exported, export_model
from perdure.learner.export.formats import Run, format_of
from perdure.learner.export.rounding import PRECISIONS, Precision
from perdure.learner.labelled import LabelledImages, Side, gather
from perdure.randomness import permutation

FILES: list[tuple[str, Precision]] = [
    (suffix, precision) for suffix in (".onnx", ".xml") for precision in PRECISIONS
]
BASE = FILES[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--formats", default=".onnx,.xml", help="endings, joined by commas")
    parser.add_argument("--images", type=int, default=450)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    classifier = ContinualClassifier.load(args.model, device="cpu")
    drawn = pictures(classifier, args.photos, "train")
    handed = [drawn.images.names[k] for k in permutation(len(drawn.images), 0, "export")]
    made = {}
    for suffix, precision in FILES:
        if suffix not in args.formats.split(","):
            continue
        path = args.out / f"{precision}{suffix}"
        try:
            made[suffix, precision] = export_model(
                classifier, path, pictures=handed[: args.images], precision=precision
            )
        except ExportError as error:
            print(f"{suffix} {precision}: {error}", flush=True)
            continue
        tried = "; ".join(map(str, made[suffix, precision].attempts))
        print(f"{suffix} {precision}: {tried or 'written'}", flush=True)
    runs = {key: runner(one) for key, one in made.items()}
    asked = pictures(classifier, args.photos, "test")
    transform = classifier.state_.transform
    pixels = [transform(asked.images.image(place))[None] for place in range(len(asked.images))]
    names = classifier.classes_.tolist()
    labels = np.array([names.index(asked.names[label]) for label in asked.images.labels])
    answers = {
        key: np.array([int(run(one)[0].argmax()) for one in pixels]) for key, run in runs.items()
    }
    seconds = timed(runs, pixels[: args.rounds + 1])
    print(f"\n{len(labels)} images; {torch.get_num_threads()} threads\n")
    print("| file | MiB | ms per image | of fp32 ONNX | agree with it | accuracy |")
    print("| :-- | --: | --: | --: | --: | --: |")
    for key, one in made.items():
        ratio = statistics.median(b / a for a, b in zip(seconds[BASE], seconds[key], strict=True))
        agree, right = (answers[key] == answers[BASE]).mean(), (answers[key] == labels).mean()
        print(
            f"| `{key[1]}{key[0]}` | {one.bytes / 2**20:.1f} | "
            f"{1e3 * statistics.median(seconds[key]):.0f} | {ratio:.2f} | {100 * agree:.1f} % | "
            f"{100 * right:.1f} % |"
        )


def pictures(classifier: ContinualClassifier, photos: Path, side: Side) -> LabelledImages:
    config = classifier.state_.model.config
    return gather(photos, None, side, config.stream, 0)


def runner(made: Exported) -> Run:
    """The file that was written, as its runtime runs it."""
    target = format_of(made.path)
    suffixes = (".bin", ".xml") if target.suffix == ".xml" else (target.suffix,)
    return target.runner({end: made.path.with_suffix(end).read_bytes() for end in suffixes})


def timed(
    runs: dict[tuple[str, Precision], Run], pixels: list[Tensor]
) -> dict[tuple[str, Precision], list[float]]:
    """Seconds of every image by every file, in turn, but for the first."""
    seconds: dict[tuple[str, Precision], list[float]] = {key: [] for key in runs}
    for one in pixels:
        for key, run in runs.items():
            began = time.perf_counter()
            run(one)
            seconds[key].append(time.perf_counter() - began)
    return {key: values[1:] for key, values in seconds.items()}


if __name__ == "__main__":
    main()
