"""Every method on two data sets and two streams, and the experiments on I-Prompt, in one recipe.

Every run is a cell with a folder of its own; finished cells are kept and skipped, interrupted ones go
on. At the end the tables between the markers of docs/results.md are written anew from what is there.

Usage: python benchmarks/accuracy/results.py                        everything (more than an hour)
       python benchmarks/accuracy/results.py --only digits/5x2      cells whose name begins so
       python benchmarks/accuracy/results.py --tables               only write the tables anew
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perdure.engine.config import Config, make_config
from perdure.engine.diagnose import selecting_methods
from perdure.experiment import run
from perdure.methods import METHODS
from perdure.reports.results.files import read_results

DOCUMENT = Path(__file__).parents[2] / "docs" / "results.md"
DATA = {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}
STREAMS = {"5x2": "B0-Inc2", "4+2+2+2": "4+2+2+2"}
RECIPE: dict[str, Any] = {
    "backbone": "clip_vit_base_patch16",
    "img_size": 64,
    "images_per_class": 30,
    "test_images_per_class": 30,
    "seed": 2024,
    "transform": "plain",
    "head_inputs": "centred",
    "epochs": 4,
    "batch_size": 8,
    "lr": 0.003,
    "schedule": "cosine",
    "cache_queries": True,
    "precision": "fp32",
}
"""The same for every method, whatever its paper's."""
TEMPERATURE = 5.0
"""Of the VPT family, as in the presets."""
GUIDED = ("language", "zero_shot")
"""Heads that compare images with class vectors; here the classes' mean images stand in for texts."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "prompt_blocks: first third": {"prompt_blocks": [0, 1, 2, 3]},
    "prompt_blocks: last third": {"prompt_blocks": [-4, -3, -2, -1]},
    "pool = 5": {"pool": 5},
    "pool = 80": {"pool": 80},
    "selection = topk (5)": {"selection": "topk"},
    "selection = soft (0.1)": {"selection": "soft"},
    "scale_by_similarity = false": {"scale_by_similarity": False},
    "where = mlp": {"where": "mlp"},
    "target = cls": {"target": "cls"},
    "key_init = random": {"key_init": "random"},
    "key_pull = 0": {"key_pull": 0.0},
    "keys = residual": {"keys": "residual"},
    "readout = cls": {"readout": "cls"},
    "readout = tokens": {"readout": "tokens"},
    "token_weights = similarity": {"token_weights": "similarity"},
    "token_weights = uniform": {"token_weights": "uniform"},
    "target = cls, readout = cls": {"target": "cls", "readout": "cls"},
}
"""Every choice of the reconstruction, changed alone; the last one is class-token-only prompting."""

IMBALANCE = 0.05
"""Accuracy lost under imbalance from which it is flagged."""


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        name: ``data/stream/method``, or ``data/stream/iprompt: change``.
        values: keys of its configuration.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        """The checked configuration."""
        return make_config({**RECIPE, **self.values})

    def folder(self, root: Path) -> Path:
        """Where its results are."""
        return root / re.sub(r"[^\w/+.-]+", "-", self.name)


def cells() -> list[Cell]:
    """All runs, those of the main table first."""
    found = []
    for data in DATA:
        for stream, sizes in STREAMS.items():
            shared = {"data": data, "tasks": sizes}
            for method in METHODS:
                found.append(Cell(f"{data}/{stream}/{method}", {**shared, **options_of(method)}))
    for change, options in list(ABLATIONS.items())[1:]:
        values = {"data": "digits", "tasks": STREAMS["5x2"], **options_of("iprompt"), **options}
        found.append(Cell(f"digits/5x2/iprompt: {change}", values))
    return found


def options_of(method: str) -> dict[str, Any]:
    """What a method's cell needs beside the recipe."""
    values: dict[str, Any] = {"method": method}
    traits = METHODS[method].traits
    if traits.trains and not traits.fixed_heads:
        values["heads"] = [traits.trained_head, "gaussian"]
    if traits.heads[0] in GUIDED:
        values["class_embeddings"] = "mean"
    elif "temperature" in {option.name for option in _fields(method)}:
        values["temperature"] = TEMPERATURE
    return values


def _fields(method: str) -> Iterable[Any]:
    return METHODS[method].Config.__dataclass_fields__.values()


