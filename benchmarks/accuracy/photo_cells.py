"""Cells of the study on photographs: streams, recipe, roster of methods, and figures that are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.engine.config import Config, make_config

FIGURES = Path(__file__).with_name("photos.json")
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
    "gaussian(drift=mixed),gaussian(drift=mixed,shrinkage=loo),ridge,ridge(drift=linear)"
)
DEBIASING = (
    "gaussian(drift=linear,drift_debias=0.5,shrinkage=loo),"
    "gaussian(drift=linear,drift_debias=1,shrinkage=loo),"
    "gaussian(drift=mixed,drift_debias=1,shrinkage=loo)"
)
"""Heads of the rows on which debiasing is compared."""
FIXED = (
    "ncm,gaussian,gaussian(shrinkage=loo),gaussian(mean_shrinkage=3,shrinkage=loo),"
    "ridge,ridge(lift=relu,lift_width=5000),gaussian(lift=cosine,lift_width=2000)"
)
"""Heads on features that do not move."""
DEEP = {"heads": f"linear,{CLOSED}", "temperature": 5.0}
POOL = {"heads": f"linear,{CLOSED}"}
DEBIASED_POOL = {"heads": f"linear,{CLOSED},{DEBIASING}"}
ROSTER: dict[str, dict[str, Any]] = {
    "lda": {"method": "lda", "heads": FIXED},
    "iprompt, merged t^-1/2": {"method": "iprompt", "merge": 0.5, **DEBIASED_POOL},
    "coda_prompt": {"method": "coda_prompt", **DEBIASED_POOL},
    "finetune": {"method": "finetune", **DEEP},
    "l2p": {"method": "l2p", **POOL},
    "dualprompt": {"method": "dualprompt", **POOL},
    "nsp2": {"method": "nsp2", **DEEP},
    "nsp2, orthogonal": {"method": "nsp2", "projector": "orthogonal", "eta1": 1.0, **DEEP},
    "iprompt": {"method": "iprompt", **DEBIASED_POOL},
    "finetune, first task only": {
        "method": "finetune",
        "adapt": "first",
        "temperature": 5.0,
        "heads": FIXED,
    },
    "lda, six layers": {"method": "lda", "layers": 6, "heads": "ridge"},
    "iprompt, merged 1/t": {"method": "iprompt", "merge": "mean", **POOL},
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
COMPARED = tuple(ROSTER)[:7]
"""Rows of the first comparison, which have every class order; the others have the first alone."""
TWO = ("lda", "nsp2")
"""Rows of another backbone."""
VARIED = "iprompt, merged t^-1/2,"
"""Beginning of rows that change one thing more; 372 test images of clothing would not tell what."""
ROWS = {
    "clothing": tuple(row for row in ROSTER if not row.startswith(VARIED)),
    "grocery": COMPARED,
    "grocery-41+8x5": COMPARED[:6],
    "cifar100-dinov2": TWO,
    "clothing-dinov2": TWO,
}
"""Streams on which part of the roster is run."""
DEBIASED_STREAMS = ("grocery-41+8x5",)
"""Streams on which every row that moves its features has the heads of debiasing."""
FOLLOWING = ("gaussian(drift=linear,shrinkage=loo)", "gaussian(shrinkage=loo)")
"""Head by which rows are compared: where features move, and where they do not."""


def folder_name(name: str) -> str:
    """Name of a folder for a row or a cell."""
    return name.replace(" ", "_").replace("/", "_")


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
        moves, debiased = CLOSED in keys["heads"], DEBIASING in keys["heads"]
        if self.stream in DEBIASED_STREAMS and moves and not debiased:
            keys["heads"] += f",{DEBIASING}"
        return make_config({**keys, "data": data, "seed": self.order})

    @property
    def recipe(self) -> dict[str, Any]:
        """What its figures depend on, as they are kept beside them; each head's are its own."""
        keys = {**RECIPE, **STREAMS[self.stream], **ROSTER[self.row], "seed": self.order}
        return {key: value for key, value in keys.items() if key != "heads"}

    def folder(self, root: Path) -> Path:
        """Where it runs."""
        return root / folder_name(str(self))


def cells(photos: Path) -> list[Cell]:
    """All runs: of every stream the first order of all rows, then the next."""
    return [
        Cell(stream, row, order, photos)
        for stream in STREAMS
        for place, order in enumerate(ORDERS[stream])
        for row in ROWS.get(stream, tuple(ROSTER))
        if place == 0 or row in COMPARED
    ]


Figures = dict[str, dict[str, Any]]
"""Of every finished cell, by its name: recipe, version, seconds, and the metrics of its heads."""


def figures() -> Figures:
    """Figures that are kept."""
    held: Figures = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    return held


def recipe_of(figures_of: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe that is kept beside figures; older ones name the heads, too."""
    return {key: value for key, value in figures_of["recipe"].items() if key != "heads"}
