"""``perdure report``: one page of everything that some runs say."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from perdure.cli.commands.compare import result_folders
from perdure.cli.output import messages, print_json
from perdure.reports.page.html import check_target, make_report, write_report
from perdure.reports.results.runs import FinishedRun, read_run
from perdure.wording import counted


def report(args: argparse.Namespace) -> int:
    """Do ``perdure report``."""
    out = Path(args.out)
    check_target(out)
    runs = _runs([Path(folder) for folder in args.folders])
    messages().print(f"drawing the figures of {counted(len(runs), 'run')}")
    made = make_report(runs, against=args.against is not None)
    files = write_report(made, out)
    if args.json:
        found = {"files": [str(file) for file in files], "rows": made.records}
        print_json(found | ({"published": made.published} if args.against else {}))
        return 0
    print(f"report  {files[0]}")
    print(f"files   {files[1].parent} ({len(files) - 1} tables and figures)")
    return 0


def _runs(given: Sequence[Path]) -> list[FinishedRun]:
    """Read the runs that names stand for, each once."""
    folders = {folder.resolve(): folder for path in given for folder in result_folders(path)}
    return [run for folder in folders.values() if (run := read_run(folder))]
