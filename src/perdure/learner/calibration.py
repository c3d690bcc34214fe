"""Temperature scaling: one temperature per head, fitted on images held out or left out in turn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar
from torch import Tensor

from perdure.engine.events import Event, Sink
from perdure.engine.survey import ordered_batches
from perdure.learner.history import Lesson
from perdure.learner.state import LearnerState
from perdure.streams import Subset

BINS = 15
MAX_LOG = math.log(1e3)
"""Bound on the size of a temperature's logarithm, over the spread of scores."""
PRIOR_DEVIATION = 2.0
"""Standard deviation of the prior of a temperature's logarithm around 0."""
GRID = np.linspace(-MAX_LOG, MAX_LOG, 139)
"""Logarithms of the temperatures, over the spread of scores, at which a lesson's losses are noted."""


Scored = tuple[Float[Tensor, "n c"], Int[Tensor, "n"]]
"""Scores of images for the known classes, and their columns."""


def calibrate(state: LearnerState, held_out: Subset, sink: Sink) -> LearnerState:
    """Measure the newest lesson on its held-out images, and fit the temperatures anew.

    Images of earlier lessons are gone, but their losses are not: at each place of `GRID` the loss is
    summed over all lessons, each among the classes known then, and over the spread of its own scores:
    another shrinkage makes all scores larger or smaller, and the temperature that they want with them.
    """
    if not len(held_out):
        return state
    labels = state.columns.of(held_out.labels)
    pixels = (batch.images for batch in ordered_batches(state.model, held_out))
    scores = state.scores(pixels, state.model.config.head_names)
    lesson = replace(state.history.lessons[-1], held_out=len(held_out))
    return _fit(state, lesson, {head: (raw, labels) for head, raw in scores.items()}, sink)


def calibrate_left_out(
    state: LearnerState, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"], sink: Sink
) -> LearnerState:
    """Measure the newest lesson on its own training images, each left out in turn, and fit anew.

    Only where features are fixed and every evaluated head `leaves_out`. An image that is the only
    one of its class has no answer without it, and no say.

    Args:
        state: after the lesson.
        features: readouts of the lesson's training images, as they were taken in.
        labels: their classes, in order of arrival.
        sink: receives the accuracy.
    """
    scored: dict[str, Scored] = {}
    images = 0
    for head in state.model.config.head_names:
        judged, scores = state.model.heads[head].scores_left_out(features, labels)
        images = int(judged.sum())
        scored[head] = state.columns.class_scores(scores), state.columns.of(labels[judged])
    if not images:
        return state
    return _fit(state, replace(state.history.lessons[-1], left_out=images), scored, sink)


def _fit(
    state: LearnerState, lesson: Lesson, scored: Mapping[str, Scored], sink: Sink
) -> LearnerState:
    """Note the lesson's accuracy, and fit temperatures to its losses and those of all before."""
    history = state.history
    temperatures, losses = dict(history.temperatures), dict(history.spread_losses)
    accuracy, before, after = {}, {}, {}
    for head, (raw, columns) in scored.items():
        scores, labels = raw.double().cpu(), columns.cpu()
        spread = score_spread(scores)
        summed = grid_losses(scores / spread, labels)
        summed += np.array(losses.get(head, np.zeros(len(GRID))))
        losses[head] = tuple(summed.tolist())
        temperatures[head] = best_temperature(summed, spread)
        accuracy[head] = float((scores.argmax(1) == labels).double().mean())
        before[head] = calibration_error(scores.softmax(1), labels)
        after[head] = calibration_error((scores / temperatures[head]).softmax(1), labels)
        images = "held-out images" if lesson.held_out else "images left out in turn"
        fields = {"head": head, "accuracy": accuracy[head], "images": images}
        sink(Event("accuracy", len(state.model.tasks) - 1, fields))
    lesson = replace(lesson, accuracy=accuracy, calibration_error=after, untempered_error=before)
    lessons = (*history.lessons[:-1], lesson)
    renewed = replace(history, lessons=lessons, temperatures=temperatures, spread_losses=losses)
    return LearnerState(state.model, renewed)


def grid_losses(scores: Float[Tensor, "n c"], labels: Int[Tensor, "n"]) -> Float64[np.ndarray, "t"]:
    """Summed cross-entropy of images under each temperature of `GRID`."""
    tempered = [scores.double() / math.exp(logarithm) for logarithm in GRID]
    return np.array([float(F.cross_entropy(part, labels, reduction="sum")) for part in tempered])


def score_spread(scores: Float[Tensor, "n c"]) -> float:
    """Mean over images of the standard deviation of their scores over classes; 1 for equal scores."""
    return float(scores.double().std(1, correction=0).mean()) or 1.0


def best_temperature(losses: Float64[np.ndarray, "t"], spread: float = 1.0) -> float:
    """The temperature under which the labels are most likely, by their `grid_losses`.

    Args:
        losses: of scores over their `score_spread`, of one or more lessons.
        spread: that of the scores which it is for.

    Its logarithm is taken to be normal around 0 with `PRIOR_DEVIATION`. Otherwise a handful of
    images that are all classified correctly would ask for certainty; with many images it does not
    count.
    """
    prior = ((GRID + math.log(spread)) / PRIOR_DEVIATION) ** 2 / 2
    curve = CubicSpline(GRID, losses + prior)
    lowest = float(GRID[int(curve(GRID).argmin())])
    step = float(GRID[1] - GRID[0])
    bounds = (max(lowest - step, -MAX_LOG), min(lowest + step, MAX_LOG))
    return spread * math.exp(float(minimize_scalar(curve, bounds=bounds, method="bounded").x))


def calibration_error(probabilities: Float[Tensor, "n c"], labels: Int[Tensor, "n"]) -> float:
    """Expected calibration error, in [0, 1].

    Mean over images of |accuracy − mean confidence| of the image's bin, with 15 bins of equal
    width over the confidence, the probability of the class that is predicted (Guo et al. 2017).
    """
    confidence, predicted = probabilities.double().max(1)
    right = (predicted == labels).double().numpy()
    bins = np.clip(np.ceil(confidence.numpy() * BINS) - 1, 0, BINS - 1).astype(np.int64)
    gaps = np.bincount(bins, weights=right - confidence.numpy(), minlength=BINS)
    return float(np.abs(gaps).sum() / max(len(labels), 1))
