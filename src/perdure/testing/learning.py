"""Conformance checks of learning: backbone, gradients, resuming, state growth, accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perdure.engine.events import Event
from perdure.engine.model import Model
from perdure.engine.optim import TaskOptimiser
from perdure.engine.run import Outcome, Run, plan
from perdure.engine.training import Training
from perdure.metrics import last_accuracy
from perdure.randomness import generator
from perdure.testing.reading import check_images_touched
from perdure.testing.trial import (
    asks_for_gradients,
    contained,
    make_trial,
)
from perdure.types import BackboneSpec

__all__ = [
    "check_backbone_unchanged",
    "check_beats_chance",
    "check_gradients",
    "check_images_touched",
    "check_resume",
    "check_state_growth",
]

FIRST_STEPS = 3
"""A parameter may start where its gradient is zero, so it gets some steps to leave that place."""
TIMES_CHANCE = 2.0


@contained
def check_backbone_unchanged(method_name: str) -> None:
    """No bit of the frozen backbone changes during a run, and no weight of it asks for a gradient."""
    trial = make_trial(method_name)
    before = trial.backbone.digest()
    trial.run()
    assert trial.backbone.digest() == before, (
        f"'{method_name}' changed the frozen backbone: its digest after a run is another one. "
        "The tensors of the BackboneSpec are the backbone's own: copy what is to be changed."
    )
    assert not asks_for_gradients(trial.backbone), (
        f"'{method_name}' made weights of the frozen backbone ask for gradients."
    )


@contained
def check_gradients(method_name: str) -> None:
    """Every parameter is trained in the first or second task, and what is trained gets a gradient.

    What a task trains is what ``param_groups`` lists and its part of the head. Each of these
    must get a finite gradient that is not zero in one of the first three steps.
    """
    trial = make_trial(
        method_name, batch_size=32, epochs=FIRST_STEPS, schedule="constant", checkpoint_every=1
    )
    model: Model | None = None
    trained: set[str] = set()
    for stage in plan(trial.stream, trial.config)[:2]:
        training = trial.start(stage, model)
        trained |= _train_and_watch(method_name, training)
        training.finish()
        model = training.model
    assert model is not None
    idle = {f"method.{name}" for name, _ in model.method.named_parameters()} - trained
    assert not idle, (
        f"'{method_name}' declares parameters that neither of its first two tasks trains: "
        f"{', '.join(sorted(idle))}. List them in param_groups, or register them as buffers."
    )


def _train_and_watch(method_name: str, training: Training) -> set[str]:
    """Take all steps of a task; returns what was trained."""
    where = f"in task {training.data.task.index}"
    trained: set[str] = set()
    reached: set[str] = set()

    def watch(steps: int, optimiser: TaskOptimiser) -> None:
        for group in optimiser.adam.param_groups:
            for parameter in group["params"]:
                name, gradient = optimiser.names[parameter], parameter.grad
                trained.add(name)
                assert gradient is None or bool(gradient.isfinite().all()), (
                    f"'{method_name}': the gradient of {name} is not finite {where}."
                )
                if gradient is not None and bool(gradient.any()):
                    reached.add(name)

    training.train(watch)
    if training.model.method.traits.trains:
        layer = any(name.startswith("layer.") for name in trained)
        assert layer, f"'{method_name}' trains no part of a head {where}."
    assert trained == reached, (
        f"'{method_name}' trains parameters that no gradient reaches {where}: "
        f"{', '.join(sorted(trained - reached))}."
    )
    return trained


class Interruption(Exception):
    """Interruption of a run, raised by a check."""


@contained
def check_resume(method_name: str) -> None:
    """A run that is interrupted twice and taken up again ends as a straight run, bit for bit.

    It is interrupted at a drawn training step of its last stage, then at a drawn event of what is
    left, and goes on under another state of torch's global generator.
    """
    trial = make_trial(
        method_name, images=4, batch_size=4, epochs=2, checkpoint_every=2, transform="flip_crop"
    )
    with tempfile.TemporaryDirectory() as folder:
        events: list[Event] = []
        torch.manual_seed(1)
        straight = trial.run(Path(folder) / "straight", events.append)
        again = Path(folder) / "interrupted"
        random = generator(0, "interruption", method_name)
        first = _draw(_steps_of_last_stage(events), random)
        second = _draw(list(range(1, max(len(events) - first, 2))), random)
        for number, point in enumerate((first, second)):
            torch.manual_seed(2 + number)
            try:
                trial.run(again, _stop_at(point))
            except Interruption:
                continue
        torch.manual_seed(4)
        resumed = trial.run(again)
    where = f"at events {first} and {second} of {len(events)}"
    _assert_same_end(method_name, straight, resumed, where)


def _draw(choices: list[int], random: torch.Generator) -> int:
    return choices[int(torch.randint(len(choices), (), generator=random))]


def _steps_of_last_stage(events: list[Event]) -> list[int]:
    """Positions of the last stage's training steps among all events; of all its events if none."""
    start = max(i for i, event in enumerate(events) if event.kind == "task")
    later = range(start + 1, len(events))
    steps = [i for i in later if events[i].fields.get("phase") == "training"]
    return steps or list(later)


