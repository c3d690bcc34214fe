"""Training reads an image only where something is computed from its pixels."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.engine.build import make_backbone, make_stream
from perdure.engine.run import Run
from tests.tiny import small_config


@pytest.mark.parametrize("method", ["linear", "iprompt"])
def test_images_with_known_features_are_not_read_in_training(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an image was read for a training step")

    monkeypatch.setattr("perdure.engine.training.batches", refuse)
    config = small_config(method, tasks="5+5", images_per_class=2, epochs=1)
    backbone = make_backbone(config)
    Run(config, make_stream(config), backbone)()
    augmented = config.replace(transform="flip_crop")
    with pytest.raises(AssertionError, match="an image was read"):
        Run(augmented, make_stream(augmented), backbone)()
