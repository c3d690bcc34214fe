"""A class is removed, and every tensor that still carries it is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from perdure.errors import ConfigError
from perdure.learner import ContinualClassifier, Forgotten
from perdure.testing import make_trial
from tests.tiny import classifier, lesson, pictures


def taught(method: str, seed: int, **options: Any) -> ContinualClassifier:
    """Two lessons; the class 'b' of the first has other pictures under every seed."""
    learner = classifier(method, **options)
    images = pictures("a") + pictures("b", seed=seed)
    return learner.learn(images, ["a"] * 6 + ["b"] * 6).learn(lesson("c", "d"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lda", {}),
        ("ncm", {}),
        ("linear", {"head_inputs": "features"}),
        ("linear", {"head_init": "fresh"}),
        ("nsp2", {"heads": ["linear", "gaussian", "ncm"]}),
        ("l2p", {}),
        ("coda_prompt", {}),
        ("iprompt", {"pool": 4, "key_init": "kmeans"}),
        ("clip_nsp2", {"class_embeddings": "mean", "refine_epochs": 1}),
    ],
)
def test_every_tensor_that_carries_it_is_named(
    method: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What differs between two classifiers that saw other pictures of the class is what carries it."""
    if method.startswith("clip"):
        backbone = make_trial(method).backbone
        monkeypatch.setattr("perdure.learner.classifier.make_backbone", lambda *args: backbone)
    learners = [taught(method, seed, **options) for seed in (0, 1)]
    told = [learner.forget_class("b") for learner in learners]
    assert told[0].remains == told[1].remains
    named = {tensor for trace in told[0].remains for tensor in trace.tensors}
    ours, theirs = (learner.model.state() for learner in learners)
    assert named <= ours.keys()
    differing = {key for key in ours if not torch.equal(ours[key], theirs[key])}
    assert differing <= named
    if method in ("lda", "ncm", "linear"):
        same = {"heads.gaussian.counts", "heads.linear.images"}
        same |= {key for key in named if key.startswith("heads.gaussian.left_out.")}
        assert named - differing <= same | {k for k in named if k.endswith((".bias", ".rho"))}


def test_ncm_is_as_if_it_had_never_been() -> None:
    learner = classifier("ncm").learn(lesson("a", "b", "c"))
    told = learner.forget_class("b")
    assert not any(trace.tensors for trace in told.remains)
    never = classifier("ncm").learn(lesson("a", "c"))
    images = pictures("b") + pictures("c")
    assert learner.classes_.tolist() == never.classes_.tolist() == ["a", "c"]
    torch.testing.assert_close(learner.logits(images), never.logits(images))


def test_gaussian_of_one_image_is_as_if_it_had_never_been() -> None:
    images, names = lesson("a", "c")
    options = {"shrinkage": "analytic", "mirrored": False}
    learner = classifier("lda", **options)
    learner.learn([*images, *pictures("b", 1)], [*names, "b"])
    told = learner.forget_class("b")
    assert not any(trace.tensors for trace in told.remains)
    never = classifier("lda", **options).learn(images, names)
    scores, wanted = learner.logits(images), never.logits(images)
    # Features are those of another batch, so the last bits of what cancels in a score may differ.
    torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def test_of_one_image_and_its_mirror_image_the_spread_stays() -> None:
    images, names = lesson("a", "c")
    learner = classifier("lda").learn([*images, *pictures("b", 1)], [*names, "b"])
    (trace,) = (one for one in learner.forget_class("b").remains if one.tensors)
    assert "with the spread of its image and the mirror image" in trace.what


@pytest.mark.parametrize("method", ["nsp2", "lda"])
def test_vectors_are_overwritten_and_the_class_is_never_predicted(method: str) -> None:
    learner = classifier(method, ["linear", "gaussian"] if method == "nsp2" else None)
    learner.learn(lesson("a", "b")).learn(lesson("c", "d"))
    told = learner.forget_class("b")
    state = learner.model.state()
    assert not state["heads.gaussian.means"][1].any()
    assert not state["heads.gaussian.weight"][1].any()
    assert state["heads.gaussian.means"][[0, 2, 3]].any(1).all()
    if method == "nsp2":
        assert not state["heads.linear.weight"][1].any()
        assert state["heads.linear.weight"][0].any()
    found = learner.predict_proba(pictures("b"))
    assert found.shape == (6, 3)
    np.testing.assert_allclose(found.sum(1), 1)
    assert "b" not in learner.predict(pictures("b"))
    assert str(told).startswith("'b' is forgotten.\nRemoved:\n- its score")
    assert "(heads.gaussian.scatter, heads.gaussian.counts" in str(told)
    assert ("prompts" in str(told)) == (method == "nsp2")


@pytest.mark.parametrize("drawn_together", [0.0, 3.0])
def test_other_classes_are_told_as_before(drawn_together: float) -> None:
    options = {"mean_shrinkage": drawn_together}
    learner = classifier("lda", **options).learn(lesson("a", "b", "c"))
    images, names = lesson("a", "c", seed=1)
    before = learner.logits(images)[:, [0, 2]]
    learner.forget_class("b")
    # Means that were drawn together are so anew without that of the class.
    assert torch.equal(learner.logits(images), before) == (not drawn_together)
    assert learner.predict(images).tolist() == names


def test_it_may_be_learned_again() -> None:
    learner = classifier("lda").learn(lesson("a", "b")).learn(lesson("c", "d"))
    learner.forget_class("b")
    learner.learn(lesson("b", "e", seed=4))
    assert learner.classes_.tolist() == ["a", "b", "c", "d", "e"]
    assert learner.last_lesson_.new == ("b", "e")
    assert learner.score(*lesson("a", "b", "c", "d", "e", seed=1)) > 0.5
    again = learner.forget_class("b")
    assert isinstance(again, Forgotten)
    assert learner.history_.forgotten == (1, 4)


@pytest.mark.parametrize("name", ["bb", "z"])
def test_an_unknown_class_cannot_be_forgotten(name: str) -> None:
    learner = classifier("ncm").learn(lesson("aa", "b"))
    with pytest.raises(ConfigError, match=rf"no class {name!r} to forget.*Known: aa, b"):
        learner.forget_class(name)
    learner.forget_class("b")
    with pytest.raises(ConfigError, match="no class 'b'"):
        learner.forget_class("b")


def test_any_spelling_of_a_class_is_forgotten() -> None:
    learner = classifier().learn(lesson("a", "b")[0], [7] * 6 + [8] * 6)
    assert learner.forget_class(" 7.0").name == "7"
    assert learner.classes_.tolist() == [8]


def test_temperatures_carry_it_where_they_were_fitted_while_it_was_known() -> None:
    learner = classifier("ncm", calibration_fraction=0.2).learn(lesson("a", "b", count=12))
    learner.learn(lesson("c", count=1))
    assert "temperatures" not in str(learner.forget_class("c"))
    assert "temperatures" in str(learner.forget_class("b"))
