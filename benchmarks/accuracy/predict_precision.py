"""Answers in bf16 against float32 on photographs: agreement, accuracy and calibration.

A classifier learns the training images of a set in float32 and predicts its test images in both types.

Usage: python benchmarks/accuracy/predict_precision.py PHOTOS [--set NAME] [--images 1000] [key=value …]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from perdure.engine.build import make_backbone
from perdure.engine.config import read_overrides
from perdure.learner import ContinualClassifier
from perdure.learner.calibration import calibration_error


def main() -> None:
    """Learn, predict twice, and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of the sets")
    parser.add_argument("--set", default="grocery", help="default: grocery")
    parser.add_argument("--images", type=int, default=1000, help="test images; default: 1000")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="of the classifier")
    args = parser.parse_intermixed_args()
    files = sorted((args.photos / args.set / "test").glob("*/*"))
    chosen = np.random.default_rng(0).permutation(len(files))[: args.images]
    tested = [files[one] for one in sorted(chosen)]
    probabilities = {}
    options = {"img_size": 112, **read_overrides(args.changes)}
    learned = ContinualClassifier(options={**options, "precision": "fp32"})
    learned.learn(args.photos / args.set)
    with tempfile.TemporaryDirectory() as folder:
        learned.save(folder)
        for kind in ("fp32", "bf16"):
            backbone = make_backbone(learned.model.config.replace(precision=kind))
            classifier = ContinualClassifier.load(folder, backbone)
            probabilities[kind] = classifier.predict_proba(tested)
    names = list(learned.classes_)
    labels = np.array([names.index(file.parent.name) for file in tested])
    answers = {kind: found.argmax(1) for kind, found in probabilities.items()}
    for kind, found in probabilities.items():
        right = 100 * (answers[kind] == labels).mean()
        error = 100 * calibration_error(torch.from_numpy(found), torch.from_numpy(labels))
        print(f"{kind}: accuracy {right:.1f} %, calibration error {error:.1f} points")
    agreed = 100 * (answers["fp32"] == answers["bf16"]).mean()
    moved = np.abs(probabilities["fp32"] - probabilities["bf16"]).max(1)
    print(
        f"{len(tested)} images: the same answer on {agreed:.1f} %; the probability that moved most, "
        f"median {np.median(moved):.4f}, 99 of 100 below {np.quantile(moved, 0.99):.3f}"
    )


if __name__ == "__main__":
    main()
