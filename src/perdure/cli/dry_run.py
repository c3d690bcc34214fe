"""``perdure run --dry-run``: everything a run would check, and what it would do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perdure.backbones.vit import FrozenViT
from perdure.cli.at_hand import weights_state
from perdure.cli.output import print_columns, print_fields
from perdure.engine.build import make_backbone
from perdure.engine.config import Config
from perdure.engine.model import Model, check_text
from perdure.engine.run import plan
from perdure.experiment import check, check_folder
from perdure.streams import BENCHMARKS, Stream, batch_count
from perdure.wording import counted, listed

_NAMES_SHOWN = 12


def make_plan(config: Config, out: Path, seeds: Sequence[int], resume: bool) -> dict[str, Any]:
    """Check everything that can be checked without computing, and say what would be done.

    Nothing is created or fetched: weights that are not at hand are stood in for by random ones of
    the same shape, and images that a run would fetch by blank ones.

    Args:
        config: configuration of the run.
        out: the folder of the results.
        seeds: one run per seed, each in a folder of its own; empty for one run.
        resume: whether a run in the folder would go on.

    Raises:
        PerdureError: what would stop the run.
    """
    folders = [(out / f"seed-{seed}", config.replace(seed=seed)) for seed in seeds]
    for folder, one in folders or [(out, config)]:
        check_folder(folder, one, resume)
    first = folders[0][1] if folders else config
    # Published weights would be fetched; a file of the user's own is read and so checked.
    standing_in = first.replace(weights="random") if first.training.weights == "auto" else first
    backbone = make_backbone(standing_in)
    stream = check(first)
    tasks = _tasks(first, stream)
    notes = list(stream.notes)
    if first.needs_text and stream.tasks[0].task.text_features is None:
        notes.append(f"the run computes text features with {first.heads.text_features}")
    return {
        "preset": first.preset,
        "method": first.training.method,
        "summary": first.traits.summary,
        "heads": list(first.head_names),
        **_trained(first, backbone, stream),
        "epochs": first.training.epochs,
        "batch_size": first.training.batch_size,
        "backbone": backbone.name,
        "weights": weights_state(first),
        "img_size": backbone.img_size,
        "device": str(backbone.device),
        "precision": backbone.precision,
        "stream": first.stream.source,
        "data_at_hand": _at_hand(first),
        "transform": first.training.transform,
        "tasks": tasks,
        "steps": sum(task["steps"] for task in tasks),
        "notes": notes,
        "seeds": list(seeds) or [first.training.seed],
        "folders": [str(folder) for folder, _ in folders] or [str(out)],
        "state": _state(out) if not seeds else None,
    }


def print_plan(made: dict[str, Any]) -> None:
    """Print what `make_plan` returned."""
    shape = f"{counted(made['epochs'], 'epoch')} in batches of {made['batch_size']}"
    fields = [
        ("method", f"{made['method']}: {made['summary']}"),
        ("trained", f"{made['trained']}, {shape}" if made["steps"] else "nothing by gradient"),
        ("heads", ", ".join(made["heads"])),
        ("backbone", f"{made['backbone']} at {made['img_size']} px, {made['weights']}"),
        ("compute", f"{made['precision']} on {made['device']}"),
        ("stream", f"{made['stream']}, transform {made['transform']}"),
        ("seeds", ", ".join(str(seed) for seed in made["seeds"])),
        ("folder", "\n".join(made["folders"]) + (f" ({made['state']})" if made["state"] else "")),
        *(("note", note) for note in made["notes"]),
    ]
    if not made["data_at_hand"]:
        fields.append(
            ("note", f"the images of {made['stream']} are not at hand: the run fetches them")
        )
    print_fields(fields)
    print()
    rows = [
        [
            str(task["task"]),
            listed(task["classes"], _NAMES_SHOWN),
            str(task["train"]),
            str(task["validation"]),
            str(task["test"]),
            str(task["steps"]),
        ]
        for task in made["tasks"]
    ]
    print_columns(["task", "classes", "train", "validation", "test", "steps"], rows)
    print()
    print(f"{counted(made['steps'], 'step')} in all. Nothing was computed, created or fetched.")


def _tasks(config: Config, stream: Stream) -> list[dict[str, Any]]:
    steps = [0] * len(stream.tasks)
    for stage in plan(stream, config):
        if config.traits.trains and len(stage.data.task.classes) > 1:
            count = batch_count(len(stage.data.train), config.training.batch_size)
            steps[stage.last] = config.training.epochs * count
    return [
        {
            "task": index + 1,
            "classes": list(data.task.names),
            "train": len(data.train),
            "validation": 0 if data.val is None else len(data.val),
            "test": len(data.test),
            "steps": steps[index],
        }
        for index, data in enumerate(stream.tasks)
    ]


def _trained(config: Config, backbone: FrozenViT, stream: Stream) -> dict[str, Any]:
    """Build the method and its heads as a run does, which checks them, and count what they train."""
    model = Model(backbone, config)
    task = plan(stream, config)[0].data.task
    if task.text_features is not None:  # a tower that is not at hand gives none in a dry run
        check_text(task, backbone, config)
    model.start_task(task)
    matrices = list(model.method.parameters())
    count = sum(matrix.numel() for matrix in matrices)
    parts = []
    if matrices:
        shapes = sorted({" × ".join(str(side) for side in matrix.shape) for matrix in matrices})
        what = f"matrices of {', '.join(shapes)}" if len(matrices) > 1 else f"matrix of {shapes[0]}"
        parts.append(f"{len(matrices)} {what} ({counted(count, 'parameter')})")
    if model.trained_head is not None:
        each = "once" if model.method.traits.cumulative else "per task"
        parts.append(f"{model.trained_head.learned} {each}")
    return {"trained": " and ".join(parts), "trainable_parameters": count}


def _at_hand(config: Config) -> bool:
    """Return whether the images are on this machine."""
    published = BENCHMARKS.get(config.stream.source)
    return published is None or config.stream.place is not None or published.at_hand


def _state(out: Path) -> str:
    if (out / "results.json").exists():
        return "finished"
    return "goes on" if (out / "config.toml").exists() else "new"
