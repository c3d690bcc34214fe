"""What forgets, the features or the statistics? Stale, following and all-seen heads on one training.

Every cell trains one method on one class order, and keeps the features of all images after every
task, which no learner may; then every way for a head to follow is tried on the same features. A
finished cell is kept. At the end the table between the markers of docs/drift.md is written anew.

    stale      the head keeps what it measured (drift = none)
    follows    drift = mean, local, linear, linear+local, anchored, mixed; and linear without R
    all seen   the head is fitted after the last task to all training images: a bound, not allowed

Usage: python benchmarks/accuracy/drift.py PHOTOS            everything (hours on 2 cores)
       python benchmarks/accuracy/drift.py PHOTOS --only iprompt --orders 2024
       python benchmarks/accuracy/drift.py PHOTOS --tables   only write the table anew

PHOTOS is a folder with ``train`` and ``test``, each with a folder per class.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor

from perdure.atomic import atomic_write
from perdure.engine.anchors import Anchors
from perdure.engine.build import make_backbone, make_stream
from perdure.engine.config import Config, make_config
from perdure.engine.model import Model
from perdure.engine.survey import ImageSurvey, ordered_batches
from perdure.engine.training import Training
from perdure.heads import HEADS, Head
from perdure.heads.choice import choose_head
from perdure.learner.known_features import KnownFeatures
from perdure.metrics import Counts, count_batch, summarise
from perdure.numerics.drift_maps import linear_map
from perdure.numerics.drift_statistics import Moments, moved
from perdure.numerics.feature_drift import FeatureDrift
from perdure.randomness import generator
from perdure.streams import Stream, Subset
from perdure.types import BackboneSpec, Task, classes_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "drift.md"
RECIPE: dict[str, Any] = {
    "tasks": "B0-Inc10",
    "images_per_class": 30,
    "test_images_per_class": 20,
    "backbone": "clip_vit_base_patch16",
    "img_size": 64,
    "transform": "plain",
    "epochs": 3,
    "batch_size": 32,
    "lr": 0.003,
    "schedule": "cosine",
    "heads": "gaussian",
    "head_inputs": "centred",
    "cache_queries": True,
}
"""The same for every method, whatever its paper's."""
ROSTER: dict[str, dict[str, Any]] = {
    "lda": {"method": "lda"},
    "finetune": {"method": "finetune", "temperature": 5.0},
    "coda_prompt": {"method": "coda_prompt"},
    "iprompt": {"method": "iprompt"},
    "iprompt, merged 1/t": {"method": "iprompt", "merge": "mean"},
    "iprompt, merged t^-1/2": {"method": "iprompt", "merge": 0.5},
    "l2p": {"method": "l2p"},
    "dualprompt": {"method": "dualprompt"},
    "nsp2": {"method": "nsp2", "temperature": 5.0},
    "nsp2, orthogonal": {
        "method": "nsp2",
        "temperature": 5.0,
        "projector": "orthogonal",
        "eta1": 1.0,
    },
}
ORDERS = (2024, 2025, 2026)
NARROW = "linear, R = 0"
"""The linear map without the spread that a scatter gains around it: what that is worth."""
KINDS = ("none", "mean", "local", "linear", "linear+local", "anchored", "mixed", NARROW)
Labelled = tuple[Float[Tensor, "n d"], Int[Tensor, "n"]]


@dataclass(frozen=True)
class Cell:
    """One training: a row of the roster on one class order."""

    name: str
    order: int
    data: str

    @property
    def config(self) -> Config:
        """The checked configuration."""
        return make_config({**RECIPE, "data": self.data, "seed": self.order, **ROSTER[self.name]})

    def folder(self, root: Path) -> Path:
        """Where its features are."""
        return root / f"{self.name.replace(' ', '_').replace('/', ':')}-{self.order}"


# ------------------------------------------------------------------------------------- features


