"""``perdure run``: one configuration, or the same with several seeds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from perdure.cli.dry_run import make_plan, print_plan
from perdure.cli.output import messages, print_json, print_rich
from perdure.cli.parsing import UsageError
from perdure.cli.progress import open_display
from perdure.engine.config import Config, load_config
from perdure.engine.diagnose import check_diagnosable
from perdure.experiment import Finished, default_folder, run_seeds
from perdure.experiment import run as run_once
from perdure.reports.results.comparison import write_comparison
from perdure.reports.results.groups import Entry, by_benchmark
from perdure.reports.tables.comparison import as_records, as_rich, compare
from perdure.wording import per_cent

_SELECTION = {
    "prompts in use": "selection_share_in_use",
    "entropy of the choice": "selection_entropy",
    "its information on the task": "selection_task_information",
}
"""What stands in results of methods that select, of what it could be at most."""

_WIDEST_MATRIX = 12
"""Tasks up to which the accuracy matrix is printed; the picture shows it in any case."""


def run(args: argparse.Namespace) -> int:
    """Do ``perdure run``."""
    overrides = [*args.overrides, *(["skip_unreadable=true"] if args.skip_unreadable else [])]
    config = load_config(args.what, overrides)
    seeds = read_seeds(args.seeds, overrides)
    out = Path(args.out) if args.out else default_folder(config)
    if args.diagnose:
        check_diagnosable(config.training.method)
    if args.dry_run:
        plan = make_plan(config, out, seeds, args.resume)
        print_json(plan) if args.json else print_plan(plan)
    elif seeds:
        _run_seeds(args, config, seeds, out)
    else:
        _run_one(args, config, out)
    return 0


def read_seeds(text: str | None, overrides: Sequence[str]) -> list[int]:
    """Read what ``--seeds`` says; an empty list where nothing was said.

    Raises:
        UsageError: it is no list of different numbers, or an override sets the seed too.
    """
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) != len(parts):
        raise UsageError(
            f"--seeds {text}: allowed are different whole numbers joined by commas, as --seeds 0,1,2."
        )
    given = [override for override in overrides if override.partition("=")[0].strip() == "seed"]
    if given:
        raise UsageError(f"{given[0]} and --seeds {text} contradict each other. Leave one out.")
    return [int(part) for part in parts]


def _run_one(args: argparse.Namespace, config: Config, out: Path) -> None:
    with open_display(config, quiet=args.quiet) as display:
        finished = run_once(
            config, out, resume=args.resume, diagnose=args.diagnose, on_event=display
        )
    say_finished(finished, f"This run is finished; its results are in {out}.")
    if args.json:
        print_json(_as_object(finished))
        return
    print_results(finished.entries)
    print(f"results  {finished.folder}")
    print(f"picture  {finished.folder / 'results.png'}")
    print(f"predict  perdure predict {finished.folder} IMAGE…")


def _run_seeds(args: argparse.Namespace, config: Config, seeds: Sequence[int], out: Path) -> None:
    done: list[Finished] = []
    for seed in seeds:
        label = f"seed {seed}"
        with open_display(config, quiet=args.quiet, label=label) as display:
            done += run_seeds(
                config, [seed], out, resume=args.resume, diagnose=args.diagnose, on_event=display
            )
        say_finished(done[-1], f"{label} is finished; its results are in {done[-1].folder}.")
    entries = [entry for finished in done for entry in finished.entries]
    write_comparison(out, entries, "summary")
    rows = compare(entries)
    if args.json:
        runs = [_as_object(finished) for finished in done]
        print_json({"folder": str(out), "summary": as_records(rows), "runs": runs})
        return
    print_rich(as_rich(rows))
    print(f"summary  {out / 'summary.json'}")
    print(f"picture  {out / 'summary.png'}")
    print(f"predict  perdure predict {done[0].folder} IMAGE…")


def say_finished(finished: Finished, text: str) -> None:
    """Tell that nothing had to be done, where that is so."""
    if finished.already:
        messages().print(text)


def print_results(entries: Sequence[Entry]) -> None:
    """Print the comparison and a small accuracy matrix per head."""
    print_rich(as_rich(compare(by_benchmark(entries))))
    if len(entries[0]["accuracy_matrix"]) <= _WIDEST_MATRIX:
        print("Accuracy on each task (across) after each task learned (down), %:")
        matrices = [_matrix(entry) for entry in entries]
        print_rich(Padding(Columns(matrices, padding=(0, 4, 1, 0)), (1, 0, 0, 1)))
        print()
    if "diagnosis" in entries[0]:
        _print_diagnosis(entries)


def _print_diagnosis(entries: Sequence[Entry]) -> None:
    """Print what the choice of prompts knows of the task."""
    first = entries[0]
    found = first["diagnosis"]
    shown = [(label, per_cent(first[key])) for label, key in _SELECTION.items()]
    chance = f"{per_cent(found['task_accuracy'])}; by chance {per_cent(found['task_chance'])}"
    shown.append(("task told from the choice", chance))
    for entry in entries:
        oracle = entry["diagnosis"]["oracle_last_accuracy"]
        if oracle is not None:
            text = f"{per_cent(oracle)}; without {per_cent(entry['last_accuracy'])}"
            shown.append((f"last accuracy given the task's own prompts, {entry['head']}", text))
    print("Choice of prompts after the last task:")
    width = max(len(label) for label, _ in shown)
    for label, text in shown:
        print(f"  {label:{width}}  {text}")
    print()


def _matrix(entry: Entry) -> Table:
    """Accuracy in per cent: a row after each task, a column per task evaluated."""
    table = Table(
        title=f"{entry['method']} · {entry['head']}",
        title_justify="left",
        title_style="",
        box=None,
        padding=(0, 1),
        pad_edge=False,
    )
    matrix = entry["accuracy_matrix"]
    table.add_column("", style="dim")
    for task in range(1, len(matrix) + 1):
        table.add_column(Text(str(task), style="dim"), justify="right")
    for after, row in enumerate(matrix, start=1):
        if any(value is not None for value in row):
            shown = ["" if value is None else f"{100 * value:.1f}" for value in row]
            table.add_row(str(after), *shown)
    return table


def _as_object(finished: Finished) -> dict[str, Any]:
    return {
        "folder": str(finished.folder),
        "already_finished": finished.already,
        "picture": str(finished.folder / "results.png"),
        "model": str(finished.folder / "model"),
        "results": finished.entries,
    }
