"""Runs of a small stream, carried out or stopped in the middle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perdure.engine.build import make_backbone, make_stream
from perdure.engine.config import Config
from perdure.engine.events import Event
from perdure.engine.run import Outcome, Run

TWO = {"data": "synthetic:4x32", "tasks": "2+2"}
"""A stream of two tasks, of four steps an epoch."""


def carry_out(config: Config, folder: Path | None = None) -> Outcome:
    backbone = make_backbone(config)
    return Run(config, make_stream(config), backbone, folder)()


class Stop(Exception):
    pass


def assert_resumes(config: Config, folder: Path, steps: int) -> None:
    """A run that is stopped after so many steps and goes on ends bit for bit like a straight one."""
    backbone, stream = make_backbone(config), make_stream(config)
    straight = Run(config, stream, backbone)().model.state()
    with pytest.raises(Stop):
        Run(config, stream, backbone, folder, stop_after(steps))()  # type: ignore[arg-type]
    resumed = Run(config, stream, backbone, folder)().model.state()
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


def stop_after(steps: int) -> object:
    seen = 0

    def watch(event: Event) -> None:
        nonlocal seen
        if event.kind == "progress" and event.fields["phase"] == "training":
            seen += 1
            if seen == steps:
                raise Stop

    return watch