def make_features(cell: Cell, root: Path) -> None:
    """Train, and keep the features of all images after every task."""
    folder, config = cell.folder(root), cell.config
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "plain.safetensors").exists():
        return
    stream, backbone = make_stream(config), make_backbone(config)
    model = Model(backbone, config)
    for index, data in enumerate(stream.tasks):
        training = Training(model, data)
        training.start()
        training.train()
        training.finish()
        tensors = {
            f"train.{other.task.index}": features_of(model, other.train)
            for other in stream.tasks[: index + 2]
        }
        tensors |= {
            f"test.{other.task.index}": features_of(model, other.test)
            for other in stream.tasks[: index + 1]
        }
        _write(folder / f"task-{index:02d}.safetensors", tensors)
        print(
            f"{cell.name}, order {cell.order}: task {index + 1} of {len(stream.tasks)}", flush=True
        )
    plain = {f"train.{d.task.index}": ImageSurvey(model, d).plain_readouts() for d in stream.tasks}
    _write(folder / "plain.safetensors", plain)


@torch.no_grad()
def features_of(model: Model, subset: Subset) -> Float[Tensor, "n d"]:
    """Readouts of a subset's images, in the compute type of the run."""
    return torch.cat([model.forward(b.images)[0].float() for b in ordered_batches(model, subset)])


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    held = {name: value.cpu().contiguous() for name, value in tensors.items()}
    atomic_write(path, safetensors.torch.save(held))


class Kept:
    """Features that a cell has kept."""

    def __init__(self, cell: Cell, root: Path, stream: Stream) -> None:
        self._folder = cell.folder(root)
        self.stream = stream
        self.plain = safetensors.torch.load_file(self._folder / "plain.safetensors")
        self.after = [
            safetensors.torch.load_file(self._folder / f"task-{index:02d}.safetensors")
            for index in range(len(stream.tasks))
        ]

    def train(self, state: int, task: int) -> Labelled:
        """Training features of a task after another."""
        return self.after[state][f"train.{task}"], self.stream.tasks[task].train.labels

    def test(self, state: int, task: int) -> Labelled:
        """Test features of a task after another."""
        return self.after[state][f"test.{task}"], self.stream.tasks[task].test.labels


# --------------------------------------------------------------------------------------- heads


class _NarrowDrift(FeatureDrift):
    """Drift that is followed by the linear map alone, its spread left out."""

    def moved(self, kind: str, moments: Moments) -> Moments:
        return moved(moments, replace(self.fit(kind).map, spread=None))


def make_head(kind: str, dim: int) -> Head:
    """A Gaussian head that follows in this way."""
    spec = BackboneSpec("kept", dim, 1, 1, 1, True, 1, 1e-6)
    config = make_config({"method": "lda", "data": "digits"}).heads
    choice = choose_head(f"gaussian(drift={kind})")
    return HEADS[choice.kind](spec, choice.options(config), lambda name: generator(0, name))


@torch.no_grad()
def follow(kept: Kept, kind: str) -> dict[str, Any]:
    """Metrics of a head that goes through all tasks on features that are kept."""
    tasks = [data.task for data in kept.stream.tasks]
    dim = kept.train(0, 0)[0].shape[1]
    narrow = kind == NARROW
    head, anchors = make_head("linear" if narrow else kind, dim), Anchors(dim)
    counts: Counts | None = None
    for task in tasks:
        t = task.index
        head.start_task(task)
        anchors.start_task(task)
        features, labels = kept.train(t, t)
        anchored = kind in ("anchored", "mixed")
        fit = linear_map(kept.plain[f"train.{t}"], features, groups=labels) if anchored else None
        if t and kind != "none":
            held = anchors.moments(task.classes[0], fit.map) if fit else None
            before = kept.train(t - 1, t)[0]
            made = _NarrowDrift if narrow else FeatureDrift
            head.follow(made(before, features, task.classes[0], labels, held))
        if fit:
            anchors.end_task(task, kept.plain[f"train.{t}"], features, labels, fit.map)
        head.end_task(task, KnownFeatures(features, labels))
        row = evaluate(kept, head, t, tasks)
        counts = row if counts is None else counts + row
    assert counts is not None
    return summarise(counts)


