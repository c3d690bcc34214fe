"""Tables of texts, as Markdown, as CSV and for the pages of a report."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from perdure.wording import csv_cell, printable

MISSING = "–"
"""Stands where a value is not known."""


class Cell(NamedTuple):
    """The text in one place of a table; the best of its column is shown bold."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class TextTable:
    """A table of texts.

    Attributes:
        heads: one per column.
        rows: lists of as many cells; may be none.
        align: a letter per column: ``l`` for texts, ``r`` for figures.
        note: note below the table; empty for none.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    align: str
    note: str = ""

    @classmethod
    def plain(
        cls, heads: Sequence[str], rows: Iterable[Iterable[object]], align: str = ""
    ) -> TextTable:
        """Return a table in which nothing is the best; columns are texts unless said otherwise."""
        cells = [[Cell(str(text)) for text in row] for row in rows]
        return cls(heads, cells, align or "l" * len(heads))

    def markdown(self) -> str:
        """Return a GitHub table, one line per row, and the note; ends in a newline."""
        marks = [":--" if letter == "l" else "--:" for letter in self.align]
        lines = [list(self.heads), marks, *([_marked(cell) for cell in row] for row in self.rows)]
        table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        return f"{table}\n{self.note}\n" if self.note else table

    def csv(self) -> bytes:
        """Return comma-separated values, in UTF-8, without the note."""
        return as_csv([self.heads, *([cell.text for cell in row] for row in self.rows)])


def as_csv(rows: Iterable[Sequence[object]]) -> bytes:
    """Return comma-separated values; cells are safe to show, see `csv_cell`."""
    text = io.StringIO()
    lines = ([csv_cell(cell) for cell in row] for row in rows)
    csv.writer(text, lineterminator="\n").writerows(lines)
    return encode(text.getvalue())


def encode(text: str) -> bytes:
    """Return the text in UTF-8; what is no UTF-8, as parts of file names may be, is escaped.

    Names that come from such files must not cost a finished run its results.
    """
    return text.encode(errors="backslashreplace")


def _marked(cell: Cell) -> str:
    text = printable(cell.text.replace("\n", " ")).replace("|", r"\|")
    return f"**{text}**" if cell.best else text
