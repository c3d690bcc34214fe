"""Lessons: new classes, more images of old ones, and lessons that fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from perdure.engine.events import Event
from perdure.errors import (
    ConfigError,
    DivergenceError,
    LanguageError,
    UnreadableImageError,
)
from perdure.learner import ContinualClassifier
from perdure.testing import make_trial
from perdure.types import Loss
from tests.tiny import classifier, lesson, pictures

METHODS = ("nsp2", "lda", "ncm")


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_classes_arrive_call_after_call(method: str) -> None:
    heard: list[Event] = []
    learner = classifier(method).learn(*lesson("a", "b"), on_event=heard.append)
    learner.learn(lesson("c")).learn(lesson("e", "d", count=3))
    assert learner.classes_.tolist() == ["a", "b", "c", "d", "e"]
    assert {event.kind for event in heard} >= {"task", "progress"}
    assert learner.last_lesson_.images == {"d": 3, "e": 3}
    assert [entry.new for entry in learner.history_.lessons] == [("a", "b"), ("c",), ("d", "e")]
    images, names = lesson("a", "c", "e", count=4, seed=1)
    found = learner.predict_proba(images)
    assert found.shape == (12, 5)
    np.testing.assert_allclose(found.sum(1), 1)
    assert learner.predict(images).tolist() == learner.classes_[found.argmax(1)].tolist()
    assert learner.score(images, names) > 0.5
    best = learner.top(images, 3)
    order = learner.logits(images).argsort(dim=1, descending=True)
    assert [[one.label for one in row] for row in best] == order[:, :3].tolist()
    assert [row[0].name for row in best] == learner.predict(images).tolist()
    assert best[1][0].probability == found[1].max()
    assert [len(row) for row in learner.top(images, 9)] == [5] * 12


def test_one_image_is_enough() -> None:
    learner = classifier("nsp2").learn(pictures("a", 1), ["a"])
    assert learner.predict_proba(pictures("b", 2)).tolist() == [[1], [1]]
    learner.learn(pictures("b", 1), ["b"])
    assert learner.predict(pictures("a", 1) + pictures("b", 1)).tolist() == ["a", "b"]


def test_what_a_head_has_to_remark_is_told_once() -> None:
    heard: list[Event] = []
    learner = classifier("lda").learn(pictures("a", 1), ["a"], on_event=heard.append)
    learner.learn(pictures("b", 1), ["b"], on_event=heard.append)
    notes = [event.fields["text"] for event in heard if event.kind == "note"]
    assert len(notes) == 1
    assert notes[0].startswith("head gaussian: no class has two images")


def test_one_new_class_keeps_the_prompts() -> None:
    learner = classifier("nsp2").learn(lesson("a", "b"))
    before = {k: v.clone() for k, v in learner.model.method.named_parameters()}
    learner.learn(lesson("c"))
    assert all(torch.equal(v, before[k]) for k, v in learner.model.method.named_parameters())
    assert learner.predict(pictures("c", seed=2)).tolist() == ["c"] * 6


def test_a_single_class_is_refused_where_only_a_trained_head_predicts() -> None:
    learner = classifier("nsp2", ["linear"]).learn(lesson("a", "b"))
    with pytest.raises(ConfigError, match=r"single class 'c'.*heads=linear,gaussian"):
        learner.learn(lesson("c"))


class TestMoreImagesOfAnOldClass:
    """Statistics take them in; what was trained cannot."""

    @pytest.mark.parametrize("method", ["lda", "ncm"])
    def test_they_count_as_if_seen_at_once(self, method: str) -> None:
        images, names = lesson("a", "b", count=8)
        at_once = classifier(method).learn(images, names).learn(lesson("c"))
        bit_by_bit = (
            classifier(method)
            .learn(images[:13], names[:13])
            .learn([*lesson("c")[0], *images[13:]], ["c"] * 6 + names[13:])
        )
        assert bit_by_bit.last_lesson_.new == ("c",)
        assert bit_by_bit.last_lesson_.images == {"b": 3, "c": 6}
        assert bit_by_bit.classes_.tolist() == ["a", "b", "c"]
        ours, theirs = bit_by_bit.model.state(), at_once.model.state()
        assert ours.keys() == theirs.keys()
        for key in theirs.keys() - {"heads.gaussian.weight", "heads.gaussian.bias"}:
            atol = 1e-6 * max(1.0, float(theirs[key].abs().max()))
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-5, atol=atol, msg=key)
        again = pictures("b", seed=5)
        scores, wanted = bit_by_bit.logits(again), at_once.logits(again)
        torch.testing.assert_close(scores, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))

    def test_prompts_stay(self) -> None:
        learner = classifier("nsp2", shrinkage="analytic").learn(lesson("a", "b"))
        before = learner.model.state()
        learner.learn(lesson("b", seed=1))
        after = learner.model.state()
        changed = {key for key in before if not torch.equal(before[key], after[key])}
        gaussian = ("means", "counts", "scatter", "weight", "bias", "rho")
        assert changed == {f"heads.gaussian.{name}" for name in gaussian}
        assert after["heads.gaussian.counts"].tolist() == [6, 12]
        assert len(learner.model.tasks) == 1

    @pytest.mark.parametrize(
        ("heads", "reason"),
        [
            (["linear"], "trained on a task's images together"),
            (["gaussian", "linear"], "trained on a task's images together"),
        ],
    )
    def test_a_trained_head_refuses_before_anything_changes(
        self, heads: list[str], reason: str
    ) -> None:
        learner = classifier("nsp2", heads).learn(lesson("a", "b"))
        before = learner.state_
        with pytest.raises(ConfigError, match=rf"class 'b', which is .*{reason}.*heads=gaussian"):
            learner.learn(lesson("b", "c", "d"))
        assert learner.state_ is before

    @pytest.mark.long
    def test_heads_say_why(self) -> None:
        trial = make_trial("clip_finetune", heads=["language", "zero_shot", "gaussian", "ncm"])
        heads = trial.run().model.heads
        why = {name: head.refuses([0]) for name, head in heads.items()}
        assert "how many images" in why["language"]
        assert "learns nothing from images" in why["zero_shot"]
        assert why["gaussian"] == why["ncm"] == ""

    def test_means_that_were_saved_without_counts_stay_as_they_are(self) -> None:
        old = classifier("ncm").learn(lesson("a", "b"))
        state = {k: v for k, v in old.model.state().items() if not k.endswith("counts")}
        model = old.model.copy()
        model.load(state)
        loaded = ContinualClassifier.from_model(model)
        assert torch.equal(loaded.logits(pictures("a")), old.logits(pictures("a")))
        loaded.set_params(calibration_fraction=0).learn(lesson("c"))
        with pytest.raises(ConfigError, match="did not keep how many images"):
            loaded.learn(lesson("b"))
        assert loaded.learn(lesson("c")).classes_.tolist() == ["a", "b", "c"]


def test_a_class_whose_text_is_known_already_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = make_trial("clip_finetune").backbone
    assert backbone.spec.projection is not None
    monkeypatch.setattr("perdure.learner.classifier.make_backbone", lambda *args: backbone)
    vectors = dict(zip("abcd", torch.randn(4, len(backbone.spec.projection[0])), strict=True))
    file = tmp_path / "texts.safetensors"
    safetensors.torch.save_file({**vectors, "c": 2 * vectors["b"]}, file)
    options = {"class_embeddings": "text", "text_features": str(file)}
    learner = classifier("clip_finetune", **options).learn(lesson("a", "b"))
    before = learner.state_
    with pytest.raises(
        LanguageError, match="'c' has the text features of 'b', which is known already"
    ):
        learner.learn(lesson("c", "d"))
    assert learner.state_ is before
    learner.forget_class("b")
    assert learner.learn(lesson("c", "d")).classes_.tolist() == ["a", "c", "d"]


def interrupt(event: Event) -> None:
    if event.kind == "progress" and event.fields["phase"] == "training":
        raise KeyboardInterrupt


def diverge(monkeypatch: pytest.MonkeyPatch, learner: ContinualClassifier, path: Path) -> None:
    bad = Loss({"cross_entropy": torch.tensor(float("nan"), requires_grad=True)})
    monkeypatch.setattr(type(learner.model.method), "loss", lambda *args: bad)
    learner.learn(lesson("c", "d"))


def stop(monkeypatch: pytest.MonkeyPatch, learner: ContinualClassifier, path: Path) -> None:
    learner.learn(lesson("c", "d"), on_event=interrupt)


def spoil(monkeypatch: pytest.MonkeyPatch, learner: ContinualClassifier, path: Path) -> None:
    images, names = lesson("c", "d")
    Image.fromarray(images[0]).save(path)
    path.write_bytes(path.read_bytes()[:-50])  # its header is sound
    learner.learn([*images, path], [*names, "d"])


def begin_anew(monkeypatch: pytest.MonkeyPatch, learner: ContinualClassifier, path: Path) -> None:
    learner.fit(lesson("c", "d", "c")[0], ["c"] * 3)


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (diverge, DivergenceError),
        (stop, KeyboardInterrupt),
        (spoil, UnreadableImageError),
        (begin_anew, Exception),
    ],
)
def test_a_lesson_that_fails_changes_nothing(
    fail: Callable[..., None],
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    learner = classifier("nsp2").learn(lesson("a", "b"))
    state = {key: value.clone() for key, value in learner.model.state().items()}
    history, images = learner.history_, pictures("a")
    scores = learner.logits(images)
    with pytest.raises(error):
        fail(monkeypatch, learner, tmp_path / "c.png")
    monkeypatch.undo()
    now = learner.model.state()
    assert state.keys() == now.keys()
    assert all(torch.equal(state[key], now[key]) for key in state)
    assert learner.history_ == history
    assert learner.classes_.tolist() == ["a", "b"]
    assert torch.equal(learner.logits(images), scores)


def test_first_lesson_that_fails_leaves_nothing() -> None:
    learner = classifier("nsp2")
    with pytest.raises(KeyboardInterrupt):
        learner.learn(lesson("a", "b"), on_event=interrupt)
    assert not learner.__sklearn_is_fitted__()


@pytest.mark.parametrize("options", [{}, {"validation_fraction": 0.5}])
def test_something_is_left_to_learn_from(options: dict[str, float]) -> None:
    learner = classifier("linear", calibration_fraction=0.95, **options)
    learner.learn(lesson("a", "b", count=12))
    assert all(count > 0 for count in learner.last_lesson_.images.values())
