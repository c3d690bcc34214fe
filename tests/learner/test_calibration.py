"""Temperatures, and what they are fitted on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from perdure.learner.calibration import (
    best_temperature,
    calibration_error,
    grid_losses,
    score_spread,
)
from perdure.learner.labelled import gather
from perdure.learner.lessons import held_out
from perdure.randomness import generator
from perdure.streams import StreamConfig
from tests.tiny import classifier, lesson, pictures


def drawn(count: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Scores whose softmax tells the truth once they are divided by the temperature."""
    random = generator(0, "scores")
    honest = 2 * torch.randn(count, 4, generator=random, dtype=torch.float64)
    labels = honest.softmax(1).multinomial(1, generator=random)[:, 0]
    return honest * temperature, labels


@pytest.mark.parametrize("temperature", [0.02, 1.0, 30.0])
def test_the_true_temperature_is_found(temperature: float) -> None:
    scores, labels = drawn(4000, temperature)
    found = best_temperature(grid_losses(scores, labels))
    assert found == pytest.approx(temperature, rel=0.1)
    after = calibration_error((scores / found).softmax(1), labels)
    assert after < 0.02
    if temperature != 1:
        assert calibration_error(scores.softmax(1), labels) > 5 * after


def test_a_few_images_told_right_do_not_ask_for_certainty() -> None:
    scores = torch.eye(3, dtype=torch.float64)
    assert 0.1 < best_temperature(grid_losses(scores, torch.arange(3))) < 1
    single = grid_losses(scores[:, :1], torch.zeros(3, dtype=torch.int64))
    assert best_temperature(single) == pytest.approx(1)


def test_calibration_error_is_that_of_its_definition() -> None:
    scores, labels = drawn(200, 0.3)
    probabilities = scores.softmax(1)
    total = 0.0
    for low in range(15):
        rows = [
            row
            for row in range(200)
            if low / 15 < float(probabilities[row].max()) <= (low + 1) / 15
        ]
        if rows:
            right = np.mean([int(probabilities[r].argmax()) == int(labels[r]) for r in rows])
            sure = np.mean([float(probabilities[r].max()) for r in rows])
            total += len(rows) * abs(right - sure)
    assert calibration_error(probabilities, labels) == pytest.approx(total / 200)


def test_held_out_images_are_a_share_of_each_class_that_has_enough() -> None:
    images, names = lesson("a", "b", "c", count=12)
    labelled = gather(images[:-3], names[:-3], "train", StreamConfig(), 0)
    mask = held_out(labelled, 0.25, 0, "calibration", 0)
    assert np.bincount(labelled.images.labels[mask], minlength=3).tolist() == [3, 3, 0]
    assert held_out(labelled, 0.01, 0, "x", 0).sum() == 2
    assert not held_out(labelled, 0.0, 0, "x", 0).any()
    assert (held_out(labelled, 0.25, 0, "calibration", 1) != mask).any()


@pytest.mark.long
def test_held_out_images_are_not_learned() -> None:
    learner = classifier("nsp2", calibration_fraction=0.25).learn(lesson("a", "b", count=12))
    learner.learn(lesson("b", "c", count=12, seed=1))
    assert [entry.held_out for entry in learner.history_.lessons] == [6, 6]
    assert [entry.left_out for entry in learner.history_.lessons] == [0, 0]
    assert learner.last_lesson_.images == {"b": 9, "c": 9}
    assert learner.model.state()["heads.gaussian.counts"].tolist() == [9, 18, 9]


def test_on_frozen_features_images_are_left_out_in_turn_and_none_is_held_out() -> None:
    heads = ["gaussian", "gaussian(shrinkage=0.5)", "ridge"]
    learner = classifier("lda", heads, calibration_fraction=0.25).learn(lesson("a", "b", count=5))
    learner.learn([*lesson("b", "c", seed=1)[0], *pictures("d", 1)], ["b"] * 6 + ["c"] * 6 + ["d"])
    history = learner.history_
    assert [entry.held_out for entry in history.lessons] == [0, 0]
    assert [entry.left_out for entry in history.lessons] == [10, 12]  # not the only one of "d"
    assert learner.model.state()["heads.gaussian.counts"].tolist() == [5, 11, 6, 1]
    assert history.temperatures.keys() == learner.last_lesson_.accuracy.keys() == set(heads)
    assert len(history.spread_losses["ridge"]) == len(history.spread_losses["gaussian"])


