"""Study on photographs: every method, kind of head and class order in one recipe.

Every run is a cell. A finished cell's figures go to photos.json beside this file, and are not run
again; a run that was interrupted goes on. What is run, at which size and for how long, stands in this
file and was settled before the first cell. At the end the tables between the markers of
docs/results.md are written anew from the figures that are there.

Usage: python benchmarks/accuracy/photos.py PHOTOS                     everything (hours on 2 cores)
       python benchmarks/accuracy/photos.py PHOTOS --only cifar100/iprompt --orders 2024
       python benchmarks/accuracy/photos.py --tables                   write tables and pictures anew

PHOTOS has the folders cifar100, grocery and clothing, each with ``train`` and ``test`` and in these a
folder per class.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from filelock import FileLock
from photo_figures import draw
from results import DOCUMENT, write_tables

from perdure import __version__
from perdure.atomic import atomic_write
from perdure.engine.config import Config, make_config
from perdure.experiment import run

FIGURES = Path(__file__).with_suffix(".json")
DINO = "dinov2_vit_small_patch14_saliency"
STREAMS: dict[str, dict[str, Any]] = {
    "cifar100": {
        "tasks": "B0-Inc10",
        "images_per_class": 30,
        "test_images_per_class": 20,
        "img_size": 64,
    },
    "grocery": {"tasks": "B0-Inc9", "img_size": 112},
    "clothing": {"tasks": "B0-Inc2", "images_per_class": 30, "img_size": 112},
    "grocery-41+8x5": {"tasks": "B41-Inc5", "img_size": 112},
    "cifar100-dinov2": {
        "tasks": "B0-Inc10",
        "images_per_class": 30,
        "test_images_per_class": 20,
        "img_size": 70,
        "backbone": DINO,
    },
    "clothing-dinov2": {
        "tasks": "B0-Inc2",
        "images_per_class": 30,
        "img_size": 112,
        "backbone": DINO,
    },
}
"""Folder of photographs, its tasks, images and pixels; what stands after a hyphen is a variant."""
TITLES = {
    "cifar100": "CIFAR-100, 10 tasks of 10 classes, 64 px",
    "grocery": "Grocery, 9 tasks of 9 classes, 112 px",
    "clothing": "Clothing, 5 tasks of 2 classes, 112 px",
    "grocery-41+8x5": "Grocery, 41 classes and 8 tasks of 5, 112 px",
    "cifar100-dinov2": "CIFAR-100 on DINOv2-S, 10 tasks of 10 classes, 70 px",
    "clothing-dinov2": "Clothing on DINOv2-S, 5 tasks of 2 classes, 112 px",
}
ORDERS = {
    "cifar100": (2024, 2025, 2026),
    "grocery": (2024,),
    "clothing": (2024, 2025, 2026),
    "grocery-41+8x5": (2024,),
    "cifar100-dinov2": (2024,),
    "clothing-dinov2": (2024,),
}
"""Seeds of class orders, and of what else is drawn."""
RECIPE: dict[str, Any] = {
    "backbone": "clip_vit_base_patch16",
    "transform": "plain",
    "epochs": 3,
    "batch_size": 32,
    "lr": 0.003,
    "schedule": "cosine",
    "head_inputs": "centred",
    "cache_queries": True,
    "precision": "bf16",
    "survey_precision": "bf16",
}
"""The same for every method, whatever its paper's; settings were chosen by nothing."""
CLOSED = (
    "gaussian,gaussian(shrinkage=loo),gaussian(drift=linear),gaussian(drift=linear,shrinkage=loo),"
    "gaussian(drift=mixed),gaussian(drift=mixed,shrinkage=loo),ridge,ridge(drift=linear),"
    "gaussian(drift=linear,drift_debias=0.5,shrinkage=loo),"
    "gaussian(drift=linear,drift_debias=1,shrinkage=loo),"
    "gaussian(drift=mixed,drift_debias=1,shrinkage=loo)"
)
FIXED = (
    "ncm,gaussian,gaussian(shrinkage=loo),ridge,ridge(lift=relu,lift_width=5000),"
    "gaussian(lift=cosine,lift_width=2000)"
)
"""Heads on features that do not move; Gaussian: SLDA, with a cosine lift: RanDumb."""
DEEP = {"heads": f"linear,{CLOSED}", "temperature": 5.0}
POOL = {"heads": f"linear,{CLOSED}"}
ROSTER: dict[str, dict[str, Any]] = {
    "lda": {"method": "lda", "heads": FIXED},
    "iprompt, merged t^-1/2": {"method": "iprompt", "merge": 0.5, **POOL},
    "coda_prompt": {"method": "coda_prompt", **POOL},
    "finetune": {"method": "finetune", **DEEP},
    "l2p": {"method": "l2p", **POOL},
    "dualprompt": {"method": "dualprompt", **POOL},
    "nsp2": {"method": "nsp2", **DEEP},
    "nsp2, orthogonal": {"method": "nsp2", "projector": "orthogonal", "eta1": 1.0, **DEEP},
    "iprompt": {"method": "iprompt", **POOL},
    "finetune, first task only": {
        "method": "finetune",
        "adapt": "first",
        "temperature": 5.0,
        "heads": FIXED,
    },
    "iprompt, merged 1/t": {"method": "iprompt", "merge": "mean", **POOL},
    "coda_prompt, merged t^-1/2": {"method": "coda_prompt", "merge": 0.5, **POOL},
    "finetune, merged t^-1/2": {"method": "finetune", "merge": 0.5, **DEEP},
    "finetune, rate x 0.05": {"method": "finetune", "lr_after_first": 0.05, **DEEP},
    "iprompt, merged t^-1/2, sensitivity": {
        "method": "iprompt",
        "merge": 0.5,
        "protect": "sensitivity",
        "protect_strength": 30.0,
        **POOL,
    },
    "iprompt, merged t^-1/2, use": {"method": "iprompt", "merge": 0.5, "protect": "use", **POOL},
    "iprompt, merged t^-1/2, grown": {
        "method": "iprompt",
        "merge": 0.5,
        "pool_growth": 5,
        **POOL,
    },
    "finetune, sensitivity": {"method": "finetune", "protect": "sensitivity", **DEEP},
    "pgp": {"method": "pgp", **DEEP},
    "l2p_nsp2": {"method": "l2p_nsp2", **POOL},
    "clip_nsp2": {
        "method": "clip_nsp2",
        "class_embeddings": "mean",
        "temperature": 5.0,
        "heads": f"language,{CLOSED}",
    },
}
"""Methods and what is changed of them, those of the first comparison first."""
ROWS = {
    "grocery-41+8x5": tuple(ROSTER)[:6],
    "cifar100-dinov2": ("lda", "nsp2"),
    "clothing-dinov2": ("lda", "nsp2"),
}
"""Streams on which part of the roster is run: the first comparison, or another backbone."""
PAIR = 2
"""Rows up to which a picture would say no more than the table."""
MIN_ORDERS = 2
"""Class orders from which a difference has an interval."""


