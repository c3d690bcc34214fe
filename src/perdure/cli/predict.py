"""``perdure predict``: the classes of images, by what a run has learned."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from perdure.cli.output import print_columns, print_json
from perdure.errors import CheckpointError, ConfigError, did_you_mean
from perdure.learner import ContinualClassifier
from perdure.learner.saving import is_model
from perdure.streams.decoding import SUFFIXES


def predict(args: argparse.Namespace) -> int:
    """Do ``perdure predict``."""
    folder = model_folder(Path(args.model))
    images = image_files([Path(image) for image in args.images])
    classifier = ContinualClassifier.load(folder)
    found = [best for (best,) in classifier.top(images, 1, args.head)]
    if args.json:
        print_json(
            [
                {
                    "image": str(image),
                    "name": one.name,
                    "label": one.label,
                    "probability": one.probability,
                }
                for image, one in zip(images, found, strict=True)
            ]
        )
        return 0
    rows = [
        [str(image), one.name, f"{100 * one.probability:.1f} %"]
        for image, one in zip(images, found, strict=True)
    ]
    print_columns(["image", "class", "probability"], rows)
    return 0


def model_folder(path: Path) -> Path:
    """Return the folder of the saved model in a run's folder, or the folder itself.

    Raises:
        CheckpointError: it does not exist, holds no model, or its run is not finished.
    """
    for folder in (path, path / "model"):
        if is_model(folder):
            return folder
    if not path.exists():
        near = did_you_mean(path.name, _neighbours(path))
        raise CheckpointError(
            f"The folder '{path}' does not exist.{near} Name the folder of a finished run, as "
            "runs/digits/nsp2."
        )
    if (path / "config.toml").exists():
        raise CheckpointError(
            f"The run in '{path}' is not finished. Go on with "
            f"`perdure run {path / 'config.toml'} --out {path} --resume`."
        )
    raise CheckpointError(
        f"'{path}' holds no model. Name the folder of a finished run, or its folder 'model' with "
        "config.json in it."
    )


def image_files(given: Sequence[Path]) -> list[Path]:
    """Return the image files that files and folders stand for, folders in alphabetical order.

    Raises:
        ConfigError: a name that does not exist, or a folder without an image.
    """
    files = []
    for path in given:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise ConfigError(
                    f"The folder '{path}' holds no image file. Expected are files ending in "
                    f"{', '.join(sorted(SUFFIXES))}, straight in it."
                )
            files += inside
        elif path.exists():
            files.append(path)
        else:
            near = did_you_mean(path.name, _neighbours(path))
            raise ConfigError(f"There is no image '{path}'.{near}")
    return files


def _neighbours(path: Path) -> list[str]:
    return [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
