"""A save that sends its own process SIGKILL just before or after the pointer is replaced."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch

from tests.learner.models import new_classifier

REPLACE = Path.replace


def save_and_die(folder: Path, moment: str) -> None:
    torch.set_num_threads(1)

    def replace(self: Path, target: Path) -> Path:
        deadly = target.name == "config.json"
        if deadly and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = REPLACE(self, target)
        if deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Path.replace = replace  # type: ignore[method-assign,assignment]
    new_classifier().save(folder)