def main() -> None:
    """Run what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of cells' names")
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    parser.add_argument("--tables", action="store_true", help="run nothing")
    args = parser.parse_args()
    for cell in [] if args.tables else cells():
        if cell.name.startswith(tuple(args.only)):
            selects = cell.values["method"] in selecting_methods()
            finished = run(cell.config, cell.folder(args.out), resume=True, diagnose=selects)
            if not finished.already:
                print(cell.name, summary_of(finished.entries), flush=True)
    write_tables(tables(finished_among(cells(), args.out)))


Results = Mapping[str, Sequence[Mapping[str, Any]]]


def finished_among(given: Iterable[Cell], root: Path) -> Results:
    """Results of the cells that are finished, by their names."""
    return {
        cell.name: read_results(folder)
        for cell in given
        if (folder := cell.folder(root)).joinpath("results.json").exists()
    }


def summary_of(entries: Sequence[Mapping[str, Any]]) -> str:
    """Last accuracy of every head, and the seconds a run took."""
    shown = [f"{entry['head']} {100 * entry['last_accuracy']:.1f}" for entry in entries]
    return f"{' '.join(shown)}  {entries[0]['seconds']:.0f} s"


def tables(done: Results) -> dict[str, str]:
    """Every table of this recipe by the name of its marker."""
    streams = {f"{data}/{stream}": f"{DATA[data]} {stream}" for data in DATA for stream in STREAMS}
    found = {"selection": selection_table(done, streams), "ablation": ablation_table(done)}
    found["signatures"] = signatures(done)
    return found | {stream.replace("/", " "): main_table(done, stream) for stream in streams}


def write_tables(found: Mapping[str, str]) -> None:
    """Write tables between their markers in the document."""
    text = DOCUMENT.read_text("utf-8")
    for name, table in found.items():
        begin, end = f"<!-- table {name} -->", "<!-- end -->"
        before, marker, rest = text.partition(begin)
        if not marker:
            raise SystemExit(f"{DOCUMENT} has no marker {begin}")
        text = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    DOCUMENT.write_text(text, "utf-8")


def main_table(done: Results, stream: str) -> str:
    """Accuracy and forgetting of every method under both heads."""
    rows = [
        "| method | trained head: last | average | forgetting | gaussian: last | average | "
        "forgetting |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
    ]
    for method in METHODS:
        entries = done.get(f"{stream}/{method}")
        if entries:
            heads = {entry["head"]: entry for entry in entries}
            trained = next((heads[name] for name in ("linear", *GUIDED) if name in heads), None)
            closed = heads.get("gaussian") or heads.get("ncm")
            cells = [*_scores(trained), *_scores(closed)]
            rows.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def _scores(entry: Mapping[str, Any] | None) -> list[str]:
    keys = ("last_accuracy", "average_incremental_accuracy", "forgetting")
    if entry is None:
        return ["–"] * len(keys)
    return ["–" if entry[key] is None else f"{100 * entry[key]:.1f}" for key in keys]


def selection_table(done: Results, streams: Mapping[str, str]) -> str:
    """What the choice of prompts knows, for every method that selects.

    Args:
        done: results by cell.
        streams: titles of streams, by the beginning of their cells' names.
    """
    rows = [
        "| stream | method | in use | entropy | information on the task | task told (chance) | "
        "linear, own task's prompts | gaussian, own task's prompts |",
        "| :-- | :-- | --: | --: | --: | --: | --: | --: |",
    ]
    for stream, title in streams.items():
        for method in selecting_methods():
            entries = done.get(f"{stream}/{method}")
            if entries and "diagnosis" in entries[0]:
                rows.append(f"| {title} | {_selection(method, entries)} |")
    return "\n".join(rows)


def _selection(method: str, entries: Sequence[Mapping[str, Any]]) -> str:
    first = entries[0]
    found = first["diagnosis"]
    told = f"{100 * found['task_accuracy']:.1f} ({100 * found['task_chance']:.1f})"
    shares = ("share_in_use", "entropy", "task_information")
    cells = [f"{100 * first[f'selection_{share}']:.1f}" for share in shares]
    oracles = []
    for entry in entries:
        oracle = entry["diagnosis"]["oracle_last_accuracy"]
        gain = "" if oracle is None else f" ({100 * (oracle - entry['last_accuracy']):+.1f})"
        oracles.append("–" if oracle is None else f"{100 * oracle:.1f}{gain}")
    return f"`{method}` | {' | '.join([*cells, told, *oracles])}"


def ablation_table(done: Results) -> str:
    """I-Prompt with one choice changed at a time."""
    rows = [
        "| changed | linear: last | average | forgetting | gaussian: last | average | forgetting | "
        "in use | information on the task |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for change in ABLATIONS:
        name = "iprompt" if change == "the defaults" else f"iprompt: {change}"
        entries = done.get(f"digits/5x2/{name}")
        if entries:
            shares = ("selection_share_in_use", "selection_task_information")
            cells = [score for entry in entries for score in _scores(entry)]
            cells += [f"{100 * entries[0][share]:.1f}" for share in shares]
            rows.append(f"| {change} | {' | '.join(cells)} |")
    return "\n".join(rows)


def signatures(done: Results) -> str:
    """Degradation under imbalance, a failure signature of I-Prompt, flagged where it is seen."""
    lines = []
    for data, title in DATA.items():
        pair = [done.get(f"{data}/{stream}/iprompt") for stream in STREAMS]
        if pair[0] and pair[1]:
            for balanced, other in zip(pair[0], pair[1], strict=True):
                lost = balanced["last_accuracy"] - other["last_accuracy"]
                flag = "**seen**" if lost > IMBALANCE else "not seen"
                lines.append(
                    f"- Degradation under imbalance, {title}, {balanced['head']}: {flag} "
                    f"({100 * balanced['last_accuracy']:.1f} % balanced, "
                    f"{100 * other['last_accuracy']:.1f} % imbalanced)."
                )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
