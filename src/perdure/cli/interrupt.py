"""Interruption by Ctrl-C: noted as well as raised, so that it cannot get lost."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class CtrlC:
    """Handler of Ctrl-C that notes it, beside raising KeyboardInterrupt as Python does; a context.

    Python drops an exception that is raised inside a callback of the interpreter, such as a
    destructor or the hook of an import; `check` raises it again at the next event of a run.
    """

    def __init__(self) -> None:
        self._pressed = False
        self._before: Any = None
        self._watching = False

    def __enter__(self) -> CtrlC:
        """Install the handler; only the main thread receives signals."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
            self._watching = True
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handler of before."""
        if self._watching:
            signal.signal(signal.SIGINT, self._before)
            self._watching = False

    def check(self) -> None:
        """Raise what was noted.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        if self._pressed:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        raise KeyboardInterrupt