@torch.no_grad()
def all_seen(kept: Kept) -> float:
    """Last accuracy of a head that is fitted to all training images at the end."""
    tasks = [data.task for data in kept.stream.tasks]
    last = len(tasks) - 1
    head = make_head("none", kept.train(0, 0)[0].shape[1])
    for task in tasks:
        head.start_task(task)
        head.end_task(task, KnownFeatures(*kept.train(last, task.index)))
    return float(summarise(evaluate(kept, head, last, tasks))["last_accuracy"])


def evaluate(kept: Kept, head: Head, state: int, tasks: Sequence[Task]) -> Counts:
    """Count right answers on the test images of all tasks so far."""
    seen = tasks[: state + 1]
    task_of = torch.arange(len(seen)).repeat_interleave(
        torch.tensor([len(task.classes) for task in seen])
    )
    class_of = torch.tensor(classes_of([name for task in seen for name in task.names]))
    parts = [
        count_batch(head.logits(features), labels, task_of, class_of)
        for features, labels in (kept.test(state, task.index) for task in seen)
    ]
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


# --------------------------------------------------------------------------------------- table


def table(root: Path, data: str) -> Iterator[str]:
    """Rows of the table, from the cells that are there: last accuracy / forgetting, in per cent."""
    yield "| method | orders | " + " | ".join(("stale", *KINDS[1:], "all seen (last)")) + " |"
    yield "| :-- |" + " --: |" * (len(KINDS) + 2)
    for name in ROSTER:
        found: list[list[tuple[float, float]]] = []
        bounds = []
        for order in ORDERS:
            cell = Cell(name, order, data)
            if not (cell.folder(root) / "plain.safetensors").exists():
                continue
            kept = Kept(cell, root, make_stream(cell.config))
            kinds = KINDS if cell.config.traits.trains else KINDS[:1]
            metrics = [follow(kept, kind) for kind in kinds]
            found.append([(m["last_accuracy"], m["forgetting"]) for m in metrics])
            bounds.append(all_seen(kept))
        if found:
            means = 100 * np.array(found).mean(axis=0)
            cells = [f"{last:.1f} / {forgotten:.1f}" for last, forgotten in means]
            cells += ["–"] * (len(KINDS) - len(cells))
            row = [f"`{name}`", str(len(found)), *cells, f"{100 * np.mean(bounds):.1f}"]
            yield "| " + " | ".join(row) + " |"


def write_table(rows: Sequence[str]) -> None:
    """Put the rows between the markers of the page."""
    begin, end = "<!-- table drift -->", "<!-- end -->"
    text = DOCUMENT.read_text("utf-8")
    head, _, rest = text.partition(begin)
    tail = rest.partition(end)[2]
    DOCUMENT.write_text(f"{head}{begin}\n" + "\n".join(rows) + f"\n{end}{tail}", "utf-8")


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", metavar="PHOTOS", help="a folder with train and test")
    parser.add_argument("--cache", type=Path, default=Path("runs/drift"), help="where features go")
    parser.add_argument(
        "--only", nargs="*", default=list(ROSTER), choices=list(ROSTER), metavar="NAME"
    )
    parser.add_argument("--orders", nargs="*", type=int, default=list(ORDERS))
    parser.add_argument("--tables", action="store_true", help="only write the table anew")
    args = parser.parse_args()
    if not args.tables:
        for order in args.orders:
            for name in args.only:
                make_features(Cell(name, order, args.data), args.cache)
    rows = list(table(args.cache, args.data))
    print("\n".join(rows))
    if DOCUMENT.exists():
        write_table(rows)


if __name__ == "__main__":
    main()
