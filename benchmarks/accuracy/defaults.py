"""What a classifier with default settings reaches on photographs, lesson after lesson.

Clothing in three lessons at 30 photographs per class, and CIFAR-100 at 112 px in ten lessons at 5 and
at 20 per class, each for three draws of images and class orders, tested on all test images of the
set. A draw is taught by `ContinualClassifier.learn`, which is what `perdure learn` calls. Options are
chosen on grocery, which none of the reported figures is of.

Usage: python benchmarks/accuracy/defaults.py PHOTOS [key=value ...] [--method NAME] [--only NAME ...]
       python benchmarks/accuracy/defaults.py PHOTOS --only cifar100-5 --test-images 12
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perdure.engine.config import read_overrides
from perdure.learner import ContinualClassifier

DRAWS = (0, 1, 2)


@dataclass(frozen=True)
class Setting:
    """Photographs of a set, how many of each class are taught, and in how many lessons."""

    folder: str
    images: int
    lessons: int
    options: dict[str, Any]

    def draw(self, photos: Path, seed: int) -> Iterator[list[Path]]:
        """Training images of every lesson, classes in an order of their own."""
        random = np.random.default_rng(seed)
        classes = sorted((photos / self.folder / "train").iterdir())
        for part in np.array_split(random.permutation(len(classes)), self.lessons):
            taught: list[Path] = []
            for place in part:
                files = sorted(classes[place].iterdir())
                chosen = random.permutation(len(files))[: self.images]
                taught += [files[one] for one in chosen]
            yield taught


SETTINGS = {
    "clothing": Setting("clothing", 30, 3, {}),
    "cifar100-5": Setting("cifar100", 5, 10, {"img_size": 112}),
    "cifar100-20": Setting("cifar100", 20, 10, {"img_size": 112}),
    "grocery-5": Setting("grocery", 5, 9, {"img_size": 112}),
    "grocery-20": Setting("grocery", 20, 9, {"img_size": 112}),
}
REPORTED = ("clothing", "cifar100-5", "cifar100-20")
"""Those that the page tells; on the others options may be compared."""


def main() -> None:
    """Teach and test every draw of every setting, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of the sets")
    parser.add_argument("--only", nargs="*", choices=SETTINGS, default=REPORTED)
    parser.add_argument("--method", help="default: the classifier's own")
    parser.add_argument("--test-images", type=int, metavar="N", help="of each class; default: all")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="of the classifier")
    args = parser.parse_intermixed_args()
    method = {} if args.method is None else {"method": args.method}
    for name in args.only:
        setting = SETTINGS[name]
        found = []
        for seed in DRAWS:
            options = {**setting.options, **read_overrides(args.changes)}
            classifier = ContinualClassifier(**method, seed=seed, options=options)
            began = time.perf_counter()
            for paths in setting.draw(args.photos, seed):
                classifier.learn(paths, [path.parent.name for path in paths])
            taught = time.perf_counter() - began
            tested = test_images(args.photos / setting.folder / "test", args.test_images)
            report = classifier.report(tested, [path.parent.name for path in tested])
            found.append((100 * report.accuracy, 100 * report.calibration_error))
            accuracy, error = found[-1]
            print(
                f"{name}, draw {seed}: accuracy {accuracy:.1f} %, calibration error {error:.1f} "
                f"points, {taught:.0f} s of lessons",
                flush=True,
            )
        accuracy, error = np.mean(found, axis=0)
        print(f"{name}: mean accuracy {accuracy:.1f} %, calibration error {error:.1f} points")


def test_images(folder: Path, most: int | None) -> list[Path]:
    """Return the first images of every class, the same for every draw; all by default."""
    return [path for each in sorted(folder.iterdir()) for path in sorted(each.iterdir())[:most]]


if __name__ == "__main__":
    main()
