"""Suspects among labelled images: named otherwise without them, near duplicates, poor classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from perdure.errors import ConfigError, StreamError
from perdure.heads import Head
from perdure.learner.class_columns import ClassColumns
from perdure.learner.classes_left_out import features_of
from perdure.learner.known_features import KnownFeatures
from perdure.learner.labelled import NONE, LabelledImages
from perdure.learner.learning_curve import measured_curve
from perdure.learner.state import LearnerState
from perdure.numerics.gaussians import views_of
from perdure.streams import Subset
from perdure.types import Task

TWIN = 0.95
"""Cosine of near duplicates, of features less the mean of all images."""
ALIKE = 0.9
"""Median cosine within a class from which its images are told to be too alike."""
FEW = 5
"""Images of a class below which it is told to have few."""
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
        probability: of ``named`` among all classes, tempered, in [0, 1].
    """

    place: int
    image: str
    label: str
    named: str
    margin: float
    probability: float


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
            images are known (`history.SHARES`); None for fewer than two. What more images would bring.
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
    mirrored = state.model.heads[head].mirrored
    subset = Subset(labelled.images, places, labels)
    features = features_of(state, subset, on_progress, mirrored)
    labels = labels.to(features.device)
    fitted = _fitted(state, head, features, labels, classes)
    ranked = rank_suspects(fitted, features, labels, state.temperature(head))
    images = _suspects(ranked, places, labelled, labels, classes)
    shown = views_of(features)[:, 0].double()
    unit = F.normalize(shown - shown.mean(dim=0), dim=1)
    names, called = labelled.images.names, [classes[label] for label in labels.tolist()]
    twins = tuple(
        Twins(
            (int(places[one]), int(places[other])),
            (names[places[one]], names[places[other]]),
            (called[one], called[other]),
            similarity,
        )
        for one, other, similarity in near_duplicates(unit, labels)
    )

    def judge(part: Int[Tensor, "m"]) -> tuple[Bool[Tensor, "m"], Float[Tensor, "j c"]]:
        known, own = features[part], labels[part]
        return _fitted(state, head, known, own, classes).scores_left_out(known, own)

    curve = measured_curve(judge, labels, classes, state.model.config.training.seed)
    trained = not state.model.method.traits.frozen_features
    return Suspects(images, twins, _poor(unit, labels, classes), curve, trained)


def lesson_suspects(
    state: LearnerState,
    labelled: LabelledImages,
    places: NDArray[np.int64],
    features: Float[Tensor, "n *v d"],
    labels: Int[Tensor, "n"],
) -> tuple[Suspect, ...]:
    """A lesson's images that the model after it names otherwise without them, the clearest first.

    Each is left out exactly, and classes of earlier lessons compete. Under the head that predicts;
    only where features are fixed and it `leaves_out`.

    Args:
        state: after the lesson, with its temperatures.
        labelled: the lesson's images.
        places: those that were trained on.
        features: readouts of these, as they were taken in.
        labels: their classes, in order of arrival.
    """
    head, columns = state.head_name(None), state.columns
    part, temperature = state.model.heads[head], state.temperature(head)
    ranked = rank_suspects(part, features, labels, temperature, columns)
    wrong = [row for row in ranked if row[2] > 0]
    return _suspects(wrong, places, labelled, columns.of(labels), columns.names)


Row = tuple[int, int, float, float]
"""Place, best other class, its tempered score less that of the own, its probability."""


def rank_suspects(
    head: Head,
    features: Float[Tensor, "n *v d"],
    labels: Int[Tensor, "n"],
    temperature: float = 1.0,
    columns: ClassColumns | None = None,
) -> list[Row]:
    """Images by how clearly another class scores best without them, the clearest first.

    Args:
        head: fitted to these images, among others perhaps.
        features: of the images, as they were taken in.
        labels: as the head knows them.
        temperature: what scores are divided by.
        columns: which of its outputs stand for which class; an output is a class by default.
    """
    with torch.no_grad():
        judged, scores = head.scores_left_out(features, labels)
    labels = labels[judged]
    if columns is not None:
        scores, labels = columns.class_scores(scores), columns.of(labels)
    if scores.shape[1] == 1:
        return []
    tempered = scores.double() / temperature
    own = labels.to(scores.device)[:, None]
    others = tempered.scatter(1, own, -torch.inf).max(dim=1)
    margins = others.values - tempered.gather(1, own)[:, 0]
    shares = tempered.softmax(dim=1).gather(1, others.indices[:, None])[:, 0]
    places = judged.nonzero()[:, 0].tolist()
    order = margins.argsort(descending=True, stable=True).tolist()
    return [(places[k], int(others.indices[k]), float(margins[k]), float(shares[k])) for k in order]


def _suspects(
    ranked: Sequence[Row],
    places: NDArray[np.int64],
    labelled: LabelledImages,
    labels: Int[Tensor, "n"],
    classes: Sequence[str],
) -> tuple[Suspect, ...]:
    return tuple(
        Suspect(
            place=int(places[one]),
            image=labelled.images.names[places[one]],
            label=classes[int(labels[one])],
            named=classes[named],
            margin=margin,
            probability=probability,
        )
        for one, named, margin, probability in ranked
    )


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


def _fitted(
    state: LearnerState,
    name: str,
    features: Float[Tensor, "n *v d"],
    labels: Int[Tensor, "n"],
    classes: Sequence[str],
) -> Head:
    """A head of the same kind and options, fitted to these images alone."""
    head = state.model.new_head(name)
    if not head.leaves_out:
        raise ConfigError(
            f"Head '{name}' cannot say what it would answer without an image. Name one in closed "
            "form, as gaussian: teach a model with heads=gaussian, or method=lda."
        )
    task = Task(0, tuple(range(len(classes))), tuple(classes), len(classes))
    head.to(features.device).start_task(task)
    with torch.no_grad():
        head.end_task(task, KnownFeatures(features, labels))
    return head


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
        among = cosines[~torch.eye(len(rows), dtype=torch.bool, device=rows.device)]
        if float(among.median()) >= ALIKE:
            found[names[label]] = f"has images that are too alike: cosine {among.median():.2f}"
    return found
