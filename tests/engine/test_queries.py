"""Queries of two-pass methods: the plain pass is made once per image, and answers stay the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from perdure.engine.build import make_backbone, make_stream
from perdure.engine.model import Model
from perdure.engine.run import Run
from perdure.engine.survey import ImageSurvey
from tests.tiny import small_config

OPTIONS: dict[str, Any] = {
    "tasks": "4+3+3",
    "images_per_class": 6,
    "test_images_per_class": 3,
    "epochs": 1,
    "cache_queries": True,
    "heads": "linear,gaussian(drift=linear)",
}


@pytest.mark.long
@pytest.mark.parametrize("method", ["coda_prompt", "l2p"])
def test_plain_passes_do_not_grow_with_evaluations(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(method, **OPTIONS)
    images = {False: 0, True: 0}
    plain = Model.query

    def counted(self: Model, batch: Tensor, survey: bool = False) -> Tensor | None:
        images[survey] += len(batch)
        return plain(self, batch, survey)

    monkeypatch.setattr(Model, "query", counted)
    Run(config, make_stream(config), make_backbone(config))()
    assert images == {False: 10 * 3, True: 10 * 6}  # test images once, training images once


def test_shared_queries_change_no_bit_of_a_survey() -> None:
    config = small_config("coda_prompt", **OPTIONS)
    stream = make_stream(config)
    model = Model(make_backbone(config), config)
    model.start_task(stream.tasks[0].task)
    shared: dict[Any, Any] = {}
    first = ImageSurvey(model, stream.tasks[0], queries=shared).features()[0]
    again = ImageSurvey(model, stream.tasks[0], queries=shared).features()[0]
    alone = ImageSurvey(model, stream.tasks[0]).features()[0]
    assert torch.equal(first, again)
    assert torch.equal(first, alone)
