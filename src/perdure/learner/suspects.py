"""Suspects among labelled images: named otherwise without them, near duplicates, poor classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from perdure.errors import ConfigError, StreamError
from perdure.heads import HEADS, Head
from perdure.learner.classes_left_out import features_of
from perdure.learner.labelled import NONE, LabelledImages
from perdure.learner.state import LearnerState
from perdure.randomness import generator, permutation
from perdure.streams import Subset
from perdure.types import Observer, Split, Task

TWIN = 0.95
"""Cosine of near duplicates, of features less the mean of all images."""
ALIKE = 0.9
"""Median cosine within a class from which its images are told to be too alike."""
FEW = 5
"""Images of a class below which it is told to have few."""
SHARES = (0.25, 0.5, 1.0)
"""Shares of each class's images at which the learning curve is measured."""
ROWS = 1024


@dataclass(frozen=True)
class Suspect:
    """One image, judged as if it alone had never been learned.

    Attributes:
        place: position among the images given.
        image: its file, or what it is called.
        label: class that it was given.
        named: best class beside that, by all other images.
        margin: tempered score of ``named`` less that of ``label``; above 0 it is named otherwise.
    """

    place: int
    image: str
    label: str
    named: str
    margin: float


@dataclass(frozen=True)
class Twins:
    """Two images that are near duplicates.

    Attributes:
        places: their positions among the images given.
        images: their files, or what they are called.
        labels: their classes.
        similarity: cosine of their features, in [-1, 1].
    """

    places: tuple[int, int]
    images: tuple[str, str]
    labels: tuple[str, str]
    similarity: float


