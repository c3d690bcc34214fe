"""Staleness: what heads lose to statistics that were measured under the prompts of before."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from perdure.engine.config import Config
from perdure.engine.evaluate import Evaluator
from perdure.engine.events import Sink, ignore
from perdure.engine.model import Model
from perdure.engine.survey import ImageSurvey
from perdure.heads import HEADS
from perdure.metrics import last_accuracy
from perdure.streams import TaskData


def ageing_heads(config: Config) -> tuple[str, ...]:
    """Return the evaluated heads in closed form whose statistics grow stale as prompts learn on."""
    traits = config.traits
    if traits.frozen_features or traits.cumulative or not traits.trains:
        return ()
    chosen = config.built_heads
    return tuple(
        head
        for head in config.head_names
        if HEADS.declared[chosen[head].kind].closed_form
        and hasattr(chosen[head].options(config.heads), "drift")
    )


@torch.no_grad()
def all_seen_accuracy(
    model: Model, tasks: Sequence[TaskData], sink: Sink = ignore
) -> dict[str, float]:
    """Last accuracy of heads that are fitted, at the end, to the training images of all tasks.

    Not allowed to a learner, which has no old images: an upper bound of what following the drift
    can give. Nothing is learned from it.

    Args:
        model: has learned all of these tasks.
        tasks: of its stream, with test images.
        sink: receives progress events.
    """
    names = ageing_heads(model.config)
    if not names:
        return {}
    twin = model.copy()
    fitted = [model.new_head(name).to(model.backbone.device) for name in names]
    twin.heads |= dict(zip(names, fitted, strict=True))
    for data in tasks:
        survey = ImageSurvey(model, data, sink)
        for head in fitted:
            head.start_task(data.task)
            head.to(model.backbone.device)
            head.prepare(data.task, survey)
            head.end_task(data.task, survey)
    counts = Evaluator(sink)(twin, tasks)
    return {name: float(last_accuracy(counts[name])) for name in names}
