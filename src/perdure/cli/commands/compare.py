"""``perdure compare`` and ``perdure demo``: several runs in one table and one picture."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from perdure.cli.output import messages, print_json, print_rich
from perdure.cli.progress import open_display
from perdure.engine.config import load_config
from perdure.errors import OutputError
from perdure.experiment import check_folder
from perdure.experiment import run as run_once
from perdure.reports.results.comparison import write_comparison
from perdure.reports.results.files import read_results
from perdure.reports.results.groups import Entry, by_benchmark
from perdure.reports.tables.comparison import as_records, as_rich
from perdure.reports.tables.comparison import compare as make_rows

DEMO = ("demo/finetune", "demo/nsp2", "demo/ncm", "demo/lda")
"""The presets of the demo, in the order in which they run."""


def compare(args: argparse.Namespace) -> int:
    """Do ``perdure compare``."""
    folders = [folder for given in args.folders for folder in result_folders(Path(given))]
    entries = [entry for folder in dict.fromkeys(folders) for entry in read_results(folder)]
    if not entries:
        raise OutputError("There is no result to compare in these folders.")
    files = write_comparison(Path(args.out), entries)
    _print(entries, files, args.json)
    return 0


def result_folders(path: Path) -> list[Path]:
    """Return the folders of finished runs that a name stands for.

    Args:
        path: a run's folder, its ``results.json``, or a folder that holds runs, at any depth.

    Raises:
        OutputError: it does not exist, or no run in it is finished.
    """
    if path.name == "results.json":
        return [path.parent]
    if not path.is_dir():
        what = "is no folder" if path.exists() else "does not exist"
        raise OutputError(
            f"'{path}' {what}. Name the folder of a finished run, as runs/digits/nsp2."
        )
    if (path / "results.json").exists():
        return [path]
    found = sorted(file.parent for file in path.rglob("results.json"))
    if not found:
        unfinished = (path / "config.toml").exists()
        raise OutputError(
            f"The run in '{path}' is not finished. Go on with "
            f"`perdure run {path / 'config.toml'} --out {path} --resume`."
            if unfinished
            else f"'{path}' holds no results.json. Name the folder of a finished run, or of several."
        )
    return found


def demo(args: argparse.Namespace) -> int:
    """Do ``perdure demo``."""
    began = time.perf_counter()
    out = Path(args.out)
    configs = {out / name.partition("/")[2]: load_config(name, args.overrides) for name in DEMO}
    for folder, config in configs.items():
        check_folder(folder, config, resume=True)
    entries: list[Entry] = []
    for folder, config in configs.items():
        with open_display(config, quiet=args.quiet, label=folder.name) as display:
            finished = run_once(config, folder, resume=True, on_event=display)
        if finished.already:
            messages().print(f"{folder.name}: finished before; its results are used again")
        entries += finished.entries
    files = write_comparison(out, entries)
    _print(entries, files, args.json)
    if not args.json:
        print(f"runs     {', '.join(str(folder) for folder in configs)}")
        learning = sum({entry["method"]: entry["seconds"] for entry in entries}.values())
        print(f"time     {learning:.0f} s learning; {time.perf_counter() - began:.0f} s this time")
        print(f"predict  perdure predict {out / 'nsp2'} IMAGE…")
    return 0


def _print(entries: Sequence[Entry], files: Sequence[Path], as_json: bool) -> None:
    if as_json:
        rows = as_records(make_rows(entries))
        print_json({"rows": rows, "files": [str(file) for file in files]})
        return
    print_rich(as_rich(make_rows(by_benchmark(entries))))
    print(f"picture  {files[0]}")
    print(f"table    {files[1]}")
