"""Progress on standard error: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import abc
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from perdure.cli.interrupt import CtrlC
from perdure.cli.output import messages
from perdure.engine.config import Config
from perdure.engine.events import Event
from perdure.wording import counted, listed, per_cent, printable

BETWEEN_LINES = 10.0
"""Seconds between two lines of progress where there is no terminal."""


def open_display(config: Config, *, quiet: bool = False, label: str = "") -> Display:
    """Return what suits standard error.

    Args:
        config: configuration of the run, or of one of its seeds.
        quiet: show nothing but notes.
        label: names the run where several follow each other.
    """
    if quiet:
        return QuietDisplay(config, label)
    console = messages()
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        return LiveDisplay(config, label)
    return LineDisplay(config, label)


class Display(abc.ABC):
    """An event sink for people; a context manager, so that a terminal is left as it was.

    Args:
        config: configuration of the run.
        label: names the run where several follow each other.
    """

    def __init__(self, config: Config, label: str = "") -> None:
        self.console: Console = messages()
        self.config = config
        self._label = f"{label}: " if label else ""
        self._sizes: list[int] = []
        self._domains: list[str] = []
        self._repeats = False
        self._scores: list[str] = []
        self._rate = Rate()
        self._ctrl_c = CtrlC()

    def __enter__(self) -> Display:
        """Begin to show."""
        self._ctrl_c.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop showing."""
        self._ctrl_c.__exit__()

    def __call__(self, event: Event) -> None:
        """Take in what happened: ``_on_KIND`` shows an event of that kind."""
        self._ctrl_c.check()
        getattr(self, f"_on_{event.kind}", lambda _: None)(event)

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self.console.print(printable(f"{self._label}{text}"))

    @abc.abstractmethod
    def progress(self, where: str, phase: str, event: Event) -> None:
        """Show how far a phase is; without ``done`` and ``total`` it is not known."""

    def _on_run(self, event: Event) -> None:
        self._sizes = list(event.fields["sizes"])
        self._domains = list(event.fields.get("domains", []))
        classes = event.fields.get("classes", sum(self._sizes))
        self._repeats = classes < sum(self._sizes)
        method = "" if self._label else f"{event.fields['method']}: "
        size = f"{counted(len(self._sizes), 'task')}, {classes} classes"
        self.say(f"{method}{size}, {self.config.training.backbone}")

    def _on_note(self, event: Event) -> None:
        self.say(f"note: {event.fields['text']}")

    def _on_resume(self, event: Event) -> None:
        done, steps = event.fields["stages_done"], event.fields["steps_done"]
        at = f", step {steps}" if steps else ""
        self.say(f"going on after {counted(done, 'task')}{at}")

    def _on_task(self, event: Event) -> None:
        names, images = listed(event.fields["classes"], 8), event.fields["images"]
        self.say(f"{self._where(event.task)}: {names} ({images} images)")

    def _on_progress(self, event: Event) -> None:
        self.progress(self._where(event.task), str(event.fields["phase"]), event)

    def _on_accuracy(self, event: Event) -> None:
        self._scores.append(f"{event.fields['head']} {per_cent(event.fields['accuracy'])}")
        if len(self._scores) == len(self.config.head_names):
            done = (event.task or 0) + 1
            seen = f"all {sum(self._sizes[:done])} classes so far"
            if self._repeats:
                seen = f"all {done} domains so far" if done > 1 else "the first domain so far"
            # Lessons and searches announce no stream; a search is judged on held-out images.
            where = seen if self._sizes else str(event.fields.get("images", "held-out images"))
            self.say(f"accuracy on {where}: {', '.join(self._scores)}")
            self._scores = []

    def _where(self, task: int | None) -> str:
        if task is None:
            return ""
        if self.config.traits.cumulative:
            return "tasks together"
        domain = f" ({self._domains[task]})" if self._domains else ""
        return f"task {task + 1}{f' of {len(self._sizes)}' if self._sizes else ''}{domain}"

    def _pace(self, phase: str, event: Event) -> str:
        """Loss and images per second, as far as they are known."""
        fields = event.fields
        size = (
            self.config.training.batch_size
            if phase == "training"
            else self.config.runtime.eval_batch_size
        )
        rate = self._rate((event.task, phase), int(fields["done"]), size)
        losses = event.losses.values()
        loss = f"loss {sum(losses):.3f}" if losses else ""
        return "  ".join(part for part in (loss, f"{rate:.0f} images/s" if rate else "") if part)


