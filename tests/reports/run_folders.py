"""Folders of finished runs, made without running anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import tomli_w
import torch

from perdure.atomic import make_folder
from perdure.engine.config import make_config
from perdure.reports.results.files import write_results
from perdure.reports.results.runs import FinishedRun, read_run
from tests.reports.entries import CLASSES_PER_TASK, entry

BACKBONE = "vit_base_patch16_224.augreg_in21k"
NOTHING_KNOWN: dict[str, Any] = {
    "accuracy_matrix": [[None]],
    "accuracy_curve": [None],
    "confusion": None,
    "class_names": None,
    "task_sizes": [2],
    "test_counts": [0],
    "last_accuracy": None,
    "within_task_accuracy": None,
    "task_inference_accuracy": None,
}
"""Changes to an entry that leave few figures to draw."""


def finished_run(
    folder: Path,
    method: str = "nsp2",
    *,
    heads: tuple[str, ...] = ("linear",),
    seed: int = 0,
    changes: dict[str, Any] | None = None,
    **config: Any,
) -> FinishedRun:
    """Write the files of a run and read them back.

    Args:
        folder: created.
        method: of the entries and of the configuration.
        heads: one entry each.
        seed: of both.
        changes: to every entry.
        **config: other keys of the configuration.
    """
    entries = [entry(method, head, seed=seed, stream="digits") for head in heads]
    for one in entries:
        tasks = len(one["accuracy_matrix"])
        one["task_sizes"] = [CLASSES_PER_TASK] * tasks
        one["class_names"] = [f"class {n}" for n in range(CLASSES_PER_TASK * tasks)]
        one.update(changes or {})
    write_results(make_folder(folder) / "results.json", entries)
    keys = {"method": method, "seed": seed, "heads": list(heads), "backbone": BACKBONE, **config}
    flat = make_config(keys).flat()
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in flat.items()}
    (folder / "config.toml").write_text(tomli_w.dumps(plain))
    (folder / "env.json").write_text('{"device": "cpu", "torch_threads": 2, "packages": {}}')
    read = read_run(folder)
    assert read is not None
    return read


def save_grams(run: FinishedRun, **grams: torch.Tensor) -> None:
    """Write a model that holds these buffers of the method."""
    make_folder(run.model.parent)
    safetensors.torch.save_file({f"method.{n}": gram for n, gram in grams.items()}, run.model)
