"""Format 1 of a saved model: ``model.json`` and ``weights.safetensors``."""

from __future__ import annotations

from pathlib import Path

from perdure.errors import CheckpointError
from perdure.learner.history import History
from perdure.learner.saved.files import read_bytes
from perdure.learner.saved.format import WEIGHTS, Classes, Description, build, newer, parse

CONFIG = "model.json"
FORMAT = 1


def read_first(folder: Path) -> tuple[Description, Classes]:
    """Read ``model.json`` as if it were of today's format.

    It has no checksum of its own: what is no JSON is found, and the weights are, but not every byte.

    Raises:
        CheckpointError: it is missing, damaged or of another format.
    """
    path = folder / CONFIG
    about = parse(path, read_bytes(path))
    number = about.get("format")
    if isinstance(number, int) and number != FORMAT:
        raise newer(path, number)
    try:
        names = [tuple(map(str, task)) for task in about["tasks"]]
        starts = [sum(map(len, names[:index])) for index in range(len(names))]
        values = {
            "format": FORMAT,
            "perdure": "",
            "backbone": {"name": about["config"]["backbone"], "sha256": about["backbone_sha256"]},
            "inference_only": False,
            "config": about["config"],
            "preset": about["preset"],
            "history": History(),
            "files": {WEIGHTS: about["weights_sha256"]},
        }
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"'{path}' is damaged ({type(error).__name__}: {error}). Take the model's folder from "
            "a backup."
        ) from None
    description = build(Description, path, values)
    tasks = tuple(
        tuple(range(start, start + len(task))) for start, task in zip(starts, names, strict=True)
    )
    return description, Classes(tuple(name for task in names for name in task), tasks)
