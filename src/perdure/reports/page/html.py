"""A report as one page that needs nothing else, and its tables and figures as files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import perdure
from perdure.atomic import atomic_write, check_place, make_folder
from perdure.errors import OutputError
from perdure.reports.figures.render import PROPERTIES, as_png, as_svg
from perdure.reports.page.sections import ReportSection, sections_of
from perdure.reports.results.runs import FinishedRun, by_stream
from perdure.reports.tables.against_published import against_paper
from perdure.reports.tables.comparison import as_records, compare
from perdure.reports.tables.text_table import as_csv, encode

_TEMPLATE, _STYLE = "report.html.jinja", "report.css"
_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class ReportFiles:
    """A page with the files beside it, nothing of it written yet.

    Attributes:
        page: the HTML.
        files: contents of the files beside it, by name.
        records: rows of its tables of metrics, as `comparison.as_records` gives them.
        published: pairs with published results, as `PublishedComparison.records` gives them.
    """

    page: bytes
    files: dict[str, bytes]
    records: list[dict[str, Any]]
    published: list[dict[str, Any]]


def make_report(runs: Sequence[FinishedRun], against: bool = False) -> ReportFiles:
    """Put a report together, published numbers beside ours where that is asked for.

    Runs over different streams get parts and tables of their own.

    Raises:
        OutputError: there is no run.
    """
    if not runs:
        raise OutputError("There is no result to report. Name the folder of a finished run.")
    files: dict[str, bytes] = {}
    records, published, parts = [], [], []
    streams = by_stream(runs)
    for place, stream in enumerate(streams, start=1):
        rows = compare(stream.entries)
        comparison = against_paper(stream, rows) if against else None
        prefix = f"{place}-" if len(streams) > 1 else ""
        sections = [_as_page(one, prefix, files) for one in sections_of(stream, rows, comparison)]
        parts.append({"anchor": f"stream-{place}", "title": stream.title, "sections": sections})
        # Programs want numbers where the page has texts.
        numbers = as_records(rows)
        files[f"{prefix}metrics.csv"] = _records_csv(numbers)
        records += numbers
        published += comparison.records() if comparison else []
    page = _template().render(
        version=perdure.__version__,
        style=Markup(_resource(_STYLE)),  # ours, no data in it
        properties=PROPERTIES,
        methods=list(dict.fromkeys(run.method for run in runs)),
        count=len(runs),
        streams=parts,
    )
    return ReportFiles(encode(page), files, records, published)


def check_target(out: Path) -> None:
    """Refuse a name that no page can have; nothing is created.

    Raises:
        OutputError: it is a folder, does not end in ``.html``, or its folder cannot be written.
    """
    if out.is_dir():
        raise OutputError(
            f"'{out}' is a folder. Type the name of the page, as --out {out / 'report.html'}."
        )
    if out.suffix.lower() not in _SUFFIXES:
        raise OutputError(f"'{out}' does not end in .html. Type --out {out}.html.")
    check_place(out.parent)


def write_report(report: ReportFiles, out: Path) -> list[Path]:
    """Write a report's files to ``<stem>_files`` beside the page, then the page.

    Returns:
        Everything written, the page first.

    Raises:
        OutputError: something cannot be written; the page is then as it was before.
    """
    check_target(out)
    folder = make_folder(out.parent / f"{out.stem}_files")
    for name, content in report.files.items():
        atomic_write(folder / name, content)
    atomic_write(out, report.page)
    return [out, *(folder / name for name in report.files)]


def _as_page(section: ReportSection, prefix: str, files: dict[str, bytes]) -> dict[str, Any]:
    """Return what the template shows of a section; its tables and figures join the files."""
    for table in section.tables:
        files[f"{prefix}{table.name}.md"] = encode(table.content.markdown())
        files[f"{prefix}{table.name}.csv"] = table.content.csv()
    drawings = []
    for name, figure in section.figures:
        drawings.append(Markup(as_svg(figure, prefix + name)))  # texts in it are escaped
        files[f"{prefix}{name}.png"] = as_png(figure)
    return {**vars(section), "figures": drawings}


def _records_csv(records: Sequence[dict[str, Any]]) -> bytes:
    """Return records with a column per mean, deviation and number of seeds, as fractions."""
    lines = []
    for record in records:
        flat: dict[str, Any] = {}
        for key, value in record.items():
            if isinstance(value, dict):
                flat |= {f"{key}_{part}": number for part, number in value.items()}
            else:
                flat[key] = " ".join(map(str, value)) if isinstance(value, list) else value
        lines.append(flat)
    return as_csv([list(lines[0]), *(list(line.values()) for line in lines)])


def _template() -> Any:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_resource(_TEMPLATE))


def _resource(name: str) -> str:
    return (resources.files("perdure.reports.page") / name).read_text("utf-8")