class Rate:
    """Images per second since a phase began.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase: Any = None
        self._began = 0.0
        self._first = 0

    def __call__(self, phase: Any, done: int, size: int) -> float | None:
        """Return the rate after ``done`` batches of ``size``; None right after the beginning."""
        now = self._clock()
        if phase != self._phase or done <= self._first:
            self._phase, self._began, self._first = phase, now, done
        seconds = now - self._began
        return (done - self._first) * size / seconds if seconds > 0 and done > self._first else None


class QuietDisplay(Display):
    """Says nothing but notes."""

    def say(self, text: str) -> None:
        """Write nothing."""

    def progress(self, where: str, phase: str, event: Event) -> None:
        """Show nothing."""

    def _on_note(self, event: Event) -> None:
        super().say(f"note: {event.fields['text']}")


class LineDisplay(Display):
    """Writes plain lines, for logs.

    Args:
        config: as for `Display`.
        label: as for `Display`.
        clock: gives seconds.
    """

    def __init__(
        self, config: Config, label: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(config, label)
        self._clock = clock
        self._last = clock()

    def say(self, text: str) -> None:
        """Write a line."""
        super().say(text)
        self._last = self._clock()

    def progress(self, where: str, phase: str, event: Event) -> None:
        """Write a line now and then."""
        if "done" not in event.fields:
            self.say(phase)
            return
        pace = self._pace(phase, event)
        if self._clock() - self._last >= BETWEEN_LINES:
            done = f"{event.fields['done']}/{event.fields['total']}"
            self.say(f"{where}  {phase} {done}  {pace}".rstrip())


class LiveDisplay(Display):
    """Shows bars on a terminal: tasks done, and the phase that is going on."""

    def __init__(self, config: Config, label: str = "") -> None:
        super().__init__(config, label)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[pace]}", markup=False),
            console=self.console,
            transient=True,
        )
        self._tasks: TaskID | None = None
        self._phase: TaskID | None = None
        self._shown = ("", "")

    def __enter__(self) -> LiveDisplay:
        """Begin to show."""
        super().__enter__()
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bars away."""
        super().__exit__()
        self._bars.stop()

    def progress(self, where: str, phase: str, event: Event) -> None:
        """Move the bar of the phase; a new phase gets a new one."""
        done, total = event.fields.get("done"), event.fields.get("total")
        if self._phase is None or self._shown != (where, phase):
            if self._phase is not None:
                self._bars.remove_task(self._phase)
            name = f"{self._label}{where}  {phase}" if where else f"{self._label}{phase}"
            self._phase = self._bars.add_task(printable(name), total=total, pace="")
            self._shown = (where, phase)
        if done is not None:
            pace = self._pace(phase, event)
            self._bars.update(self._phase, completed=done, total=total, pace=pace)

    def _on_run(self, event: Event) -> None:
        super()._on_run(event)
        self._tasks = self._bars.add_task(f"{self._label}tasks", total=len(self._sizes), pace="")

    def _on_resume(self, event: Event) -> None:
        super()._on_resume(event)
        if self._tasks is not None:
            self._bars.update(self._tasks, completed=event.fields["stages_done"])

    def _on_accuracy(self, event: Event) -> None:
        super()._on_accuracy(event)
        if self._tasks is not None and event.task is not None:
            self._bars.update(self._tasks, completed=event.task + 1)


class ProgressBar:
    """One bar, or a line now and then; a context manager, so that a terminal is left as it was.

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

    def __enter__(self) -> ProgressBar:
        """Begin to show."""
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
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
            self._console.print(f"{printable(what)}: {self._amount(done)}{whole}")

    def _move(self, what: str, done: int, total: int | None) -> None:
        if self._bar is None or what != self._what:
            if self._bar is not None:
                self._bars.remove_task(self._bar)
            self._bar, self._what = self._bars.add_task(printable(what), total=total), what
        self._bars.update(self._bar, completed=done, total=total)

    def _amount(self, count: int) -> str:
        return f"{count / 1e6:,.1f} MB" if self._of_bytes else f"{count:,}"
