"""State of a classifier after some lessons, and the way from pixels to the scores of its classes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped, UInt8
from PIL import Image
from torch import Tensor

from perdure.backbones.frozen import exact_device
from perdure.engine.model import Model
from perdure.errors import ConfigError
from perdure.learner.class_columns import ClassColumns
from perdure.learner.familiarity import familiar_shares, familiarity_scores
from perdure.learner.history import History
from perdure.learner.separation import Separation, best_score
from perdure.streams import build_transform


@dataclass(frozen=True)
class Prediction:
    """One class of a picture's ranking.

    Attributes:
        name: the class.
        label: its position in ``classes_``.
        probability: tempered probability, in [0, 1].
    """

    name: str
    label: int
    probability: float


@dataclass(frozen=True)
class LearnerState:
    """A model and its history; replaced as a whole, never changed.

    Attributes:
        model: backbone, method and heads.
        history: lessons, temperatures and forgotten classes.
    """

    model: Model
    history: History = field(default_factory=History)

    @property
    def columns(self) -> ClassColumns:
        """Which of the heads' outputs stand for which class."""
        return ClassColumns(self.model.label_names, self.history.forgotten, self.history.numbered)

    @property
    def classes(self) -> Shaped[np.ndarray, "c"]:
        """The known classes, sorted, as numbers where all labels were."""
        names = self.columns.names
        if self.history.numbered:
            return np.array([int(name) for name in names], dtype=np.int64)
        return np.array(names, dtype=np.str_)

    @property
    def images(self) -> dict[str, int]:
        """Training images of every known class, those of an earlier one of its name left out."""
        columns, found = self.columns, Counter[str]()
        first = {name: self._first_lesson(columns.labels(name)) for name in columns.names}
        for place, lesson in enumerate(self.history.lessons):
            found.update({n: c for n, c in lesson.images.items() if place >= first.get(n, place)})
        return {name: found[name] for name in first}

    def first_lesson(self, name: str) -> int:
        """Place of the lesson that brought a class, not that of one which was forgotten."""
        return self._first_lesson(self.columns.labels(name))

    def _first_lesson(self, labels: Sequence[int]) -> int:
        brought = [place for place, lesson in enumerate(self.history.lessons) if lesson.new]
        ends = itertools.accumulate(len(task.classes) for task in self.model.tasks)
        task = next(task for task, end in enumerate(ends) if labels[0] < end)
        return brought[task] if task < len(brought) else 0

    @property
    def transform(self) -> Callable[[Image.Image], UInt8[Tensor, "3 s s"]]:
        """From a decoded image to the pixels that are scored."""
        config, side = self.model.config, self.model.backbone.img_size
        return build_transform(config.training.transform, side).test

    def head_name(self, head: str | None) -> str:
        """The evaluated head of that name that is to predict; the last one for None.

        Raises:
            ConfigError: no such head, or no class that is not forgotten.
        """
        if self.history.forgotten and not self.columns.names:
            raise ConfigError(
                "Every class of this model was forgotten, and nothing is left to predict. Teach it "
                "one, as with learn(images, labels)."
            )
        names = self.model.config.head_names
        if head is not None and head not in names:
            raise ConfigError(f"This model has no head '{head}'. It has: {', '.join(names)}.")
        return names[-1] if head is None else head

    def scores(
        self, batches: Iterable[UInt8[Tensor, "_ 3 s s"]], heads: Sequence[str]
    ) -> dict[str, Float[Tensor, "n c"]]:
        """Score every known class for every image, untempered.

        Args:
            batches: transformed images, as many as go through the backbone together; at least one.
            heads: evaluated heads to score under.

        Returns:
            By head, of the head's own type and on its device; columns as in ``classes_``.
        """
        columns, parts = self.columns, {head: list[Tensor]() for head in heads}
        for images in batches:
            logits = self.model.logits(images, heads)
            for head in heads:
                parts[head].append(columns.class_scores(logits[head]))
        return {head: torch.cat(logits) for head, logits in parts.items()}

    def familiarity(
        self, batches: Iterable[UInt8[Tensor, "_ 3 s s"]], head: str, *, float32: bool = False
    ) -> tuple[Float[Tensor, "n c"], Float64[Tensor, "n"] | None]:
        """Score images as `scores` does, and tell how familiar they are, in one pass.

        Args:
            batches: as for `scores`.
            head: the evaluated head.
            float32: compute in float32 whatever the run's precision.

        Returns:
            Scores, and in (0, 1] the share of known images that look at least as strange; None where
            no lesson has measured that.
        """
        scores, shares = [], []
        for images in batches:
            with torch.no_grad():
                readout = self.model.forward(images, float32=float32)[0]
                score, share = self.judged(readout, head)
            scores.append(score)
            if share is not None:
                shares.append(share)
        return torch.cat(scores), torch.cat(shares).cpu() if shares else None

    def judged(
        self, readout: Float[Tensor, "n d"], head: str
    ) -> tuple[Float[Tensor, "n c"], Float64[Tensor, "n"] | None]:
        """Scores and familiarity of images whose readouts are known; see `familiarity`."""
        columns, part = self.columns, self.model.heads[head]
        scores, measured = columns.class_scores(part.logits(readout)), self.separation(head)
        if measured is None:
            return scores, None
        score, separation = measured
        evidence = columns.class_evidence(part.evidence(readout))
        values = familiarity_scores(evidence, self.temperature(head))[score]
        return scores, familiar_shares(values, separation)

    def separation(self, head: str) -> tuple[str, Separation] | None:
        """The score by which a head tells known images from unknown ones, and how well it does.

        The best one that the model can compute: saved for inference only, the Gaussian head has its
        probability alone. None where no lesson has measured it.
        """
        measured = self.history.separations.get(head, {})
        device = exact_device(self.model.backbone.device)
        nothing = torch.zeros(1, self.model.width, device=device)
        with torch.no_grad():
            evidence = self.model.heads[head].evidence(nothing)
        score = best_score(measured, familiarity_scores(evidence, 1.0))
        return None if score is None else (score, measured[score])

    def check_reject(self, reject: Any, head: str) -> None:
        """Check that a head can give up this share of known images.

        Raises:
            ConfigError: it is no share, too small to be told, or no lesson has measured it.
        """
        if reject is None:
            return
        measured = self.separation(head)
        if measured is None:
            raise ConfigError(
                f"reject={reject}: no lesson of this model has measured what known images look like "
                f"to its head '{head}'. Teach it another class, or more images of known ones. Heads "
                "on lifted features cannot tell."
            )
        images = measured[1].images
        if isinstance(reject, bool) or not isinstance(reject, int | float) or not 0 < reject < 1:
            raise ConfigError(
                f"reject={reject!r}: allowed is a share of known images to give up, above 0 and below "
                "1, as 0.05."
            )
        if reject * (images + 1) < 1:
            raise ConfigError(
                f"reject={reject:g}: familiarity was measured on {images:,} images, so it tells shares "
                f"of {1 / (images + 1):.3g} or more. Reject as much, or teach more images."
            )

    def temperature(self, head: str) -> float:
        """What the scores of a head are divided by before the softmax."""
        return self.history.temperatures.get(head, 1.0)

    def probabilities(self, scores: Float[Tensor, "n c"], head: str) -> Float64[Tensor, "n c"]:
        """Tempered probabilities of a head's `scores`, on the CPU."""
        return (scores.double() / self.temperature(head)).softmax(dim=1).cpu()

    def rank(self, scores: Float[Tensor, "n c"], head: str, k: int) -> list[tuple[Prediction, ...]]:
        """The k most likely classes by a head's `scores`, best first; of ties the first to arrive."""
        names = self.columns.names
        # By score: of probabilities many may be zero.
        best = scores.sort(dim=1, descending=True, stable=True).indices[:, :k].cpu()
        shares = self.probabilities(scores, head).gather(1, best)
        rows = zip(best.tolist(), shares.tolist(), strict=True)
        return [
            tuple(Prediction(names[c], c, share) for c, share in zip(*row, strict=True))
            for row in rows
        ]
