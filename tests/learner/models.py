"""Two models, one grown from the other, and ways to tell which of them a folder holds."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from perdure.backbones.vit import FrozenViT
from perdure.engine.model import Model
from perdure.learner import ContinualClassifier
from perdure.learner.history import History, Lesson
from perdure.types import Task
from tests.learner.portable import portable_backbone

MODELS = Path(__file__).parents[1] / "data" / "models"
FILES = {"config.json", "classes.json", "weights.safetensors", "README.md"}
OLD = History(
    lessons=(
        Lesson(
            images={"pattern_0": 8, "pattern_1": 8},
            new=("pattern_0", "pattern_1"),
            held_out=16,
            accuracy={"linear": 0.75, "ncm": 0.5},
            calibration_error={"ncm": 0.1},
        ),
        Lesson(images={"pattern_2": 8, "pattern_3": 7}, new=("pattern_2", "pattern_3")),
    ),
    temperatures={"linear": 1.5, "ncm": 0.1},
    forgotten=(1,),
)

backbone = functools.cache(portable_backbone)


def old_classifier() -> ContinualClassifier:
    """What the fixtures of all formats hold, with a history."""
    folder = MODELS / "format-1"
    return ContinualClassifier.from_model(load(folder).model, OLD)


def new_classifier() -> ContinualClassifier:
    """The same after a further lesson."""
    classifier = old_classifier()
    classifier.model.start_task(Task(2, (4, 5), ("käfer", "|x|"), 6))
    lesson = Lesson(images={"käfer": 1, "|x|": 2}, new=("käfer", "|x|"))
    return ContinualClassifier.from_model(classifier.model, History((*OLD.lessons, lesson)))


def load(folder: Path, vit: FrozenViT | None = None) -> ContinualClassifier:
    return ContinualClassifier.load(folder, vit or backbone())


def same(one: ContinualClassifier, other: ContinualClassifier) -> bool:
    """Whether two classifiers have the same classes, history and tensors."""
    return (
        one.model.label_names == other.model.label_names
        and one.history_ == other.history_
        and same_state(one.model, other.model)
    )


def same_state(one: Model, other: Model) -> bool:
    ours, theirs = one.state(), other.state()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def copy(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    return to


def names(folder: Path) -> set[str]:
    """What lies in a folder, the lock apart."""
    return {path.name for path in folder.iterdir()} - {".lock"}


class Killed(BaseException):
    """Stands for SIGKILL: nothing that touches the disk works after it."""


@contextmanager
def killed_at(operation: int, of: tuple[tuple[object, str], ...]) -> Iterator[None]:
    """Let the process die, as far as the disk can tell, before its n-th operation."""
    done = 0

    def deadly(original: object) -> object:
        def call(*args: object, **options: object) -> object:
            nonlocal done
            if done == operation:
                raise Killed
            done += 1
            assert callable(original)
            return original(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for home, name in of:
            patch.setattr(home, name, deadly(getattr(home, name)))
        yield
