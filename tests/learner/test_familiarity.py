"""Unknown images: familiarity, classes left out in turn, negatives, and rejection."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perdure.errors import ConfigError, StreamError
from perdure.learner import ContinualClassifier
from perdure.learner.familiarity import bins, familiar_shares, familiarity_scores
from perdure.learner.separation import Separation, area, best_score
from perdure.numerics.evidence import Evidence
from perdure.randomness import generator
from tests.tiny import Pixels, classifier, lesson, pictures

STRANGE = pictures("something else", 12)


@pytest.fixture(scope="module")
def taught() -> ContinualClassifier:
    """Return a classifier of three classes, twelve images each; not to be changed."""
    return classifier(calibration_fraction=0.1).learn(lesson("a", "b", "c", count=12))


def test_area_is_the_share_of_pairs_in_order_ties_half() -> None:
    random = np.random.default_rng(0)
    high, low = random.integers(2, 9, 40), random.integers(0, 7, 30)
    pairs = [(a > b) + (a == b) / 2 for a in high for b in low]
    assert area(Counter(high.tolist()), Counter(low.tolist())) == pytest.approx(np.mean(pairs))


def test_accepted_is_the_share_of_unknown_images_at_95_per_cent_kept() -> None:
    separation = Separation(dict.fromkeys(range(20), 1), {0: 3, 1: 1, 5: 4}, {30: 2})
    assert separation.accepted == pytest.approx(7 / 10)
    assert Separation({1: 2}).accepted is None


def test_the_score_that_separates_best_is_chosen_among_those_at_hand() -> None:
    good, bad = Separation({5: 4}, {1: 4}), Separation({1: 4}, {5: 4})
    assert best_score({"energy": good, "mahalanobis": bad}) == "energy"
    assert best_score({"energy": good, "probability": bad}, ["probability"]) == "probability"
    assert best_score({"energy": Separation({5: 4}), "mahalanobis": Separation({5: 4})}) == (
        "mahalanobis"
    )
    assert best_score({}) is None


def test_scores_are_those_of_their_definitions() -> None:
    scores = torch.randn(6, 4, generator=generator(0, "scores"), dtype=torch.float64)
    background = torch.arange(6.0, dtype=torch.float64)
    found = familiarity_scores(Evidence(scores, background, whole=True), 2.0)
    shares = (scores / 2).softmax(1).amax(1)
    torch.testing.assert_close(found["probability"].sigmoid(), shares)
    torch.testing.assert_close(found["energy"], 2 * (scores / 2).exp().sum(1).log())
    torch.testing.assert_close(found["mahalanobis"], scores.amax(1) - background)
    assert list(familiarity_scores(Evidence(scores), 2.0)) == ["probability"]
    single = familiarity_scores(Evidence(scores[:, :1]), 1.0)["probability"]
    assert single.isfinite().all()


def test_familiar_shares_count_known_images_that_are_as_strange() -> None:
    known = torch.linspace(-300, 300, 99, dtype=torch.float64)
    places, counts = bins(known).unique(return_counts=True)
    separation = Separation(dict(zip(places.tolist(), counts.tolist(), strict=True)))
    asked = torch.tensor([-1e4, -299.0, 3.0, 1e4], dtype=torch.float64)
    exact = torch.tensor([(int((known <= x).sum()) + 1) / 100 for x in asked])
    torch.testing.assert_close(familiar_shares(asked, separation).float(), exact)


def test_strange_pictures_are_rejected_and_known_ones_are_not(taught: ContinualClassifier) -> None:
    known = [picture for name in "abc" for picture in pictures(name, 8, seed=3)]
    assert taught.familiarity(STRANGE).max() < 0.05
    answers = taught.predict([*known, *STRANGE], reject=0.05).tolist()
    assert answers[len(known) :] == [None] * len(STRANGE)
    assert sum(answer is None for answer in answers[: len(known)]) <= 4
    kept = [answer for answer in answers[: len(known)] if answer is not None]
    assert set(kept) == {"a", "b", "c"}


def test_strange_pictures_are_told_by_readouts_of_several_blocks() -> None:
    learner = classifier(layers=2).learn(lesson("a", "b", "c"))
    assert learner.familiarity(STRANGE).mean() < learner.familiarity(pictures("a", seed=3)).mean()


def test_every_lesson_adds_its_images_and_saving_keeps_them(
    taught: ContinualClassifier, tmp_path: Path
) -> None:
    taught.save(tmp_path / "model")
    again = ContinualClassifier.load(tmp_path / "model")
    assert again.history_ == taught.history_
    np.testing.assert_array_equal(again.familiarity(STRANGE), taught.familiarity(STRANGE))
    again.learn(lesson("d", count=12))
    for score, separation in again.history_.separations["gaussian"].items():
        before = taught.history_.separations["gaussian"][score]
        assert separation.images == before.images + 12
        assert sum(separation.unknown.values()) == 48
        assert separation.known.items() >= {k: v for k, v in before.known.items() if v > 99}.items()


def test_images_of_none_are_negatives_and_no_class() -> None:
    images, names = lesson("a", "b", "none", count=12)
    clf = classifier(calibration_fraction=0.1).learn(images, names)
    assert clf.classes_.tolist() == ["a", "b"]
    assert clf.last_lesson_.negatives == 12
    assert clf.last_lesson_.images == {"a": 12, "b": 12}
    plain = classifier(calibration_fraction=0.1).learn(images[:24], names[:24])
    torch.testing.assert_close(clf.logits(images), plain.logits(images), rtol=0, atol=0)
    for separation in clf.history_.separations["gaussian"].values():
        assert sum(separation.negatives.values()) == 12
    clf.learn(pictures("none", 4, seed=5), ["none"] * 4)
    assert sum(clf.history_.separations["gaussian"]["energy"].negatives.values()) == 16


def test_images_of_none_alone_teach_nothing() -> None:
    with pytest.raises(ConfigError, match=r"'none'.*at least one class"):
        classifier().learn(pictures("none"), ["none"] * 6)


def test_a_report_counts_what_is_rejected(taught: ContinualClassifier) -> None:
    images, names = lesson("a", "b", count=5, seed=3)
    report = taught.report([*images, *STRANGE], [*names, *["none"] * 12], reject=0.05)
    assert (report.unknown.images, report.unknown.correct) == (12, 12)
    assert report.overall.images == 10
    assert report.given_up <= 2
    assert "12 of 12 of no class" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["unknown"]["correct"] == 12
    with pytest.raises(StreamError, match=r"never learned.*reject=0\.05"):
        taught.report(STRANGE, ["none"] * 12)


@pytest.mark.parametrize("reject", [0.0, 1.0, -0.1, float("nan")])
def test_what_is_no_share_is_refused(taught: ContinualClassifier, reject: float) -> None:
    with pytest.raises(ConfigError, match=r"above 0 and below 1, as 0\.05"):
        taught.predict(STRANGE, reject=reject)


def test_a_share_that_too_few_images_tell_is_refused(taught: ContinualClassifier) -> None:
    with pytest.raises(ConfigError, match=r"on 36 images.*0\.027 or more"):
        taught.predict(STRANGE, reject=0.01)


def test_a_model_without_a_measured_lesson_says_so(taught: ContinualClassifier) -> None:
    old = ContinualClassifier.from_model(taught.model, replace(taught.history_, separations={}))
    with pytest.raises(ConfigError, match="no lesson of this model has measured"):
        old.predict(STRANGE, reject=0.1)


def test_saved_for_inference_only_it_rejects_by_probability(
    taught: ContinualClassifier, tmp_path: Path
) -> None:
    taught.save(tmp_path / "small", inference_only=True)
    small = ContinualClassifier.load(tmp_path / "small")
    measured = small.state_.separation("gaussian")
    assert measured is not None
    assert measured[0] == "probability"
    assert small.familiarity(STRANGE).shape == (12,)


def test_under_trained_prompts_held_out_images_measure() -> None:
    clf = classifier("nsp2", calibration_fraction=0.25).learn(lesson("a", "b", "c", count=12))
    (separations,) = clf.history_.separations.values()
    assert separations["probability"].images == clf.last_lesson_.held_out == 9


@pytest.mark.parametrize("head", ["ncm", "ridge", "gaussian(shrinkage=analytic)"])
def test_classes_left_out_score_as_if_never_taught(head: str) -> None:
    images, names = lesson("a", "b", "c", count=8)
    whole = classifier(heads=[head], mirrored=False).learn(images, names)
    part = whole.model.heads[whole.model.config.head_names[0]]
    without = classifier(heads=[head], mirrored=False).learn(images[:16], names[:16])
    other = without.model.heads[without.model.config.head_names[0]]
    state = whole.state_
    pixels = torch.stack([state.transform(_image(picture)) for picture in images[16:]])
    with torch.no_grad():
        features = state.model.forward(pixels)[0]
        found = part.evidence_class_left_out(features, torch.full((8,), 2)).scores[:, :2]
        wanted = other.evidence(features).scores
    # Left out, a class leaves ρ, its level and the divisor as they were.
    assert (found.argmax(1) == wanted.argmax(1)).all()
    if head == "ncm":
        torch.testing.assert_close(found, wanted)


def _image(picture: Pixels) -> Image.Image:

    return Image.fromarray(picture)


def test_a_lesson_that_measures_nothing_keeps_what_was_measured() -> None:
    clf = classifier("linear", calibration_fraction=0.25).learn(lesson("a", "b", count=12))
    before = clf.history_.separations
    assert before["linear"]
    clf.learn(lesson("c", "d", count=4))
    assert clf.last_lesson_.held_out == 0
    assert clf.history_.separations == before
    assert clf.familiarity(STRANGE).shape == (12,)


def test_of_an_only_class_there_are_no_odds() -> None:
    clf = classifier().learn(lesson("a", count=12))
    assert set(clf.history_.separations["gaussian"]) == {"energy"}
    assert clf.familiarity(STRANGE).mean() < clf.familiarity(pictures("a", seed=3)).mean()
    clf.learn(lesson("b", "c", count=12))
    measured = clf.history_.separations["gaussian"]
    assert {score: one.images for score, one in measured.items()} == {
        "energy": 36,
        "mahalanobis": 24,
        "probability": 24,
    }


def test_of_two_classes_the_one_that_is_left_is_no_background() -> None:
    clf = classifier().learn(lesson("a", "b", count=12))
    measured = clf.history_.separations["gaussian"]
    unknown = {score: sum(one.unknown.values()) for score, one in measured.items()}
    assert unknown == {"mahalanobis": 0, "energy": 24, "probability": 0}
