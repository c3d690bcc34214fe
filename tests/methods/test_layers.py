"""Features of several blocks, joined: LayUP's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from perdure.engine.build import make_backbone, make_stream
from perdure.engine.model import Model
from perdure.engine.run import Run
from perdure.engine.survey import ImageSurvey
from perdure.errors import BackboneError
from perdure.learner import ContinualClassifier
from tests.tiny import small_config


def layered(**options: Any) -> Any:
    return small_config("lda", **{"images_per_class": 4, "heads": "ridge,gaussian", **options})


@pytest.mark.long
def test_features_are_the_class_tokens_of_the_last_blocks() -> None:
    config = layered(layers=2)
    stream, backbone = make_stream(config), make_backbone(config)
    model = Model(backbone, config)
    joined = ImageSurvey(model, stream.tasks[0]).features()[0]
    assert joined.shape[1] == 2 * backbone.spec.dim
    last = ImageSurvey(Model(backbone, layered()), stream.tasks[0]).features()[0]
    torch.testing.assert_close(joined[:, backbone.spec.dim :], last)
    outcome = Run(config, stream, backbone)()
    assert outcome.model.heads["ridge"].dim == 2 * backbone.spec.dim
    assert set(outcome.counts) == {"ridge", "gaussian"}


@pytest.mark.long
def test_a_classifier_keeps_them_when_it_is_saved(tmp_path: Any) -> None:
    clf = ContinualClassifier(
        "lda", "test_vit", ["ridge"], options={"weights": "random", "layers": 3}
    )
    images = torch.randint(0, 256, (6, 32, 32), dtype=torch.uint8).numpy()
    clf.learn(images, ["owl", "owl", "owl", "eel", "eel", "eel"])
    clf.save(tmp_path / "m")
    again = ContinualClassifier.load(tmp_path / "m")
    assert again.predict_proba(images).tolist() == clf.predict_proba(images).tolist()


def test_more_layers_than_blocks_are_refused() -> None:
    config = layered(layers=99)
    with pytest.raises(BackboneError, match=r"layers=99: .* has \d+ blocks\. Take 1 to"):
        Model(make_backbone(config), config)


@pytest.mark.long
def test_a_backbone_without_class_token_is_refused() -> None:
    config = layered(layers=2, backbone="test_convnext", weights="random")
    with pytest.raises(BackboneError, match="needs class_attention"):
        Model(make_backbone(config), config)