def test_so_it_is_once_prompts_are_fixed() -> None:
    learner = classifier("finetune", calibration_fraction=0.25, adapt="first")
    learner.learn(lesson("a", "b", count=12)).learn(lesson("c", count=12))
    lessons = learner.history_.lessons
    assert [(entry.held_out, entry.left_out) for entry in lessons] == [(6, 0), (0, 12)]


@pytest.mark.long
def test_a_lesson_is_measured_as_if_each_image_had_been_missing() -> None:
    images, names = lesson("a", "b", "c", count=3)
    learner = classifier("lda", ["ridge"], calibration_fraction=0.25).learn(images, names)
    ratio = float(learner.model.state()["heads.ridge.ratio"])
    right = 0
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        rest = [k for k in range(9) if k != index]
        other = classifier("lda", ["ridge"], ridge_ratio=ratio)
        other.learn([images[k] for k in rest], [names[k] for k in rest])
        right += int(other.predict([image])[0] == name)
    assert learner.last_lesson_.accuracy == {"ridge": right / 9}


def test_lessons_add_what_they_have_to_say() -> None:
    scores, labels = drawn(400, 5.0)
    together = grid_losses(scores, labels)
    parts = grid_losses(scores[:150], labels[:150]) + grid_losses(scores[150:], labels[150:])
    np.testing.assert_allclose(parts, together)
    # One lesson told with certainty what another one shows to be a guess: the guess counts.
    sure, wrong = torch.eye(4, dtype=torch.float64) * 5, torch.tensor([1, 0, 2, 3])
    alone = best_temperature(grid_losses(sure, torch.arange(4)))
    assert (
        alone < 1 < best_temperature(grid_losses(sure, torch.arange(4)) + grid_losses(sure, wrong))
    )


def test_a_lesson_of_larger_scores_says_the_same() -> None:
    """Another shrinkage multiplies all scores; what was learned of them before still holds."""
    scores, labels = drawn(4000, 5.0)
    small = grid_losses(scores / score_spread(scores), labels)
    larger = 40 * scores[:50]
    spread = score_spread(larger)
    summed = small + grid_losses(larger / spread, labels[:50])
    assert best_temperature(summed, spread) == pytest.approx(200, rel=0.15)
    alike = torch.ones(3, 4, dtype=torch.float64)
    assert score_spread(alike) == 1


def test_what_lessons_have_said_is_kept_at_one_size() -> None:
    learner = classifier("nsp2", ["ncm"], calibration_fraction=0.25)
    learner.learn(lesson("a", "b", count=12))
    first = learner.history_
    learner.learn(lesson("c", count=20))
    assert first.temperatures["ncm"] < 1  # cosines say too little
    assert learner.last_lesson_.held_out == 5
    assert len(learner.history_.spread_losses["ncm"]) == len(first.spread_losses["ncm"])
    assert learner.history_.spread_losses != first.spread_losses
    lesson_ = learner.last_lesson_
    assert 0 <= lesson_.calibration_error["ncm"] <= 1
    assert lesson_.untempered_error.keys() == lesson_.accuracy.keys() == {"ncm"}


def test_probabilities_are_tempered_and_names_are_not() -> None:
    learner = classifier("ncm", calibration_fraction=0.25).learn(lesson("a", "b", count=12))
    images = pictures("a", seed=3) + pictures("b", seed=3)
    scores = learner.logits(images).double()
    tempered = (scores / learner.history_.temperatures["ncm"]).softmax(1)
    np.testing.assert_allclose(learner.predict_proba(images), tempered)
    assert learner.predict(images).tolist() == learner.classes_[scores.argmax(1)].tolist()


def test_nothing_held_out_leaves_probabilities_as_they_are() -> None:
    learner = classifier("nsp2", ["ncm"], calibration_fraction=0.25)
    learner.learn(lesson("a", "b", count=9))
    assert learner.last_lesson_.held_out == 0
    assert learner.history_.temperatures == {}
    images = pictures("a")
    np.testing.assert_allclose(
        learner.predict_proba(images), learner.logits(images).double().softmax(1)
    )
