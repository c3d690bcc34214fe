"""Output of commands: results to standard output, messages to standard error; rich only when used."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perdure.wording import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_UNBOUNDED = 100_000
"""Columns of an output that is no terminal: `grep` wants whole lines."""


def messages() -> Console:
    """Return the console for progress and notes, on standard error as it is now."""
    from rich.console import Console

    class MessageConsole(Console):
        """Falls silent when its reader has gone away: that must not end a run."""

        def on_broken_pipe(self) -> None:
            self.quiet = True

    return MessageConsole(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as indented JSON, at once: a program may wait for it."""
    print(json_text(value, indent=2), flush=True)


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON, with every character escaped that is not printable."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    # Within texts JSON itself escapes line breaks; those that are left are its own.
    return "".join(
        one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text
    )


def print_rich(renderable: RenderableType, unfolded: bool = False) -> None:
    """Print what rich lays out, without the spaces that it ends lines with.

    Args:
        renderable: such as a table.
        unfolded: where the output is no terminal, do not fold lines to a width.
    """
    from rich.console import Console

    rendered = io.StringIO()
    terminal = True if sys.stdout.isatty() else None  # None lets FORCE_COLOR and its like decide
    console = Console(file=rendered, force_terminal=terminal, highlight=False)
    if unfolded and not console.is_terminal:
        console.width = _UNBOUNDED
    console.print(renderable)
    for line in rendered.getvalue().splitlines():
        print(line.rstrip())


def print_columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under heads: folded to the width of a terminal, a line per row elsewhere."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, head in enumerate(heads):
        table.add_column(head, no_wrap=place == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    print_rich(table, unfolded=True)


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print a name and a value per line, values aligned."""
    width = max((len(name) for name, _ in fields), default=0)
    for name, value in fields:
        indented = printable(value, lines=True).replace("\n", "\n" + " " * (width + 2))
        print(f"{name:<{width}}  {indented}")


def in_words(value: Any) -> str:
    """Return a value as a table shows it: yes, no, a dash for none, lists joined by commas."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(printable(in_words(one)) for one in value) or "–"
    return str(value)
