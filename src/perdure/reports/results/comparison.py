"""Files of a comparison: several results in one table and one picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from perdure.atomic import atomic_write, make_folder
from perdure.reports.figures.comparison import draw
from perdure.reports.results.files import write_markdown
from perdure.reports.results.groups import Entry, by_benchmark
from perdure.reports.tables.comparison import as_records, compare


def write_comparison(
    folder: Path, entries: Sequence[Entry], name: str = "comparison"
) -> list[Path]:
    """Write ``NAME.png``, ``NAME.md`` and ``NAME.json``, the last a list of rows, and return them.

    The folder is created when it is not there; there is at least one entry.
    """
    make_folder(folder)
    files = [folder / f"{name}.{suffix}" for suffix in ("png", "md", "json")]
    shown = by_benchmark(entries)
    draw(shown, files[0])
    write_markdown(files[1], shown)
    records = as_records(compare(entries))
    atomic_write(files[2], (json.dumps(records, indent=2) + "\n").encode())
    return files
