"""``perdure demo``: the digits, learned with four methods and compared."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from perdure.cli.arguments import add_overrides, add_quiet
from perdure.cli.output import messages
from perdure.cli.parsing import UsageError, add_command

DEMO = ("demo/finetune", "demo/nsp2", "demo/ncm", "demo/lda")
"""The presets of the demo, in the order in which they run."""


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "demo", demo, rest="overrides", again="")
    add_overrides(command, "for all four runs")
    command.option("--out", "DIR", default="runs/demo")
    add_quiet(command)


def demo(args: argparse.Namespace) -> int:
    """Learn the digits two at a time with four methods and compare them.

    Examples:
        perdure demo
        perdure demo --out /tmp/demo
        perdure demo backbone=test_vit weights=random img_size=32   in seconds, and worse

        An interrupted demo goes on where it stopped; finished runs are used again.
    """
    from perdure import experiment
    from perdure.cli.progress import open_display
    from perdure.cli.results import print_comparison
    from perdure.engine.config import load_config
    from perdure.reports.results.comparison import write_comparison
    from perdure.reports.results.groups import Entry

    began = time.perf_counter()
    out = Path(args.out)
    configs = {out / name.partition("/")[2]: load_config(name, args.overrides) for name in DEMO}
    for folder, config in configs.items():
        if (config.runtime.devices, config.runtime.nodes) != (1, 1):
            raise UsageError("The demo runs in one process: leave devices and nodes out.")
        experiment.check_folder(folder, config, resume=True)
    entries: list[Entry] = []
    for folder, config in configs.items():
        with open_display(config, quiet=args.quiet, label=folder.name) as display:
            finished = experiment.run(config, folder, resume=True, on_event=display)
        if finished.already:
            messages().print(f"{folder.name}: finished before; its results are used again")
        entries += finished.entries
    print_comparison(entries, write_comparison(out, entries), args.json)
    if not args.json:
        print(f"runs     {', '.join(str(folder) for folder in configs)}")
        learning = sum({entry["method"]: entry["seconds"] for entry in entries}.values())
        print(f"time     {learning:.0f} s learning; {time.perf_counter() - began:.0f} s this time")
        print(f"predict  perdure predict {out / 'nsp2'} IMAGE…")
    return 0
