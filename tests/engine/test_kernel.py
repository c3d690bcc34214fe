"""A run keeps the attention kernel that it began with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perdure import experiment
from perdure.backbones import frozen
from perdure.backbones.attention import Kernel
from perdure.engine.events import Event
from perdure.errors import CheckpointError
from tests.tiny import small_config

pytestmark = pytest.mark.usefixtures("unchecked")


class Stopped(Exception):
    """Raised by a sink to end a run as an interruption would."""


def stop_in_second_task(event: Event) -> None:
    if event.kind == "epoch" and event.task == 1:
        raise Stopped


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Kernel]:
    """What ``auto`` gives on this machine: change the only item for another machine."""
    kernel: list[Kernel] = ["products"]
    monkeypatch.setattr(
        frozen, "choose_kernel", lambda wanted, *_: kernel[0] if wanted == "auto" else wanted
    )
    return kernel


@pytest.mark.long
def test_a_resumed_run_keeps_its_kernel_and_so_its_bits(
    tmp_path: Path, chosen: list[Kernel]
) -> None:
    config = small_config("finetune", tasks="5+5", images_per_class=4)
    straight = experiment.run(config, tmp_path / "straight")
    with pytest.raises(Stopped):
        experiment.run(config, tmp_path / "stopped", on_event=stop_in_second_task)
    chosen[0] = "fused"
    resumed = experiment.run(config, tmp_path / "stopped", resume=True)
    assert json.loads((tmp_path / "stopped" / "env.json").read_text())["attention"] == "products"
    weights = [one.folder / "model" / "weights.safetensors" for one in (straight, resumed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_an_unknown_kernel_in_a_run_folder_is_named(tmp_path: Path, chosen: list[Kernel]) -> None:
    config = small_config("lda")
    with pytest.raises(Stopped):
        experiment.run(config, tmp_path, on_event=lambda event: stop_at(event, "accuracy"))
    (tmp_path / "env.json").write_text('{"attention": "flash"}')
    with pytest.raises(CheckpointError, match=r"'flash'.*fused, products"):
        experiment.run(config, tmp_path, resume=True)


def stop_at(event: Event, kind: str) -> None:
    if event.kind == kind:
        raise Stopped
