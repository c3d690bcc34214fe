"""Probabilities that mean what they say: one temperature per head, from held-out images."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

from perdure.engine.events import Event, Sink
from perdure.learner.learned import Learned
from perdure.streams import Subset

BINS = 15
MOST = math.log(1e3)
"""Bound on the size of a temperature's logarithm."""
SPREAD = 2.0
"""How far from 0 it is expected."""


def measure(learned: Learned, kept: Subset, sink: Sink) -> Learned:
    """Measure the newest lesson on its held-out images, and renew the temperatures.

    Images of earlier lessons are gone. So the logarithm of a head's temperature is the mean of
    those that were best for each lesson, among the classes known then, weighted by the number of
    held-out images.
    """
    if not len(kept):
        return learned
    history, outputs = learned.history, learned.outputs
    labels = outputs.columns(kept.labels)
    temperatures = dict(history.temperatures)
    accuracy, before, after = {}, {}, {}
    for head, scores in learned.scores(kept).items():
        fitted = [lesson for lesson in history.lessons if head in lesson.calibration_error]
        earlier = sum(lesson.held_out for lesson in fitted)
        own = math.log(fitted_temperature(scores, labels))
        mean = (earlier * math.log(learned.temperature(head)) + len(kept) * own) / (
            earlier + len(kept)
        )
        temperatures[head] = math.exp(mean)
        accuracy[head] = float((scores.argmax(1) == labels).double().mean())
        before[head] = calibration_error(scores.softmax(1), labels)
        after[head] = calibration_error((scores / temperatures[head]).softmax(1), labels)
        fields = {"head": head, "accuracy": accuracy[head]}
        sink(Event("accuracy", len(learned.model.tasks) - 1, fields))
    lesson = replace(
        history.lessons[-1],
        held_out=len(kept),
        accuracy=accuracy,
        calibration_error=after,
        untempered_error=before,
    )
    lessons = (*history.lessons[:-1], lesson)
    return Learned(learned.model, replace(history, lessons=lessons, temperatures=temperatures))


def fitted_temperature(scores: Float[Tensor, "n c"], labels: Int[Tensor, "n"]) -> float:
    """Return the temperature under which the labels are most likely; 1 where one class is known.

    Its logarithm is taken to be normal around 0 with deviation `SPREAD`. Otherwise a handful of
    images that are all told right would ask for certainty; with many images it does not count.

    Args:
        scores: of every known class.
        labels: positions among them.
    """
    if scores.shape[1] == 1:
        return 1.0

    def loss(log_temperature: float) -> float:
        tempered = scores.double() / math.exp(log_temperature)
        prior = (log_temperature / SPREAD) ** 2 / 2
        return float(F.cross_entropy(tempered, labels, reduction="sum")) + prior

    found = minimize_scalar(loss, bounds=(-MOST, MOST), method="bounded")
    return math.exp(float(found.x))


def calibration_error(probabilities: Float[Tensor, "n c"], labels: Int[Tensor, "n"]) -> float:
    """Return the expected calibration error, in [0, 1].

    Mean over images of |accuracy − mean confidence| of the image's bin, with 15 bins of equal
    width over the confidence, the probability of the class that is predicted (Guo et al. 2017).

    Args:
        probabilities: rows that sum to 1.
        labels: the true columns.
    """
    confidence, predicted = probabilities.double().max(1)
    right = (predicted == labels).double().numpy()
    bins = np.clip(np.ceil(confidence.numpy() * BINS) - 1, 0, BINS - 1).astype(np.int64)
    gaps = np.bincount(bins, weights=right - confidence.numpy(), minlength=BINS)
    return float(np.abs(gaps).sum() / max(len(labels), 1))
