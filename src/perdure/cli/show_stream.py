"""Plot of a stream, ``perdure show STREAM --plot``: what every task brings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from perdure.cache import expanded
from perdure.cli.output import print_fields, print_json
from perdure.cli.parsing import UsageError
from perdure.engine.build import make_stream
from perdure.engine.config import Config, load_config, make_config, read_overrides
from perdure.errors import UnknownNameError, did_you_mean
from perdure.presets.sections import preset_names
from perdure.reports.figures.stream import StreamCounts, count_stream, draw_stream
from perdure.streams import SOURCES
from perdure.streams.config import HUB


def plot(args: argparse.Namespace) -> int:
    """Draw the stream that the arguments name, and say where the picture is."""
    path = _target(args.out, args.name)
    config = _config(args.name, args.overrides)
    stream = make_stream(config)
    counts = count_stream(stream)
    draw_stream(counts, Path(config.stream.place or config.stream.source).name, path)
    if args.json:
        print_json({"picture": str(path), "notes": list(stream.notes), "tasks": _tasks(counts)})
        return 0
    print_fields([("picture", str(path)), *(("note", note) for note in stream.notes)])
    return 0


def _target(out: str | None, name: str) -> Path:
    if out is None:
        return Path(f"{Path(name).stem if Path(name).exists() else name.replace('/', '-')}.png")
    if Path(out).suffix.lower() != ".png":
        raise UsageError(f"--out {out}: the picture is a PNG. Type: --out {Path(out).stem}.png")
    return Path(out)


def _config(name: str, overrides: list[str]) -> Config:
    """Configuration of the stream: a preset's, or that of a method that needs nothing."""
    if name in preset_names():
        return load_config(name, overrides)
    if not (name in SOURCES or name.startswith(f"{HUB}:") or expanded(name).exists()):
        raise UnknownNameError(
            f"Unknown stream '{name}' for --plot.{did_you_mean(name, {*SOURCES, *preset_names()})} "
            f"Known: {', '.join(SOURCES)}; a folder, table or data set of yours that is there; and "
            "the presets that `perdure ls presets` lists."
        )
    return make_config({"method": "lda", "data": name}).replace(**read_overrides(overrides))


def _tasks(counts: StreamCounts) -> list[dict[str, Any]]:
    def shown(part: Any, task: int) -> dict[str, int]:
        pairs = zip(counts.classes, part[:, task].tolist(), strict=True)
        return {name: count for name, count in pairs if count}

    return [
        {
            "task": task + 1,
            "domain": counts.domains[task] if counts.domains else None,
            **{split: shown(getattr(counts, split), task) for split in ("train", "val", "test")},
        }
        for task in range(counts.train.shape[1])
    ]