@dataclass(frozen=True)
class Cell:
    """One run: a row of the roster on one stream in one class order."""

    stream: str
    row: str
    order: int
    photos: Path

    def __str__(self) -> str:
        return f"{self.stream}/{self.row}/{self.order}"

    @property
    def config(self) -> Config:
        """The checked configuration."""
        data = str(self.photos / self.stream.partition("-")[0])
        keys = {**RECIPE, **STREAMS[self.stream], **ROSTER[self.row]}
        return make_config({**keys, "data": data, "seed": self.order})

    @property
    def recipe(self) -> dict[str, Any]:
        """What its figures depend on, as they are kept beside them; each head's are its own."""
        keys = {**RECIPE, **STREAMS[self.stream], **ROSTER[self.row], "seed": self.order}
        return {key: value for key, value in keys.items() if key != "heads"}

    def folder(self, root: Path) -> Path:
        """Where it runs."""
        return root / str(self).replace(" ", "_").replace("/", "_")


def cells(photos: Path) -> list[Cell]:
    """All runs: of every stream the first order of all rows, then the next."""
    return [
        Cell(stream, row, order, photos)
        for stream in STREAMS
        for order in ORDERS[stream]
        for row in ROWS.get(stream, tuple(ROSTER))
    ]


Figures = dict[str, dict[str, Any]]
"""Of every finished cell, by its name: recipe, version, seconds, and the metrics of its heads."""


def figures() -> Figures:
    """Figures that are kept."""
    held: Figures = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    return held


