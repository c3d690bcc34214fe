"""Writers of predictions: table, CSV or JSON, line by line as they come."""

from __future__ import annotations

import abc
import csv
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from perdure.cli.output import json_text
from perdure.learner.predict_files import Answer
from perdure.streams.decoding import ImageFile
from perdure.wording import csv_cell, per_cent, printable

_WIDEST = 30
"""Characters of a class name that columns make room for."""


_SHOWN = 0.001
"""From what probability on a table names a class beside the first one."""


_UNKNOWN = "(unknown)"
"""What a table names where an image is of no known class."""


@runtime_checkable
class Output(Protocol):
    """What standard output and open text files have in common."""

    def write(self, text: str, /) -> object:
        """Write a text."""

    def flush(self) -> object:
        """Hand on what was written."""


class Writer(abc.ABC):
    """Writes answers to a stream; a context manager, which writes what comes before and after.

    What was written is complete only where the context was left without an error.

    Args:
        out: where to.
        classes: names of all classes.
        top: number of classes per answer.
        familiarity: whether to write how familiar an image is, as where strange ones are rejected.
    """

    def __init__(
        self, out: Output, classes: Sequence[str], top: int, *, familiarity: bool = False
    ) -> None:
        self._out = out
        self._classes = classes
        self._top = min(top, len(classes))
        self._familiarity = familiarity

    def __enter__(self) -> Writer:
        """Write what comes first."""
        self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what comes last."""
        if kind is None:
            self._end()
            self._out.flush()

    def __call__(self, answer: Answer) -> None:
        """Write one answer, at once."""
        self._write(answer)
        self._out.flush()

    @abc.abstractmethod
    def _begin(self) -> None: ...

    @abc.abstractmethod
    def _write(self, answer: Answer) -> None: ...

    def _end(self) -> None:
        return


class TableWriter(Writer):
    """Writes a line per image for people: what can be aligned without knowing the rest, first."""

    def _begin(self) -> None:
        widths = [min(len(printable(name)), _WIDEST) for name in self._classes]
        self._width = max(len("class"), len(_UNKNOWN), *widths)
        self._line("probability", "class", "image")

    def _write(self, answer: Answer) -> None:
        image = _on_one_line(answer.path)
        if answer.fault:
            self._line("-", "-", f"{image}: {printable(answer.fault)}")
            return
        best, *others = answer.ranking
        if answer.rejected:
            rest = f"{image}  (as strange as {per_cent(answer.familiarity)} of known images)"
            self._line("-", _UNKNOWN, rest)
            return
        more = ", ".join(
            f"{printable(one.name)} {per_cent(one.probability)}"
            for one in others
            if one.probability >= _SHOWN
        )
        rest = f"{image}  ({more})" if more else image
        self._line(per_cent(best.probability), printable(best.name), rest)

    def _line(self, probability: str, name: str, rest: str) -> None:
        self._out.write(f"{probability:>11}  {name:<{self._width}}  {rest}\n")


class CsvWriter(Writer):
    """Writes comma-separated values: a head, then a row per image."""

    def _begin(self) -> None:
        self._csv = csv.writer(self._out, lineterminator="\n")
        more = [
            f"{key}_{place}"
            for place in range(2, self._top + 1)
            for key in ("class", "probability")
        ]
        last = ["familiarity", "error"] if self._familiarity else ["error"]
        self._csv.writerow(["path", "class", "probability", *more, *last])

    def _write(self, answer: Answer) -> None:
        cells: list[str | float] = [""] * (2 * self._top)
        for place, one in enumerate(answer.ranking):
            cells[2 * place : 2 * place + 2] = [one.name, one.probability]
        if answer.rejected:
            cells[:2] = ["", ""]
        if self._familiarity:
            cells.append("" if answer.familiarity is None else answer.familiarity)
        self._csv.writerow([csv_cell(cell) for cell in (answer.path, *cells, answer.fault)])


class JsonWriter(Writer):
    """Writes a JSON list of objects, one in a line."""

    def _begin(self) -> None:
        self._before = "[\n"

    def _write(self, answer: Answer) -> None:
        self._out.write(self._before + json_text(answer.to_dict()))
        self._before = ",\n"

    def _end(self) -> None:
        self._out.write("[]\n" if self._before == "[\n" else "\n]\n")


WRITERS: dict[str, type[Writer]] = {"table": TableWriter, "csv": CsvWriter, "json": JsonWriter}


def _on_one_line(path: ImageFile) -> str:
    """Show a path; one with line breaks or the like as Python would write it."""
    text = str(path)
    return text if text.isprintable() else repr(text)
