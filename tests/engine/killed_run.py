"""A run that sends its own process SIGKILL after a given training step."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch

from perdure.engine.events import Event
from perdure.experiment import run
from tests.tiny import small_config


def run_until(folder: Path, method: str, last: int) -> None:
    """Start or resume the run in ``folder``; kill this process at training step ``last``, if not 0."""
    torch.set_num_threads(1)
    steps = 0

    def watch(event: Event) -> None:
        nonlocal steps
        if event.kind == "progress" and event.fields["phase"] == "training":
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)

    config = small_config(
        method, heads=["linear", "gaussian"], data="synthetic:6x32", tasks="2+2+2"
    )
    run(config, folder, resume=True, on_event=watch)
