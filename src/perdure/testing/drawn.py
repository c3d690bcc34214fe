"""Drawn tasks for heads: features in place of images, of classes that lie far apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perdure.heads import HEADS
from perdure.heads.choice import choose_head
from perdure.numerics.gaussians import views_of
from perdure.randomness import generator
from perdure.types import Observer, Split, Task

DIM = 12
IMAGES = 10
"""Training images per class, half of which come later where more are taken in."""
APART = 6.0
"""Distance of every class's centre from what all features share, in deviations of a class."""

Labelled = tuple[Float[Tensor, "_ ... d"], Int[Tensor, "_"]]


@dataclass(frozen=True)
class DrawnTask:
    """A task with drawn features in place of images.

    Attributes:
        task: as a head sees it.
        train: features and labels to learn from, class by class.
        test: others of the same classes.
    """

    task: Task
    train: Labelled
    test: Labelled

    def half(self, second: bool) -> Labelled:
        """Every other training image."""
        features, labels = self.train
        return features[int(second) :: 2], labels[int(second) :: 2]


class FeatureSurvey:
    """A survey of features alone: a head asks for nothing else.

    Args:
        train: features and labels.
        val: those of images to choose on, where there are any.
    """

    def __init__(self, train: Labelled, val: Labelled | None = None) -> None:
        self._splits: dict[Split, Labelled | None] = {"train": train, "val": val}

    def __call__(self, observer: Observer, split: Split = "train") -> None:
        """Refuse: there are no images to show."""
        raise AssertionError("A head may ask a survey for features only.")

    def features(
        self, split: Split = "train", plain: bool = False, mirrored: bool = False
    ) -> Labelled:
        """Return features and labels; nothing is added to the backbone, so all are plain.

        Where two views are not given, a mirror image has the numbers in the opposite order.
        """
        found = self._splits[split]
        assert found is not None, f"there is no {split} split"
        features, labels = found
        if mirrored and features.ndim == 2:  # noqa: PLR2004  images, numbers
            return torch.stack([features, features.flip(1)], dim=1), labels
        return features if mirrored else views_of(features)[:, 0], labels

    def gradients(
        self, probes: Callable[[int], Tensor], most: int
    ) -> Iterator[Mapping[str, Tensor]]:
        """Refuse: nothing is added to the backbone."""
        raise AssertionError("A head may ask a survey for features only.")

    def has(self, split: Split) -> bool:
        """Tell whether the split was given."""
        return self._splits[split] is not None


def drawn_tasks(head_name: str, redrawn: int | None = None) -> list[DrawnTask]:
    """Three tasks whose classes lie far apart.

    Args:
        head_name: a head in closed form gets a task of one class.
        redrawn: a class that has other training images, and more of them.
    """
    sizes = (2, 1, 3) if HEADS.declared[choose_head(head_name).kind].closed_form else (2, 2, 3)
    tasks: list[DrawnTask] = []
    seen = 0
    for index, size in enumerate(sizes):
        classes = tuple(range(seen, seen + size))
        seen += size
        task = Task(index, classes, tuple(f"class {label}" for label in classes), seen)
        tasks.append(DrawnTask(task, _draw(classes, "train", redrawn), _draw(classes, "test")))
    return tasks


def _draw(classes: tuple[int, ...], split: str, redrawn: int | None = None) -> Labelled:
    features, labels = [], []
    for label in classes:
        other = label == redrawn
        random = generator(0, "features", split, label, int(other))
        count = IMAGES + 3 * other
        centre = torch.ones(DIM)
        centre[label] += APART
        features.append(centre + torch.randn(count, DIM, generator=random))
        labels += [label] * count
    return torch.cat(features), torch.tensor(labels)
