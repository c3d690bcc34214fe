"""Choose hyperparameters on validation images: every setting of a grid, the same grid size per method.

Training images are split once per class (``validation_fraction``); settings are trained on the rest
and scored on the held-out images. Test images are never touched. Finished settings are kept in a
JSON-lines file and skipped when the script runs again. At the end every setting is shown as the mean
over its seeds, best first.

Usage: python benchmarks/accuracy/tune.py demo/nsp2 --set validation_fraction=0.2 \
         --grid temperature=5,28 lr=0.003,0.01 seed=2024,2025,2026 --out tune.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Any

from perdure.engine.build import make_backbone, make_stream
from perdure.engine.config import Config, load_config
from perdure.engine.run import Run
from perdure.metrics import Counts, summarise
from perdure.streams import Stream

KEPT = ("last_accuracy", "forgetting", "plasticity", "within_task_accuracy")


def validation_stream(config: Config, img_size: int) -> Stream:
    """The run's stream with each task's validation images in place of its test images."""
    stream = make_stream(config, img_size)
    tasks = []
    for data in stream.tasks:
        assert data.val is not None
        tasks.append(dataclasses.replace(data, test=data.val))
    return dataclasses.replace(stream, tasks=tuple(tasks))


def main() -> None:
    """Run the grid and print one line per setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("--grid", nargs="*", default=[], help="key=value,value,…")
    parser.add_argument("--set", nargs="*", default=[], help="key=value for every setting")
    parser.add_argument("--out", type=Path, default=Path("runs/tune.jsonl"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    lines = _read(args.out)
    done = {line["hash"] for line in lines}
    chosen: set[str] = set()
    keys = [entry.partition("=")[0] for entry in args.grid]
    choices = [entry.partition("=")[2].split(",") for entry in args.grid]
    backbone = None
    for values in itertools.product(*choices):
        setting = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
        config = load_config(args.preset, [*args.set, *setting])
        chosen.add(config.hash())
        if config.hash() in done:
            continue
        backbone = backbone or make_backbone(config)
        began = time.perf_counter()
        outcome = Run(config, validation_stream(config, backbone.img_size), backbone)()
        for head, rows in outcome.rows.items():
            metrics = summarise(Counts.from_rows(rows))
            line = {
                "hash": config.hash(),
                "preset": args.preset,
                "setting": args.set + setting,
                "head": head,
                "seconds": round(time.perf_counter() - began, 1),
                **{key: metrics[key] for key in KEPT},
            }
            with args.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            shown = " ".join(f"{k}={100 * line[k]:.1f}" for k in KEPT if line[k] is not None)
            print(args.preset, *setting, head, shown, f"{line['seconds']}s", flush=True)
    _show_means([line for line in _read(args.out) if line["hash"] in chosen])


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _show_means(lines: list[dict[str, Any]]) -> None:
    """Print the mean over seeds of every setting and head, best accuracy first."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for line in lines:
        setting = [entry for entry in line["setting"] if not entry.startswith("seed=")]
        groups.setdefault((line["preset"], line["head"], *setting), []).append(line)

    def means(name: tuple[str, ...]) -> dict[str, float]:
        found = groups[name]
        return {key: sum(100 * line[key] for line in found) / len(found) for key in KEPT[:2]}

    print("\nmean over seeds")
    for name in sorted(groups, key=lambda name: -means(name)["last_accuracy"]):
        shown = " ".join(f"{key}={value:.1f}" for key, value in means(name).items())
        print(*name, shown, f"({len(groups[name])} seeds)")


if __name__ == "__main__":
    main()
