"""Surveys give the readouts of images and of their mirror images."""

from __future__ import annotations

import pytest
import torch

from perdure.engine.model import Model
from perdure.engine.survey import ImageSurvey, ordered_batches
from perdure.testing.trial import make_trial


@pytest.mark.parametrize("method", ["lda", "l2p", "iprompt"])
def test_the_second_view_is_the_image_mirrored(method: str) -> None:
    made = make_trial(method)
    model, data = Model(made.backbone, made.config), made.stream.tasks[0]
    model.start_task(data.task)
    survey = ImageSurvey(model, data)
    views, labels = survey.features("train", mirrored=True)
    plain, _ = survey.features("train")
    assert torch.equal(views[:, 0], plain)
    assert torch.equal(labels, data.train.labels)
    with torch.no_grad():
        pixels = torch.cat([batch.images for batch in ordered_batches(model, data.train)])[:3]
        flipped = pixels[:, :, :, torch.arange(pixels.shape[3] - 1, -1, -1)]
        query = model.query(flipped, survey=True)
        wanted = model.forward(flipped, survey=True, query=query)[0]
    torch.testing.assert_close(views[:3, 1], wanted.float(), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(views[:3, 1], plain[:3])
