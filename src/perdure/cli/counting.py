"""How far something is, on standard error: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from perdure.cli.output import messages
from perdure.cli.progress import BETWEEN_LINES


class Counting:
    """Shows one thing after the other; a context manager, so that a terminal is left as it was.

    Args:
        of_bytes: whether bytes are counted.
    """

    def __init__(self, of_bytes: bool = False) -> None:
        self._console = messages()
        self._of_bytes = of_bytes
        self._live = sys.stderr.isatty() and not self._console.is_dumb_terminal
        counts = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            *counts,
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            # Results that go to the terminal too are to stand above the bars; others go their way.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._bar: TaskID | None = None
        self._what = ""
        self._last = time.monotonic()

    def __enter__(self) -> Counting:
        """Begin to show."""
        if self._live:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bars away."""
        if self._live:
            self._bars.stop()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Show that so much of something is done, of so much where that is known."""
        if self._live:
            self._move(what, done, total)
        elif time.monotonic() - self._last >= BETWEEN_LINES:
            self._last = time.monotonic()
            whole = "" if total is None else f" of {self._amount(total)}"
            self._console.print(f"{what}: {self._amount(done)}{whole}")

    def _move(self, what: str, done: int, total: int | None) -> None:
        if self._bar is None or what != self._what:
            if self._bar is not None:
                self._bars.remove_task(self._bar)
            self._bar, self._what = self._bars.add_task(what, total=total), what
        self._bars.update(self._bar, completed=done, total=total)

    def _amount(self, count: int) -> str:
        return f"{count / 1e6:,.1f} MB" if self._of_bytes else f"{count:,}"
