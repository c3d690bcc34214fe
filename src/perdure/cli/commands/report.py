"""``perdure report``: one page with the tables and figures of several runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from perdure.cli.arguments import add_runs, result_folders
from perdure.cli.output import messages, print_json
from perdure.cli.parsing import add_command
from perdure.wording import counted


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "report", report, rest="folders")
    add_runs(command)
    command.option("--out", "FILE.html", default="report.html")
    command.option(
        "--against",
        "paper",
        "add published numbers, and say which of them compare",
        choices=("paper",),
    )


def report(args: argparse.Namespace) -> int:
    """Write one page with tables and figures of several runs.

    Examples:
        perdure report runs/digits/nsp2 runs/digits/finetune
        perdure report runs/digits --out digits.html         every run in a folder
        perdure report runs/digits --against paper           published numbers beside ours

        The page needs nothing else; its tables and figures lie beside it as files too.
    """
    from perdure.reports.page.html import check_target, make_report, write_report
    from perdure.reports.results.runs import read_run

    out = Path(args.out)
    check_target(out)
    folders = {
        folder.resolve(): folder for given in args.folders for folder in result_folders(Path(given))
    }
    runs = [run for folder in folders.values() if (run := read_run(folder))]
    messages().print(f"drawing the figures of {counted(len(runs), 'run')}")
    page = make_report(runs, against=args.against is not None)
    files = write_report(page, out)
    if args.json:
        published = {"published": page.published} if args.against else {}
        print_json({"files": [str(file) for file in files], "rows": page.records, **published})
        return 0
    print(f"report  {files[0]}")
    print(f"files   {files[1].parent} ({len(files) - 1} tables and figures)")
    return 0
