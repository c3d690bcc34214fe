"""Predictions for files without end: the same in any batch, in order, few at a time."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perdure.errors import ConfigError
from perdure.learner import ContinualClassifier
from perdure.learner import predict_files as module
from perdure.learner.predict_files import Answer
from perdure.streams.decoding import decode
from perdure.streams.images.find_images import Listed
from perdure.testing.prediction import RTOL
from perdure.testing.trial import make_trial

IMAGES = 6


@cache
def classifier_of(method: str, vote: str = "image") -> ContinualClassifier:
    """A classifier of four classes that has learned them with a method."""
    options = {} if vote == "image" else {"vote": vote}
    return ContinualClassifier.from_model(make_trial(method, images=2, **options).run().model)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return images that differ much."""
    folder = tmp_path_factory.mktemp("files")
    draw = np.random.Generator(np.random.PCG64(5))
    paths = [folder / f"{number}.png" for number in range(IMAGES)]
    for path in paths:
        pixels = draw.integers(0, 256, (2, 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 36), Image.Resampling.BICUBIC).save(path)
    return paths


def by_path(answers: Iterator[Answer]) -> dict[Path, Answer]:
    """Answers by file, none of them a fault."""
    found = {answer.path: answer for answer in answers}
    assert not [answer.fault for answer in found.values() if answer.fault]
    return found


@cache
def alone(classifier: ContinualClassifier, path: Path) -> torch.Tensor:
    """The logits of an image that is predicted by itself."""
    return classifier.logits([path])[0].double()


def check_same_alone(classifier: ContinualClassifier, answer: Answer) -> None:
    """An answer is that of the image alone, as far as float32 sums allow.

    Where no logit is more than d away from its value alone, no log-probability is more than 2 d
    away from its own; and a float32 softmax adds its own roundings.
    """
    logits = alone(classifier, answer.path)
    expected = logits.log_softmax(0)
    slack = RTOL * float(logits.norm())
    assert len({one.label for one in answer.ranking}) == len(classifier.classes_)
    for one in answer.ranking:
        assert one.name == classifier.classes_[one.label]
        low, high = (math.exp(float(expected[one.label]) + e * (2 * slack + 1e-5)) for e in (-1, 1))
        assert low - 1e-30 <= one.probability <= high + 1e-30
    best, second = logits.topk(2).values.tolist()
    assert answer.ranking[0].label == int(logits.argmax()) or best - second <= slack
    shares = [one.probability for one in answer.ranking]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.long
@pytest.mark.parametrize("method", ["nsp2", "iprompt", "l2p", "coda_prompt", "lda"])
@settings(max_examples=8)
@given(
    order=st.lists(st.integers(0, IMAGES - 1), min_size=1, max_size=12),
    batch_size=st.integers(1, 13),
)
def test_neither_batches_nor_order_change_an_answer(
    method: str, files: list[Path], order: list[int], batch_size: int
) -> None:
    classifier = classifier_of(method)
    given_ = [files[index] for index in order]
    answers = list(classifier.predict_files(given_, batch_size=batch_size))
    assert [answer.path for answer in answers] == given_
    for answer in answers:
        check_same_alone(classifier, answer)


def test_what_depends_on_the_batch_would_be_seen(files: list[Path]) -> None:
    classifier = classifier_of("l2p", "batch")
    answers = list(classifier.predict_files(files))
    far = 0
    for answer in answers:
        try:
            check_same_alone(classifier, answer)
        except AssertionError:
            far += 1
    assert far


def test_top(files: list[Path]) -> None:
    classifier = classifier_of("nsp2")
    whole = by_path(classifier.predict_files(files, top=99))
    for path, answer in by_path(classifier.predict_files(files, top=2)).items():
        assert answer.ranking == whole[path].ranking[:2]
    assert all(len(answer.ranking) == 4 for answer in whole.values())
    assert all(
        sum(one.probability for one in answer.ranking) == pytest.approx(1, abs=1e-5)
        for answer in whole.values()
    )


def test_what_is_refused_is_refused_at_once(files: list[Path]) -> None:
    classifier = classifier_of("nsp2")
    for options, text in (
        ({"head": "gausian"}, "no head 'gausian'. It has: linear"),
        ({"top": 0}, "top=0 is too small. Allowed: 1 and above"),
        ({"batch_size": 0}, "batch_size=0 is too small"),
    ):
        with pytest.raises(ConfigError, match=text):
            classifier.predict_files(files, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("ahead", "batches"), [(True, 2), (False, 1)])
def test_few_files_are_taken_ahead(
    ahead: bool, batches: int, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches and no more, of endless files, one where nothing is decoded meanwhile."""
    monkeypatch.setattr(module, "AHEAD", ahead)
    taken: list[Path] = []

    def endless() -> Iterator[Path]:
        for path in itertools.cycle(files):
            taken.append(path)
            yield path

    answers = classifier_of("nsp2").predict_files(endless(), batch_size=3)
    for done, answer in enumerate(itertools.islice(answers, 40)):
        assert answer.path == files[done % IMAGES]
        assert len(taken) == 3 * (done // 3 + batches)
    answers.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("read")]


def test_files_are_decoded_ahead_of_the_forward(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a batch is predicted, threads decode the next one."""
    monkeypatch.setattr(module, "AHEAD", True)
    classifier = classifier_of("nsp2")
    read: list[Path] = []
    second_batch = threading.Event()
    logits = classifier.model.logits

    def note(path: Path) -> Image.Image:
        read.append(path)
        if set(files[3:]) <= set(read):
            second_batch.set()
        return decode(path)

    def wait(*args: Any, **options: Any) -> dict[str, torch.Tensor]:
        assert second_batch.wait(30)
        return logits(*args, **options)

    monkeypatch.setattr(module, "decode", note)
    monkeypatch.setattr(classifier.model, "logits", wait)
    assert len(list(classifier.predict_files(files, batch_size=3))) == IMAGES


def test_faults_are_answers(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("I am a picture.")
    Image.effect_noise((64, 64), 50).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:800])
    Image.new("L", (150, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    faulty = {
        tmp_path / "empty.png": "the file is empty",
        tmp_path / "text.png": "no image of a known format",
        tmp_path / "cut.jpg": "truncated",
        tmp_path / "bomb.png": "a possible decompression bomb",
        tmp_path / "folder.png": "this is no file",
        tmp_path / "pipe.png": "this is no file",
        tmp_path / "gone.png": "No such file or directory",
        tmp_path / ("x" * 300): "File name too long",
        Path("a\0b.png"): "null byte",
    }
    mixed = [Listed(tmp_path, "not to be tried"), *files, *faulty, *files[:1]]
    for batch_size in (1, 4, 64):  # some batches are faulty throughout
        answers = list(classifier_of("nsp2").predict_files(mixed, batch_size=batch_size))
        assert [answer.path for answer in answers] == [tmp_path, *mixed[1:]]
        assert [bool(answer.fault) for answer in answers] == [
            not answer.ranking for answer in answers
        ]
        found = {answer.path: answer.fault for answer in answers if answer.fault}
        assert found.pop(tmp_path) == "not to be tried"
        assert set(found) == set(faulty)
        for path, reason in faulty.items():
            assert reason in found[path]
            assert str(path) not in found[path]
        by_path(answer for answer in answers if not answer.fault)


def test_nothing_to_do() -> None:
    assert list(classifier_of("nsp2").predict_files([])) == []
