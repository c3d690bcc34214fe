"""The one way from pixels to class scores, and what is read off them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from perdure.errors import ConfigError
from perdure.heads import HEADS
from perdure.learner import ContinualClassifier
from perdure.testing.trial import evaluation_pixels, make_trial
from tests.tiny import lesson, pictures


@pytest.mark.long
def test_only_the_heads_asked_for_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = make_trial("nsp2", heads=["linear", "gaussian", "ncm"])
    state = ContinualClassifier.from_model(trial.run().model).state_
    batches = evaluation_pixels(trial).split(5)
    every = state.scores(batches, ("linear", "gaussian", "ncm"))

    def refused(*args: Any) -> None:
        raise AssertionError("nobody asked for this head")

    monkeypatch.setattr(HEADS["linear"], "logits", refused)
    for head in ("gaussian", "ncm"):
        (asked,) = state.scores(iter(batches), (head,)).values()
        assert torch.equal(asked, every[head])
        assert asked.dtype == every[head].dtype


def test_of_ties_the_first_to_arrive_ranks_first(learned: ContinualClassifier) -> None:
    ranked = learned.state_.rank(torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0]]), "gaussian", 4)
    assert [one.label for one in ranked[0]] == [1, 2, 4, 0]
    assert [one.name for one in ranked[0]] == ["b", "c", "e", "a"]


def test_wrong_head_and_k(learned: ContinualClassifier) -> None:
    with pytest.raises(ConfigError, match=r"no head 'linear'\. It has: gaussian"):
        learned.predict(pictures("a"), head="linear")
    with pytest.raises(ConfigError, match="k=0"):
        learned.top(pictures("a"), 0)
    with pytest.raises(ConfigError, match="sample_weight has no use"):
        learned.score(*lesson("a"), sample_weight=[1] * 6)
