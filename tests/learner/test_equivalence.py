"""A classifier that learns a stream's tasks one by one is the model of a run over that stream."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from perdure.engine.build import make_backbone, make_stream
from perdure.engine.run import Run
from perdure.learner import ContinualClassifier
from perdure.learner.settings import parameters_of
from perdure.streams import TaskData
from tests.tiny import small_config

pytestmark = pytest.mark.long


class TaskDataset(torch.utils.data.Dataset[Any]):
    """A task of a stream as a user would have it."""

    def __init__(self, data: TaskData) -> None:
        self.classes = list(data.task.names)
        self._train = data.train
        self._first = data.task.classes[0]

    def __len__(self) -> int:
        return len(self._train)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image = self._train.images.image(int(self._train.indices[index]))
        return image, int(self._train.labels[index]) - self._first


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("nsp2", {"heads": ["linear", "gaussian"], "head_inputs": "centred"}),
        ("lda", {}),
        ("l2p", {"heads": ["linear", "ncm"], "cache_queries": True}),
    ],
)
def test_weights_are_those_of_a_run(method: str, options: dict[str, Any]) -> None:
    config = small_config(method, tasks="4+1+5", images_per_class=4, epochs=1, seed=5, **options)
    stream = make_stream(config)
    ran = Run(config, stream, make_backbone(config))().model
    parameters, others = parameters_of(config)
    learner = ContinualClassifier(**parameters, options=others, calibration_fraction=0)
    for data in stream.tasks:
        learner.learn(TaskDataset(data))
    assert learner.model.label_names == stream.class_names
    assert tuple(learner.classes_) == tuple(sorted(stream.class_names))
    ours, theirs = learner.model.state(), ran.state()
    assert ours.keys() == theirs.keys()
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []
