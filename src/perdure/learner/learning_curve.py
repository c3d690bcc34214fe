"""Learning curve: accuracy of images left out in turn when a share of each class's images is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perdure.engine.model import Model
from perdure.learner.history import SHARES, Curve
from perdure.learner.known_features import KnownFeatures
from perdure.learner.state import LearnerState
from perdure.numerics.gaussians import views_of
from perdure.randomness import permutation
from perdure.types import Task

MOST_WIDTH = 2048
"""Numbers per image above which a lesson is not measured: each share needs a solve of that width."""


Judge = Callable[[Int[Tensor, "m"]], tuple[Bool[Tensor, "m"], Float[Tensor, "j c"]]]
"""Of a head that knows the images at some places and no others: which of these can be left out, and
the scores of each by class without it."""


def lesson_curve(
    before: Model,
    after: LearnerState,
    task: Task,
    features: Float[Tensor, "n *v d"],
    labels: Int[Tensor, "n"],
) -> dict[str, Curve]:
    """Measure the curve of a lesson's classes, among all classes then known; {} where that is dear.

    Images of earlier lessons count in full. Under the head that predicts; only where features are
    fixed and it `leaves_out`, and not where it asks for validation images (``shrinkage=validation``),
    of which a share has none.

    Args:
        before: the model before the lesson.
        after: what came of it.
        task: the lesson's new classes; without any, a task of none.
        features: readouts of the images that were trained on, as they were taken in.
        labels: their classes, in order of arrival.
    """
    name, columns = after.head_name(None), after.columns
    head = after.model.heads[name]
    asks = getattr(head.config, "shrinkage", None) == "validation"
    if asks or head.space(views_of(features)[:1, 0]).shape[1] > MOST_WIDTH:
        return {}

    def judge(part: Int[Tensor, "m"]) -> tuple[Bool[Tensor, "m"], Float[Tensor, "j c"]]:
        known, own = features[part], labels[part]
        head = after.model.heads[name]
        if len(part) < len(labels):
            head = before.copy().heads[name]
            new = torch.isin(own, torch.tensor(task.classes, device=own.device))
            if task.classes:
                head.start_task(task)
                head.end_task(task, KnownFeatures(known[new], own[new]))
            if not bool(new.all()):
                head.take_in(known[~new], own[~new])
        judged, scores = head.scores_left_out(known, own)
        return judged, columns.class_scores(scores)

    seed = after.model.config.training.seed
    return measured_curve(judge, columns.of(labels), columns.names, seed)


@torch.no_grad()
def measured_curve(
    judge: Judge, labels: Int[Tensor, "n"], names: Sequence[str], seed: int
) -> dict[str, Curve]:
    """Measure the curve of some images' classes.

    Args:
        judge: answers for images left out in turn.
        labels: classes of the images, as positions in ``names``.
        names: of all classes that compete; a single one has no curve.
        seed: draws which images are known, for each class by its name.
    """
    own = labels.unique().tolist()
    if len(names) < 2:  # noqa: PLR2004  one and another
        return {names[label]: (None,) * len(SHARES) for label in own}
    points = []
    for share in SHARES:
        part = _drawn(labels, names, seed, share)
        judged, scores = judge(part)
        answers, given = scores.argmax(dim=1).cpu(), labels[part].cpu()[judged.cpu()]
        right = answers == given
        found = given.unique().tolist()
        points.append({label: float(right[given == label].float().mean()) for label in found})
    return {names[label]: tuple(point.get(label) for point in points) for label in own}


def _drawn(
    labels: Int[Tensor, "n"], names: Sequence[str], seed: int, share: float
) -> Int[Tensor, "m"]:
    """Places of a share of each class's images, at least one."""
    rows = []
    for label in labels.unique().tolist():
        own = (labels == label).nonzero()[:, 0]
        order = permutation(len(own), seed, "curve", names[label])
        rows.append(own[order[: max(1, int(share * len(own) + 0.5))]])
    return torch.cat(rows)
