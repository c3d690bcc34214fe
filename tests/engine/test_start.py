"""Start of a task: what its images look like before it is surveyed once, where nothing changes."""

from __future__ import annotations

import pytest
import torch

from perdure.engine.events import Event
from perdure.engine.run import plan
from perdure.engine.survey import ImageSurvey
from perdure.engine.training import _versions
from perdure.methods import METHODS
from perdure.testing.trial import make_trial

MOVING = [
    name
    for name, declared in METHODS.declared.items()
    if not (declared.traits.frozen_features or declared.traits.cumulative)
]


@pytest.mark.parametrize("method", MOVING)
def test_a_start_that_writes_nothing_adds_the_same(method: str) -> None:
    """What a survey saw before `start_task` holds after it, unless a tensor says otherwise."""
    trial = make_trial(method)
    second = trial.stream.tasks[1]
    training = trial.start(plan(trial.stream, trial.config)[0])
    training.train()
    training.finish()
    model = training.model
    before = ImageSurvey(model, second).features("train")[0]
    stood = _versions(model.method)
    model.start_task(second.task)
    after = ImageSurvey(model, second).features("train")[0]
    assert torch.equal(before, after) or _versions(model.method) != stood


@pytest.mark.parametrize(("method", "surveys"), [("finetune", 2), ("dualprompt", 3)])
def test_images_are_surveyed_once_before_the_first_step(method: str, surveys: int) -> None:
    """Followed from, and centred by; anew for a method whose start adds prompts; and at the end."""
    events: list[Event] = []
    heads = ["linear", "gaussian(drift=linear)"]
    make_trial(method, heads=heads, head_inputs="centred").run(sink=events.append)
    begun = [
        event
        for event in events
        if event.task == 1 and event.fields.get("phase") == "survey" and event.fields["done"] == 1
    ]
    assert len(begun) == surveys
