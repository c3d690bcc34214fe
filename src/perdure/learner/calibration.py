"""Probabilities that mean what they say: one temperature per head, from held-out images."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar
from torch import Tensor

from perdure.engine.events import Event, Sink
from perdure.learner.state import Learned
from perdure.streams import Subset

BINS = 15
MOST = math.log(1e3)
"""Bound on the size of a temperature's logarithm."""
SPREAD = 2.0
"""How far from 0 it is expected."""
GRID = np.linspace(-MOST, MOST, 139)
"""Logarithms of temperatures at which a lesson's losses are noted."""


def measure(learned: Learned, kept: Subset, sink: Sink) -> Learned:
    """Measure the newest lesson on its held-out images, and renew the temperatures.

    Images of earlier lessons are gone, but not what they had to say of a temperature: the loss at
    each of a row of temperatures is summed over all lessons, each among the classes known then.
    """
    if not len(kept):
        return learned
    history, outputs = learned.history, learned.outputs
    labels = outputs.columns(kept.labels)
    temperatures, losses = dict(history.temperatures), dict(history.losses)
    accuracy, before, after = {}, {}, {}
    for head, scores in learned.scores(kept).items():
        told = losses_of(scores, labels) + np.array(losses.get(head, np.zeros(len(GRID))))
        losses[head] = tuple(told.tolist())
        temperatures[head] = best_temperature(told)
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
    after_all = replace(history, lessons=lessons, temperatures=temperatures, losses=losses)
    return Learned(learned.model, after_all)


def losses_of(scores: Float[Tensor, "n c"], labels: Int[Tensor, "n"]) -> Float64[np.ndarray, "t"]:
    """Return the summed cross-entropy of images under each temperature of `GRID`.

    Args:
        scores: of every known class.
        labels: positions among them.
    """
    tempered = [scores.double() / math.exp(logarithm) for logarithm in GRID]
    return np.array([float(F.cross_entropy(part, labels, reduction="sum")) for part in tempered])


def best_temperature(losses: Float64[np.ndarray, "t"]) -> float:
    """Return the temperature under which the labels are most likely.

    Its logarithm is taken to be normal around 0 with deviation `SPREAD`. Otherwise a handful of
    images that are all told right would ask for certainty; with many images it does not count.

    Args:
        losses: see `losses_of`.
    """
    curve = CubicSpline(GRID, losses + (GRID / SPREAD) ** 2 / 2)
    lowest = float(GRID[int(curve(GRID).argmin())])
    step = float(GRID[1] - GRID[0])
    bounds = (max(lowest - step, -MOST), min(lowest + step, MOST))
    return math.exp(float(minimize_scalar(curve, bounds=bounds, method="bounded").x))


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
