"""``perdure compare``: several runs in one table and one picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from perdure.cli.arguments import add_runs, result_folders
from perdure.cli.parsing import add_command
from perdure.errors import OutputError


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "compare", compare, rest="folders")
    add_runs(command)
    command.option(
        "--out", "DIR", "where comparison.png, .md and .json go", default="runs/comparison"
    )


def compare(args: argparse.Namespace) -> int:
    """Print one table and draw one picture of several runs.

    Examples:
        perdure compare runs/digits/nsp2 runs/digits/finetune
        perdure compare runs/digits --out runs/digits/all    every run in a folder
        perdure compare runs/demo --json
    """
    folders = {
        folder.resolve(): folder for given in args.folders for folder in result_folders(Path(given))
    }
    from perdure.cli.results import print_comparison
    from perdure.reports.results.comparison import write_comparison
    from perdure.reports.results.runs import entries_of, read_run

    entries = entries_of([run for folder in folders.values() if (run := read_run(folder))])
    if not entries:
        raise OutputError("There is no result to compare in these folders.")
    print_comparison(entries, write_comparison(Path(args.out), entries), args.json)
    return 0