@dataclass(frozen=True)
class Suspects:
    """What may be wrong with labelled images.

    Attributes:
        images: all images that could be judged, the most suspect first.
        twins: near duplicates, those of two classes first.
        classes: what may be wrong with a class, by name.
        curve: per class, share of its images that are named right without them when so many of all
            images are known (`SHARES`); None for fewer than two. What more images would bring.
        optimistic: whether features were trained on images, perhaps these: then what they are named
            without them is too often right.
    """

    images: tuple[Suspect, ...]
    twins: tuple[Twins, ...]
    classes: dict[str, str]
    curve: dict[str, tuple[float | None, ...]]
    optimistic: bool

    @property
    def named_otherwise(self) -> tuple[Suspect, ...]:
        """Images that all others name otherwise."""
        return tuple(one for one in self.images if one.margin > 0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def find_suspects(
    state: LearnerState,
    labelled: LabelledImages,
    head: str,
    on_progress: Callable[[int], None] = lambda images: None,
) -> Suspects:
    """Judge labelled images by each other, under a model's features and a head of its kind.

    The head is fitted anew to these images alone, so it does not matter which of them the model has
    learned, and each is left out exactly. Images of `NONE` are not looked at.

    Raises:
        ConfigError: a head that cannot leave images out.
        StreamError: images of no class alone.
    """
    classes = tuple(name for name in labelled.names if name != NONE)
    if not classes:
        raise StreamError(f"All images are of '{NONE}': there is no class to judge them by.")
    numbers = np.array([classes.index(n) if n in classes else -1 for n in labelled.names])
    numbered = numbers[labelled.images.labels]
    places = np.flatnonzero(numbered >= 0)
    labels = torch.from_numpy(numbered[places])
    features = features_of(state, Subset(labelled.images, places, labels), on_progress)
    names = [labelled.images.names[int(place)] for place in places]
    fitted = _fitted(state, head, features, labels, classes)
    ranked = rank_suspects(fitted, features, labels)
    images = tuple(
        Suspect(
            place=int(places[one]),
            image=names[one],
            label=classes[int(labels[one])],
            named=classes[named],
            margin=margin / state.temperature(head),
        )
        for one, named, margin in ranked
    )
    unit = F.normalize(features.double() - features.double().mean(dim=0), dim=1)
    called = [classes[label] for label in labels.tolist()]
    twins = tuple(
        Twins(
            (int(places[one]), int(places[other])),
            (names[one], names[other]),
            (called[one], called[other]),
            similarity,
        )
        for one, other, similarity in near_duplicates(unit, labels)
    )
    trained = not state.model.method.traits.frozen_features
    curve = _curve(state, head, features, labels, classes)
    return Suspects(images, twins, _poor(unit, labels, classes), curve, trained)


def rank_suspects(
    head: Head, features: Float[Tensor, "n d"], labels: Int[Tensor, "n"]
) -> list[tuple[int, int, float]]:
    """Place, best other class and its score less that of the own, by descending difference.

    Args:
        head: fitted to these images, among others perhaps.
        features: of the images.
        labels: as the head knows them.
    """
    with torch.no_grad():
        judged, scores = head.scores_left_out(features, labels)
    own = labels[judged].to(scores.device)[:, None]
    if scores.shape[1] == 1:
        return []
    others = scores.scatter(1, own, -torch.inf).max(dim=1)
    margins = others.values - scores.gather(1, own)[:, 0]
    places = judged.nonzero()[:, 0].tolist()
    order = margins.argsort(descending=True, stable=True).tolist()
    return [(places[k], int(others.indices[k]), float(margins[k])) for k in order]


def near_duplicates(
    unit: Float[Tensor, "n d"], labels: Int[Tensor, "n"]
) -> list[tuple[int, int, float]]:
    """Pairs of images whose features have a cosine of `TWIN` or more; those of two classes first."""
    pairs = []
    for start in range(0, len(unit), ROWS):
        cosines = unit[start : start + ROWS] @ unit.T
        for row, other in (cosines >= TWIN).nonzero().tolist():
            if start + row < other:
                pairs.append((start + row, other, float(cosines[row, other])))
    return sorted(pairs, key=lambda pair: (bool(labels[pair[0]] == labels[pair[1]]), -pair[2]))


class _Given:
    """A survey of features that are known, for a head to be fitted to."""

    def __init__(self, features: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> None:
        self._images = features, labels

    def __call__(self, observer: Observer, split: Split = "train") -> None:
        """Refuse: heads ask for features alone."""
        raise NotImplementedError("there are no images to show")

    def features(
        self, split: Split = "train", plain: bool = False
    ) -> tuple[Float[Tensor, "n d"], Int[Tensor, "n"]]:
        """The features, whatever the split."""
        return self._images

    def gradients(
        self, probes: Callable[[int], Float[Tensor, "k d"]], most: int
    ) -> Iterator[Mapping[str, Float[Tensor, "b p d"]]]:
        """Refuse: heads ask for features alone."""
        raise NotImplementedError("there are no images to take gradients of")

    def has(self, split: Split) -> bool:
        """Whether there are images of the split: for training alone."""
        return split == "train"


def _fitted(
    state: LearnerState,
    name: str,
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    classes: Sequence[str],
) -> Head:
    """A head of the same kind and options, fitted to these images alone."""
    config = state.model.config
    spec = replace(state.model.backbone.spec, dim=features.shape[1])
    choice = config.built_heads[name]
    head = HEADS[choice.kind](
        spec,
        choice.options(config.heads),
        lambda purpose: generator(config.training.seed, "init", purpose),
    )
    if not head.leaves_out:
        raise ConfigError(
            f"Head '{name}' cannot say what it would answer without an image. Name one in closed "
            "form, as gaussian: teach a model with heads=gaussian, or method=lda."
        )
    task = Task(0, tuple(range(len(classes))), tuple(classes), len(classes))
    head.to(features.device).start_task(task)
    with torch.no_grad():
        head.end_task(task, _Given(features, labels.to(features.device)))
    return head


def _curve(
    state: LearnerState,
    head: str,
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    classes: Sequence[str],
) -> dict[str, tuple[float | None, ...]]:
    """Leave-one-out accuracy of every class at each of `SHARES` of the images."""
    seed, points = state.model.config.training.seed, []
    for share in SHARES:
        rows = []
        for label, name in enumerate(classes):
            own = (labels == label).nonzero()[:, 0]
            order = permutation(len(own), seed, "curve", name)
            rows.append(own[order[: max(1, int(share * len(own) + 0.5))].copy()])
        part = torch.cat(rows)
        fitted = _fitted(state, head, features[part], labels[part], classes)
        judged: dict[int, list[bool]] = {}
        for place, _, margin in rank_suspects(fitted, features[part], labels[part]):
            judged.setdefault(int(labels[part][place]), []).append(margin < 0)
        points.append({label: sum(right) / len(right) for label, right in judged.items()})
    return {name: tuple(point.get(label) for point in points) for label, name in enumerate(classes)}


def _poor(
    unit: Float[Tensor, "n d"], labels: Int[Tensor, "n"], names: Sequence[str]
) -> dict[str, str]:
    """What may be wrong with classes: few images, or images that are too alike."""
    found = {}
    for label in labels.unique().tolist():
        rows = unit[labels == label]
        if len(rows) < FEW:
            found[names[label]] = f"has {len(rows)} images; {FEW} or more tell what varies"
            continue
        cosines = rows @ rows.T
        among = cosines[~torch.eye(len(rows), dtype=torch.bool)]
        if float(among.median()) >= ALIKE:
            found[names[label]] = f"has images that are too alike: cosine {among.median():.2f}"
    return found
