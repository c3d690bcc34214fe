"""Results of runs in a terminal: their comparison, accuracy matrices and the choice of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.columns import Columns
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from perdure.cli.output import print_fields, print_json, print_rich
from perdure.reports.results.groups import Entry, by_benchmark
from perdure.reports.tables.comparison import as_records, as_rich, compare
from perdure.wording import per_cent

_SELECTION = {
    "prompts in use": "selection_share_in_use",
    "entropy of the choice": "selection_entropy",
    "its information on the task": "selection_task_information",
}
"""What stands in results of methods that select, of what it could be at most."""

_BOUNDS = {
    "oracle_last_accuracy": "given the task's own prompts",
    "all_seen_last_accuracy": "with statistics of all images measured anew",
}
"""Bounds of the last accuracy, and under what they hold."""

_WIDEST_MATRIX = 12
"""Tasks up to which the accuracy matrix is printed; the picture shows it in any case."""


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


def print_comparison(entries: Sequence[Entry], files: Sequence[Path], as_json: bool) -> None:
    """Print the comparison, and in which files its picture and table are."""
    if as_json:
        rows = as_records(compare(entries))
        print_json({"rows": rows, "files": [str(file) for file in files]})
        return
    print_rich(as_rich(compare(by_benchmark(entries))))
    print(f"picture  {files[0]}")
    print(f"table    {files[1]}")


def _print_diagnosis(entries: Sequence[Entry]) -> None:
    """Print what the choice of prompts knows of the task, and bounds of the last accuracy."""
    first = entries[0]
    diagnosis = first["diagnosis"]
    fields = []
    if diagnosis["task_accuracy"] is not None:
        fields = [(label, per_cent(first[key])) for label, key in _SELECTION.items()]
        told, chance = per_cent(diagnosis["task_accuracy"]), per_cent(diagnosis["task_chance"])
        fields.append(("task told from the choice of prompts", f"{told}; by chance {chance}"))
    for key, given in _BOUNDS.items():
        for entry in entries:
            bound = entry["diagnosis"].get(key)
            if bound is not None:
                text = f"{per_cent(bound)}; without {per_cent(entry['last_accuracy'])}"
                fields.append((f"last accuracy {given}, {entry['head']}", text))
    print("Diagnosis after the last task:")
    print_fields([(f"  {label}", text) for label, text in fields])
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
            cells = ["" if value is None else f"{100 * value:.1f}" for value in row]
            table.add_row(str(after), *cells)
    return table