def _stop_at(point: int) -> Callable[[Event], None]:
    seen = 0

    def sink(event: Event) -> None:
        nonlocal seen
        seen += 1
        if seen > point:
            raise Interruption

    return sink


def _assert_same_end(method_name: str, straight: Outcome, resumed: Outcome, where: str) -> None:
    ours, theirs = resumed.model.state(), straight.model.state()
    assert ours.keys() == theirs.keys(), (
        f"'{method_name}', interrupted {where}: the resumed run keeps other tensors than the "
        f"straight one: {', '.join(sorted(ours.keys() ^ theirs.keys()))}."
    )
    other = [key for key in theirs if not same_bits(ours[key], theirs[key])]
    assert not other, (
        f"'{method_name}', interrupted {where}: {', '.join(other)} differ from the straight run. "
        "Draw from the generator that the constructor is given, or from perdure.randomness, and "
        "keep in parameters and buffers whatever training depends on."
    )
    assert resumed.counts == straight.counts, (
        f"'{method_name}', interrupted {where}: the resumed run counted other test images right."
    )


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors are the same, type and sign of zero included; NaN equals NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.cpu().contiguous().numpy().tobytes() == b.cpu().contiguous().numpy().tobytes()


@contained
def check_state_growth(method_name: str) -> None:
    """The method's state grows with tasks or classes as its traits declare, and nothing else does.

    Three tasks of two, three and two classes tell growth per task from growth per class. Tensors
    and arrays held outside the state dict may not grow at all.
    """
    trial = make_trial(method_name, sizes=(2, 3, 2), images=4)
    stated: list[int] = []
    hidden: list[int] = []

    def note(event: Event) -> None:
        if event.kind == "task":
            stated.append(0)
            hidden.append(0)
        if event.kind == "accuracy":
            method = run.model.method
            stated[-1], hidden[-1] = _state_bytes(method), hidden_bytes(method)

    run = Run(trial.config, trial.stream, trial.backbone, sink=note)
    run()
    _assert_growth(method_name, run.model.method.traits.state_growth, stated)
    assert hidden[-1] <= hidden[0], (
        f"'{method_name}' holds tensors outside its state that grow with the tasks: "
        f"{hidden} bytes after each. They would be lost when the model is saved; if they come "
        "from old images, they are a memory of them."
    )


def _assert_growth(method_name: str, declared: str, stated: list[int]) -> None:
    added = np.diff(stated).tolist()
    text = (
        f"'{method_name}' declares state_growth='{declared}', but its state takes {stated} bytes "
        "after tasks of 2, 3 and 2 classes."
    )
    if declared == "none":
        assert not any(added), text
    elif declared == "per task":
        assert len(set(added)) == 1, text
        assert added[0] > 0, text
    else:
        assert added[0] * 2 == added[1] * 3, text
        assert added[0] > 0, text


def _state_bytes(method: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in method.state_dict().values())


def hidden_bytes(module: nn.Module) -> int:
    """Bytes of tensors and arrays that hang on a method or head but are not in its state."""
    known = {t.data_ptr() for t in module.state_dict().values()}
    found: dict[int, int] = {}
    _collect(module, found, set())
    return sum(size for address, size in found.items() if address not in known)


def _collect(item: object, found: dict[int, int], visited: set[int]) -> None:
    """Note address and size of every tensor and array reachable from ``item``."""
    if id(item) in visited or isinstance(item, BackboneSpec):
        return
    visited.add(id(item))
    if isinstance(item, Tensor):
        found[item.data_ptr()] = item.numel() * item.element_size()
    elif isinstance(item, np.ndarray):
        array: NDArray[Any] = item
        found[array.ctypes.data] = array.nbytes
    elif isinstance(item, Mapping):
        for value in item.values():
            _collect(value, found, visited)
    elif isinstance(item, list | tuple | set | frozenset):
        for value in item:
            _collect(value, found, visited)
    elif isinstance(item, nn.Module) or (hasattr(item, "__dict__") and not callable(item)):
        _collect(vars(item), found, visited)


@contained
def check_beats_chance(method_name: str) -> None:
    """After two tasks of ten classes some head is right at least twice as often as by chance.

    Methods whose traits say ``weak`` are let off.
    """
    trial = make_trial(method_name, sizes=(10, 10), batch_size=16, epochs=2, schedule="constant")
    if trial.config.traits.weak:
        return
    shares = {head: last_accuracy(counts) for head, counts in trial.run().counts.items()}
    chance = 1 / len(trial.stream.class_names)
    assert max(shares.values(), default=0.0) >= TIMES_CHANCE * chance, (
        f"'{method_name}' learns next to nothing on the synthetic stream: {shares} right after both "
        f"tasks, where chance is {chance:.2f}. Is its loss minimised, and its readout about the image?"
    )