def _recipe(figures_of: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe that is kept beside figures; older ones name the heads, too."""
    return {key: value for key, value in figures_of["recipe"].items() if key != "heads"}


def finish(cell: Cell, root: Path) -> dict[str, Any]:
    """Run a cell, keep its figures, and remove its folder."""
    moves = cell.config.traits.trains and cell.config.training.adapt == "all"
    done = run(cell.config, cell.folder(root), resume=True, diagnose=moves)
    heads = {
        entry["head"]: {
            "last": entry["last_accuracy"],
            "average": entry["average_incremental_accuracy"],
            "forgetting": entry["forgetting"],
            "all_seen": entry.get("diagnosis", {}).get("all_seen_last_accuracy"),
            "curve": [round(value, 4) for value in entry["accuracy_curve"]],
            "state_bytes": entry["cost"]["state_bytes"],
        }
        for entry in done.entries
    }
    seconds = done.entries[0]["seconds"]
    found = {"recipe": cell.recipe, "version": __version__, "seconds": seconds, "heads": heads}
    with FileLock(root / "figures.lock"):
        atomic_write(FIGURES, json.dumps(figures() | {str(cell): found}, indent=1).encode())
    shutil.rmtree(cell.folder(root))
    return found


# --------------------------------------------------------------------------------------- tables

COLUMNS = {
    "trained head": ("linear", "language"),
    "stale": ("gaussian",),
    "stale, loo": ("gaussian(shrinkage=loo)",),
    "follows": ("gaussian(drift=linear)",),
    "follows, loo": ("gaussian(drift=linear,shrinkage=loo)",),
    "debiased": ("gaussian(drift=linear,drift_debias=1.0,shrinkage=loo)",),
    "mixed, loo": ("gaussian(drift=mixed,shrinkage=loo)",),
    "ridge": ("ridge",),
    "ridge, follows": ("ridge(drift=linear)",),
}
"""Column of a table and the heads that stand there."""
DEBIASED = {
    "follows": "gaussian(drift=linear,shrinkage=loo)",
    "half debiased": "gaussian(drift=linear,drift_debias=0.5,shrinkage=loo)",
    "debiased": "gaussian(drift=linear,drift_debias=1.0,shrinkage=loo)",
    "mixed": "gaussian(drift=mixed,shrinkage=loo)",
    "mixed, debiased": "gaussian(drift=mixed,drift_debias=1.0,shrinkage=loo)",
}
"""Heads of the table on debiasing."""
FOLLOWING = ("gaussian(drift=linear,shrinkage=loo)", "gaussian(shrinkage=loo)")
"""Head by which rows are compared: where features move, and where they do not."""


def tables(held: Figures) -> dict[str, str]:
    """Sections of all streams of which cells are there, and the table on debiasing, by marker."""
    parts = []
    for stream in STREAMS:
        rows = rows_of(held, stream)
        if rows:
            parts += [f"### {TITLES[stream]}", "", *_main(rows), "", *_paired(rows), ""]
            if len(rows) > PAIR:
                parts += [f"![{TITLES[stream]}: accuracy]({_picture(stream).name})", ""]
    return {"photos": "\n".join(parts), "debias": "\n".join(_debiased(held))}


def _debiased(held: Figures) -> list[str]:
    """Last and average accuracy and forgetting of rows and orders that have all of these heads."""
    lines = [f"| stream, method | orders | {' | '.join(DEBIASED)} |"]
    lines.append("| :-- | --: |" + " --: |" * len(DEBIASED))
    for stream in STREAMS:
        for row, cells in rows_of(held, stream).items():
            whole = {o: c for o, c in cells.items() if set(DEBIASED.values()) <= set(c["heads"])}
            if whole:
                scores = [_score(whole, (head,), average=True) for head in DEBIASED.values()]
                name = f"{stream}, `{row}`"
                lines.append(f"| {name} | {len(whole)} | {' | '.join(scores)} |")
    return lines


def pictures(held: Figures) -> None:
    """Draw every stream of which more than two rows are there, beside the page."""
    for stream in STREAMS:
        rows = rows_of(held, stream)
        if len(rows) > PAIR:
            drawn = {
                row: [(c["seconds"], c["heads"][compared_head(c)]) for c in cells.values()]
                for row, cells in rows.items()
            }
            draw(drawn, TITLES[stream], _picture(stream))


def _picture(stream: str) -> Path:
    return DOCUMENT.with_name(f"photos-{stream}.png")


def rows_of(held: Figures, stream: str) -> dict[str, dict[int, dict[str, Any]]]:
    """Cells of a stream by row and class order, of rows that have any."""
    rows = {row: orders_of(held, stream, row) for row in ROSTER}
    return {row: cells for row, cells in rows.items() if cells}


def orders_of(held: Figures, stream: str, row: str) -> dict[int, dict[str, Any]]:
    """Figures of a row's cells by class order; those of another recipe are left out."""
    found = {}
    for order in ORDERS[stream]:
        cell = Cell(stream, row, order, Path())
        figures_of = held.get(str(cell))
        if figures_of and _recipe(figures_of) == cell.recipe:
            found[order] = figures_of
    return found


def _main(rows: Mapping[str, Mapping[int, Any]]) -> list[str]:
    heads = [*COLUMNS, "all seen, loo", "s", "MB"]
    lines = [f"| method | orders | {' | '.join(heads)} |", "| :-- |" + " --: |" * (1 + len(heads))]
    for row, cells in rows.items():
        scores = [_score(cells, names) for names in COLUMNS.values()]
        bound = [c["heads"].get(FOLLOWING[0], {}).get("all_seen") for c in cells.values()]
        seen = f"{100 * np.mean(bound):.1f}" if all(bound) else "–"
        seconds = np.mean([c["seconds"] for c in cells.values()])
        head = compared_head(next(iter(cells.values())))
        size = np.mean([c["heads"][head]["state_bytes"] for c in cells.values()]) / 1e6
        rest = [f"{len(cells)}", *scores, seen, f"{seconds:.0f}", f"{size:.1f}"]
        lines.append(f"| `{row}` | {' | '.join(rest)} |")
    return lines


def _score(cells: Mapping[int, Any], names: Sequence[str], average: bool = False) -> str:
    """Last accuracy / forgetting in per cent, mean over class orders; the average between, if asked."""
    name = next((n for n in names if all(n in c["heads"] for c in cells.values())), None)
    if name is None:
        return "–"
    shown = ("last", "average", "forgetting") if average else ("last", "forgetting")
    values = [[c["heads"][name][key] or 0.0 for key in shown] for c in cells.values()]
    return " / ".join(f"{100 * value:.1f}" for value in np.mean(values, axis=0))


def compared_head(figures_of: Mapping[str, Any]) -> str:
    """Head by which a cell is compared with others."""
    return next(head for head in FOLLOWING if head in figures_of["heads"])


def _paired(rows: Mapping[str, Mapping[int, Any]]) -> list[str]:
    """Differences of last accuracy to `lda`, order by order, with a 95 % interval."""
    lines = ["| method | minus `lda`, points | 95 % interval |", "| :-- | --: | --: |"]
    base = rows.get("lda", {})
    for row, cells in rows.items():
        shared = [order for order in cells if order in base and row != "lda"]
        if len(shared) < MIN_ORDERS:
            continue
        gains = np.array([_last(cells[order]) - _last(base[order]) for order in shared])
        mean, error = gains.mean(), gains.std(ddof=1) / len(gains) ** 0.5
        half = float(scipy.stats.t.ppf(0.975, len(gains) - 1)) * error
        lines.append(f"| `{row}` | {mean:+.1f} | {mean - half:+.1f} to {mean + half:+.1f} |")
    return lines if len(lines) > MIN_ORDERS else []


def _last(figures_of: Mapping[str, Any]) -> float:
    last: float = figures_of["heads"][compared_head(figures_of)]["last"]
    return 100 * last


def main() -> None:
    """Run what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, metavar="PHOTOS", nargs="?", help="folder of the sets")
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of cells' names")
    parser.add_argument("--orders", nargs="*", type=int, help="class orders; all by default")
    parser.add_argument("--out", type=Path, default=Path("runs/photos"))
    parser.add_argument("--tables", action="store_true", help="run nothing")
    args = parser.parse_args()
    if not args.tables:
        if args.photos is None:
            parser.error("name the folder of photographs, or --tables")
        for cell in cells(args.photos):
            asked = str(cell).startswith(tuple(args.only))
            if asked and (args.orders is None or cell.order in args.orders):
                _run(cell, args.out)
    write_tables(tables(figures()))
    pictures(figures())


def _run(cell: Cell, root: Path) -> None:
    held = figures().get(str(cell))
    if held:
        other = _recipe(held) != cell.recipe
        lacking = [head for head in cell.config.head_names if head not in held["heads"]]
        if not other and not lacking:
            return
        why = "are of another recipe" if other else f"lack {', '.join(lacking)}"
        print(f"{cell}: kept figures {why}, so it is run again", flush=True)
    found = finish(cell, root)
    shown = (f"{head} {100 * of['last']:.1f}" for head, of in found["heads"].items())
    print(f"{cell}: {', '.join(shown)}; {found['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
