"""Heads answer images that they took in as if they had not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perdure.heads import HEADS, Head, choose_head
from perdure.heads.config import HeadConfig
from perdure.randomness import generator
from perdure.testing.drawn import FeatureSurvey
from perdure.types import BackboneSpec, Task

SPEC = BackboneSpec("features", 5, 1, 1, 1, True, 1, 1e-6)
NAMES = ("a", "b", "c")


def drawn() -> tuple[Tensor, Tensor]:
    random = generator(0, "left out scores")
    labels = torch.tensor([0, 1, 2, 0, 1, 1, 0])  # a single image of class 2
    centres = 4 + torch.randn(3, 5, generator=random, dtype=torch.float64)
    return centres[labels] + torch.randn(7, 5, generator=random, dtype=torch.float64), labels


def fitted(name: str, features: Tensor, labels: Tensor) -> Head:
    choice = choose_head(name)
    head = HEADS[choice.kind](
        SPEC, choice.options(HeadConfig()), lambda key: generator(0, "init", key)
    )
    head.start_task(task := Task(0, (0, 1, 2), NAMES, 3))
    head.end_task(task, FeatureSurvey((features, labels)))
    return head


def test_ncm_scores_are_those_of_a_head_that_took_in_all_others() -> None:
    """Those of the other heads have literal twins where they are computed."""
    features, labels = drawn()
    features = features.float()
    judged, scores = fitted("ncm", features, labels).scores_left_out(features, labels)
    assert judged.tolist() == [True, True, False, True, True, True, True]
    for index, row in zip(judged.nonzero()[:, 0].tolist(), scores, strict=True):
        rest = torch.arange(7) != index
        alone = fitted("ncm", features[rest], labels[rest]).logits(features[index : index + 1])[0]
        torch.testing.assert_close(row.float(), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gaussian(shrinkage=0.3)", "gaussian(shrinkage=loo)"])
def test_gaussian_scores_are_of_the_size_of_its_logits(name: str) -> None:
    """With 400 copies of every image, one of them missing changes next to nothing."""
    features, labels = drawn()
    features, labels = features.repeat(400, 1), labels.repeat(400)
    head = fitted(name, features, labels)
    judged, scores = head.scores_left_out(features, labels)
    assert bool(judged.all())
    logits = head.logits(features)
    apart = (scores - scores[:, :1]) - (logits - logits[:, :1])
    assert float(apart.abs().max()) < 0.02 * float((logits - logits[:, :1]).abs().max())


def test_a_mirror_image_counts_for_half_an_image() -> None:
    """With a fixed shrinkage the head is that of twice as many images, each of one view."""
    features, labels = drawn()
    views, _ = FeatureSurvey((features, labels)).features(mirrored=True)
    rows, twice = views.flatten(0, 1), labels.repeat_interleave(2)
    ours = fitted("gaussian(mirrored=true,shrinkage=0.3)", features, labels)
    theirs = fitted("gaussian(shrinkage=0.3)", rows, twice)
    torch.testing.assert_close(ours.logits(features), theirs.logits(features))
    assert ours.counts.tolist() == [3, 3, 1]  # type: ignore[operator]


@pytest.mark.parametrize("name", ["ncm", "ridge", "gaussian(shrinkage=loo)"])
def test_a_head_that_learns_no_mirror_images_looks_at_the_plain_view(name: str) -> None:
    features, labels = drawn()
    features = features.float()
    views, _ = FeatureSurvey((features, labels)).features(mirrored=True)
    heads = [fitted(name, features, labels) for _ in range(2)]
    for head, given in zip(heads, (features, views), strict=True):
        head.take_in(given[labels < 2], labels[labels < 2])
    assert torch.equal(heads[0].logits(features), heads[1].logits(features))
    judged = [heads[0].scores_left_out(given, labels)[1] for given in (features, views)]
    left_out = [
        heads[0].evidence_class_left_out(given, labels).scores for given in (features, views)
    ]
    for plain, seen in (judged, left_out):
        assert torch.equal(plain, seen)


def test_what_leaves_images_out_says_so() -> None:
    features, labels = drawn()
    assert all(fitted(name, features, labels).leaves_out for name in ("ncm", "gaussian", "ridge"))
    assert not fitted("linear", features, labels).leaves_out
    with pytest.raises(NotImplementedError, match="LinearHead leaves no image out"):
        fitted("linear", features, labels).scores_left_out(features, labels)
