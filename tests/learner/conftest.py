"""One random backbone for all classifiers of these tests, and a classifier of five classes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from perdure.backbones.vit import FrozenViT
from perdure.engine.build import make_backbone
from perdure.engine.config import Config
from perdure.engine.events import Sink, ignore
from perdure.learner import ContinualClassifier
from tests.tiny import classifier, lesson

_made: dict[tuple[str, str, int | None, int], FrozenViT] = {}


def _kept(config: Config, sink: Sink = ignore) -> FrozenViT:
    key = (
        config.training.backbone,
        config.training.weights,
        config.training.img_size,
        config.training.seed,
    )
    if key not in _made:
        _made[key] = make_backbone(config, sink)
    return _made[key]


@pytest.fixture(autouse=True)
def _one_backbone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perdure.learner.classifier.make_backbone", _kept)
        patch.setattr("perdure.learner.saved.model.make_backbone", _kept)
        yield


@pytest.fixture(scope="session")
def learned() -> ContinualClassifier:
    """Return a classifier of five classes in two lessons; not to be changed."""
    return classifier("lda").learn(lesson("a", "b")).learn(lesson("c", "d", "e"))
