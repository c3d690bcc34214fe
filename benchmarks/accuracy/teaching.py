"""What teaching by photographs is worth: unknown images told, wrong labels found, labels saved.

Features of the frozen backbone are computed once per set and size and kept; everything else is
closed form. ``python benchmarks/accuracy/teaching.py PHOTOS --out FOLDER`` prints three tables, each
over three seeds; PHOTOS holds clothing/ and grocery/, each with train/ and test/.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perdure.engine.build import make_backbone
from perdure.engine.model import Model
from perdure.heads import HEADS, Head
from perdure.heads.config import GaussianConfig
from perdure.learner import ContinualClassifier
from perdure.learner.calibration import best_temperature, grid_losses
from perdure.learner.classes_left_out import features_of
from perdure.learner.familiarity import bins, familiarity_scores
from perdure.learner.labelled import Side, gather
from perdure.learner.separation import Separation
from perdure.learner.state import LearnerState
from perdure.learner.suggest import choose
from perdure.learner.suspects import rank_suspects
from perdure.randomness import generator
from perdure.streams import Subset
from perdure.testing.drawn import FeatureSurvey
from perdure.types import BackboneSpec, Task

SEEDS = (0, 1, 2)
SETS = ("clothing", "grocery")
SWAPPED, LOOKED_AT = 0.05, 0.1
"""Share of labels that are swapped, and of the list in which they are looked for."""
ROUNDS, PER_ROUND, START = 10, 20, 2
"""Rounds of suggestions, images of each, and labelled images per class at the start."""


def features(photos: Path, out: Path, name: str, part: Side, side: int) -> tuple[Tensor, Tensor]:
    """Features and labels of a part of a set, computed where they are not kept already."""
    kept = out / f"{name}-{part}-{side}.npz"
    if not kept.exists():
        config = ContinualClassifier("lda", options={"img_size": side}).settings()
        images = gather(photos / name, None, part, config.stream, 0).images
        state = LearnerState(Model(make_backbone(config), config))
        labels = torch.from_numpy(images.labels)
        with torch.no_grad():
            found = features_of(state, Subset(images, np.arange(len(images)), labels))
        np.savez(kept, features=found.numpy(), labels=images.labels)
    stored = np.load(kept)
    return torch.from_numpy(stored["features"]), torch.from_numpy(stored["labels"]).long()


def fitted(x: Tensor, y: Tensor, classes: int, shrinkage: str | float = "loo") -> Head:
    """A Gaussian head without mirror images and pooled means, taught these features at once."""
    spec = BackboneSpec("kept", x.shape[1], 1, 1, 1, has_class_token=True, patches=1, norm_eps=1e-6)
    config = GaussianConfig(shrinkage=shrinkage)  # type: ignore[arg-type]  # as typed there
    head = HEADS["gaussian"](spec, config, lambda purpose: generator(0, purpose))
    task = Task(0, tuple(range(classes)), tuple(map(str, range(classes))), classes)
    head.start_task(task)
    with torch.no_grad():
        head.end_task(task, FeatureSurvey((x, y)))
    return head


def told_unknown(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], seed: int
) -> dict[str, float]:
    """AUROC of every score: half of the classes taught, test images of all, seed by seed."""
    drawn = np.random.default_rng(seed)
    classes = int(train[1].max()) + 1
    order = torch.from_numpy(drawn.permutation(classes))
    place = torch.empty(classes, dtype=torch.int64)
    place[order] = torch.arange(classes)
    known = classes // 2
    own = place[train[1]] < known
    head = fitted(train[0][own], place[train[1]][own], known)
    of_known = place[test[1]] < known
    with torch.no_grad():
        judged, left_out = head.scores_left_out(train[0][own], place[train[1]][own])
        losses = grid_losses(left_out, place[train[1]][own][judged])
        scores = familiarity_scores(head.evidence(test[0]), best_temperature(losses))
    return {
        name: 100 * (_separation(values[of_known], values[~of_known]).auroc or 0)
        for name, values in scores.items()
    }


def _separation(known: Tensor, unknown: Tensor) -> Separation:
    counts = [bins(part).unique(return_counts=True) for part in (known, unknown)]
    return Separation(*(dict(zip(p.tolist(), n.tolist(), strict=True)) for p, n in counts))


def swapped_found(x: Tensor, y: Tensor, seed: int) -> float:
    """Share of swapped labels among the first of the list, in per cent."""
    drawn, classes = np.random.default_rng(seed), int(y.max()) + 1
    wrong = drawn.permutation(len(y))[: round(SWAPPED * len(y))]
    labels = y.clone()
    for image in wrong:
        others = [label for label in range(classes) if label != int(y[image])]
        labels[image] = int(drawn.choice(others))
    ranked = rank_suspects(fitted(x, labels, classes), x, labels)
    first = {place for place, *_ in ranked[: math.ceil(LOOKED_AT * len(y))]}
    return 100 * len(first & set(wrong.tolist())) / len(wrong)


def after_rounds(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], seed: int, by: str
) -> float:
    """Accuracy on test images, in per cent, when all rounds are labelled."""
    (x, y), drawn = train, np.random.default_rng(seed)
    classes, labelled = int(y.max()) + 1, list[int]()
    for label in range(classes):
        labelled += drawn.permutation(np.flatnonzero((y == label).numpy()))[:START].tolist()
    for _ in range(ROUNDS):
        pool = sorted(set(range(len(y))) - set(labelled))
        if by == "random":
            rows: Sequence[int] = drawn.permutation(len(pool))[:PER_ROUND].tolist()
        else:
            head = fitted(x[labelled], y[labelled], classes)
            means = head.class_means()
            assert means is not None, "features are plain"
            with torch.no_grad():
                evidence = head.evidence(x[pool])
            rows = choose(x[pool], evidence, means, PER_ROUND, by, 1.0)  # type: ignore[arg-type]
        labelled += [pool[row] for row in rows]
    with torch.no_grad():
        named = fitted(x[labelled], y[labelled], classes).logits(test[0]).argmax(dim=1)
    return 100 * float((named == test[1]).double().mean())


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--only", default="unknown,swapped,suggest")
    parser.add_argument("--by", default="random,all", help="ways to suggest, and random")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        sides: tuple[Side, Side] = ("train", "test")
        parts = [features(args.photos, args.out, name, part, args.side) for part in sides]
        for seed in SEEDS:
            if "unknown" in args.only:
                found = told_unknown(parts[0], parts[1], seed)
                print(
                    name, "unknown", seed, *(f"{k} {v:.1f}" for k, v in found.items()), flush=True
                )
            if "swapped" in args.only:
                print(name, "swapped", seed, f"{swapped_found(*parts[0], seed):.0f} %", flush=True)
            if "suggest" in args.only and name == "grocery":
                for by in args.by.split(","):
                    accuracy = after_rounds(parts[0], parts[1], seed, by)
                    print(name, "suggest", seed, f"{by} {accuracy:.1f}", flush=True)


if __name__ == "__main__":
    main()
