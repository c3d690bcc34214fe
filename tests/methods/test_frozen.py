"""Baselines on frozen features: nothing is added, and nothing but the head differs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from perdure.backbones.additions import Additions
from perdure.engine.survey import ImageSurvey
from perdure.engine.training import Training
from perdure.testing import make_trial
from perdure.testing.trial import evaluation_pixels

FROZEN = ["linear", "ncm", "lda"]


@pytest.mark.parametrize("method", FROZEN)
def test_readout_is_the_plain_class_token(method: str) -> None:
    trial = make_trial(method)
    model = trial.run().model
    pixels = evaluation_pixels(trial)
    readout, _ = model.forward(pixels)
    plain = trial.backbone(trial.backbone.normalise(pixels)).cls
    assert plain is not None
    assert torch.equal(readout, plain)
    assert model.method.additions(None, None) == Additions()
    assert not model.method.state_dict()


def test_features_known_in_advance_train_the_same_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without augmentation the features of a task are computed once; that saves time only."""
    known = make_trial("linear", epochs=2).run().model.state()
    monkeypatch.setattr(Training, "_known_features", lambda self: None)
    anew = make_trial("linear", epochs=2).run().model.state()
    assert known.keys() == anew.keys()
    for key, value in known.items():
        torch.testing.assert_close(value, anew[key], rtol=1e-4, atol=1e-5)


def test_augmented_features_are_not_known_in_advance(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    known = Training._known_features

    def note(self: Training) -> Tensor | None:
        found.append(known(self))
        return found[-1]

    monkeypatch.setattr(Training, "_known_features", note)
    make_trial("linear", transform="flip_crop").run()
    assert found == [None, None]
    make_trial("linear").run()
    assert [kept.shape for kept in found[2:] if kept is not None] == [(16, 64), (16, 64)]


@pytest.mark.parametrize("inputs", ["features", "centred"])
def test_training_images_are_run_once_per_task(
    monkeypatch: pytest.MonkeyPatch, inputs: str
) -> None:
    """Centring, training and the heads' end of a task share one pass."""
    passes: list[int] = []
    ask = ImageSurvey.__call__

    def counted(self: ImageSurvey, *args: Any) -> None:
        passes.append(1)
        ask(self, *args)

    monkeypatch.setattr(ImageSurvey, "__call__", counted)
    make_trial("linear", heads=["linear"], head_inputs=inputs).run()
    assert len(passes) == 2
