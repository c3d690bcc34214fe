"""Heads guided by language: what they score, what training and refinement change, what they keep."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perdure.heads import HeadConfig, LanguageHead, ZeroShotHead
from perdure.heads import language as module
from perdure.heads.language import ClassVectorHead
from perdure.numerics.feature_drift import FeatureDrift
from perdure.randomness import generator
from perdure.testing.trial import make_trial
from perdure.types import BackboneSpec, Observer, Split, Task
from tests.reference.language_literal import LiteralHead

DIM, WIDTH = 6, 4
WEIGHT = nn.Parameter(torch.randn(WIDTH, DIM, generator=generator(0, "weight")), False)
BIAS = nn.Parameter(torch.randn(WIDTH, generator=generator(0, "bias")), False)
SPEC = BackboneSpec("features", DIM, 1, 1, 1, True, 1, 1e-6, projection=(WEIGHT, BIAS))
SIZES = (2, 1, 3)
BOTH = [LanguageHead, ZeroShotHead]


class Drawn:
    """A survey of five drawn features per class; what was learned moves them by one."""

    def __init__(self, task: Task) -> None:
        self.labels = torch.tensor(task.classes).repeat_interleave(5)
        centres = torch.randn(10, DIM, generator=generator(1, "centres"))
        noise = torch.randn(len(self.labels), DIM, generator=generator(task.index, "noise"))
        self.plain = centres[self.labels] + 0.3 * noise

    def __call__(self, observer: Observer, split: Split = "train") -> None:
        raise AssertionError("a head needs features only")

    def features(self, split: Split = "train", plain: bool = False) -> tuple[Tensor, Tensor]:
        return (self.plain if plain else self.plain + 1), self.labels

    def gradients(self, probes: object, most: int) -> Any:
        raise AssertionError("nothing is probed here")

    def has(self, split: Split) -> bool:
        return split == "train"


def tasks(*, text: bool = True) -> list[Task]:
    found, seen = [], 0
    vectors = F.normalize(torch.randn(sum(SIZES), WIDTH, generator=generator(0, "text")), dim=1)
    for index, count in enumerate(SIZES):
        classes = tuple(range(seen, seen + count))
        seen += count
        names = tuple(str(label) for label in classes)
        own = vectors[list(classes)] if text else None
        found.append(Task(index, classes, names, seen, own))
    return found


def made(cls: type[ClassVectorHead], seed: int = 0, **options: Any) -> ClassVectorHead:
    return cls(SPEC, HeadConfig(**options), lambda name: generator(seed, name))


def language(seed: int = 0, **options: Any) -> LanguageHead:
    head = made(LanguageHead, seed, **{"refine_epochs": 2, **options})
    assert isinstance(head, LanguageHead)
    return head


def through_tasks(head: ClassVectorHead, upto: int = len(SIZES), *, text: bool = True) -> None:
    for task in tasks(text=text)[:upto]:
        head.start_task(task)
        head.prepare(task, Drawn(task))
        head.end_task(task, Drawn(task))


def queries() -> Tensor:
    return torch.randn(7, DIM, generator=generator(0, "queries"))


def literal(head: LanguageHead) -> LiteralHead:
    return LiteralHead(head.weight, BIAS, head.text, float(head.scale.value.detach()))


@pytest.mark.parametrize("cls", BOTH)
def test_logits_are_scaled_cosines_behind_the_projection(cls: type[ClassVectorHead]) -> None:
    head = made(cls, refine_epochs=0)
    through_tasks(head)
    twin = LiteralHead(WEIGHT, BIAS, head.text, math.log(100.0)).logits(queries())
    torch.testing.assert_close(head.logits(queries()).double(), twin, rtol=1e-5, atol=1e-4)


def test_task_logits_are_those_of_the_tasks_classes() -> None:
    head = language()
    through_tasks(head)
    every = head.logits(queries())
    for task in tasks():
        own = head.task_logits(queries(), task)
        torch.testing.assert_close(own, every[:, list(task.classes)])


def test_training_reaches_the_logit_scale_and_nothing_else() -> None:
    head = language()
    through_tasks(head, 1)
    task = tasks()[1]
    head.start_task(task)
    trained = dict(head.trained(task).named_parameters())
    assert [id(p) for p in head.parameters()] == [id(p) for p in trained.values()]
    with torch.no_grad():
        trained["value"].add_(0.5)
    head.task_logits(queries(), task).square().sum().backward()
    assert trained["value"].grad is not None
    later = tasks()[2]
    head.start_task(later)
    assert head.trained(later) is head.trained(task), "all tasks share the scale"


@pytest.mark.parametrize("cls", BOTH)
def test_text_comes_with_the_task_and_means_from_plain_images(cls: type[ClassVectorHead]) -> None:
    by_text, by_mean = made(cls, refine_epochs=0), made(cls, class_embeddings="mean")
    for task, blind in zip(tasks(), tasks(text=False), strict=True):
        by_text.start_task(task)
        assert not by_text.prepare(task, Drawn(task))
        by_mean.start_task(blind)
        assert by_mean.prepare(blind, Drawn(blind))
        by_mean.end_task(blind, Drawn(blind))
        assert task.text_features is not None
        assert torch.equal(by_text.text[list(task.classes)], task.text_features)
        for label in task.classes:
            plain, labels = Drawn(task).features(plain=True)
            twin = LiteralHead(WEIGHT, BIAS, by_text.text, 0.0).mean_image(plain[labels == label])
            torch.testing.assert_close(by_mean.text[label].double(), twin, rtol=1e-5, atol=1e-6)


def test_refinement_is_literal_sgd_on_what_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twin: gradients written out in float64, momentum and decay by hand; batches that do not fit."""
    monkeypatch.setattr(module, "SAMPLES", 20)
    monkeypatch.setattr(module, "BATCH", 16)
    head = language()
    through_tasks(head, 2)
    twin = literal(head)
    task = tasks()[2]
    head.start_task(task)
    twin.text = head.text.double()
    drawn = []
    sample = module.gaussian_samples

    def noted(*args: Any) -> Tensor:
        drawn.append(sample(*args))
        return drawn[-1]

    monkeypatch.setattr(module, "gaussian_samples", noted)
    head.end_task(task, Drawn(task))
    assert len(drawn) == 2 * 3, "every task's classes, in each of two epochs"
    for epoch in range(2):
        samples = torch.cat([part.flatten(0, 1) for part in drawn[3 * epoch : 3 * epoch + 3]])
        random = generator(0, f"head.language.2.{epoch}")
        for index in range(3):  # as far as the order was drawn after the samples
            torch.empty(SIZES[index], 20, DIM).normal_(generator=random)
        order = torch.randperm(len(samples), generator=random)
        labels = torch.arange(6).repeat_interleave(20)
        for rows in order.split(16):
            twin.sgd_step(samples[rows], labels[rows])
    torch.testing.assert_close(head.weight.double(), twin.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_refinement_sorts_the_classes_apart() -> None:
    plain, refined = language(refine_epochs=0), language(refine_epochs=50)
    losses = []
    for head in (plain, refined):
        through_tasks(head)
        features = torch.cat([Drawn(task).features()[0] for task in tasks()])
        labels = torch.cat([Drawn(task).features()[1] for task in tasks()])
        losses.append(float(F.cross_entropy(head.logits(features).detach(), labels)))
    assert losses[1] < 0.5 * losses[0]


def test_refinement_draws_anew_by_seed_task_and_epoch() -> None:
    head, again, other = language(), language(), language(seed=1)
    for one in (head, again, other):
        through_tasks(one)
    assert torch.equal(head.weight, again.weight)
    assert not torch.equal(head.weight, other.weight)
    seeds = {head._random(task, epoch).initial_seed() for task in range(3) for epoch in range(3)}
    assert len(seeds) == 9


def test_statistics_are_a_mean_and_a_factor_per_class() -> None:
    head = language()
    through_tasks(head)
    shapes = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    per_task = {f"means_{t}": (size, DIM) for t, size in enumerate(SIZES)}
    per_task |= {f"factors_{t}": (size, DIM, DIM) for t, size in enumerate(SIZES)}
    rest = {"text": (6, WIDTH), "weight": (WIDTH, DIM), "scale.value": ()}
    assert shapes == {**rest, **per_task}
    for task in tasks():
        features, labels = Drawn(task).features()
        for row, label in enumerate(task.classes):
            own = features[labels == label]
            factor = head.get_buffer(f"factors_{task.index}")[row]
            wanted = own.T.cov() + 1e-4 * torch.eye(DIM)
            torch.testing.assert_close(factor @ factor.T, wanted)
            torch.testing.assert_close(head.get_buffer(f"means_{task.index}")[row], own.mean(0))


def test_without_refinement_nothing_is_stored() -> None:
    head, zero_shot = language(refine_epochs=0), made(ZeroShotHead)
    for one in (head, zero_shot):
        through_tasks(one)
    assert set(head.state_dict()) == {"text", "weight", "scale.value"}
    assert set(zero_shot.state_dict()) == {"text"}
    assert torch.equal(head.weight, WEIGHT)


def test_the_backbones_projection_is_left_alone() -> None:
    before = WEIGHT.clone()
    through_tasks(language())
    assert torch.equal(WEIGHT, before)
    assert not WEIGHT.requires_grad


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("embeddings", ["text", "mean"])
def test_replayed_head_loads_without_texts(cls: type[ClassVectorHead], embeddings: str) -> None:
    first = made(cls, class_embeddings=embeddings, refine_epochs=1)
    other = made(cls, class_embeddings=embeddings, refine_epochs=1)
    through_tasks(first, text=embeddings == "text")
    for task in tasks(text=False):
        other.start_task(task)
    other.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(other.logits(queries()), first.logits(queries()))
    assert first.logits(queries()).shape == (7, 6)


@pytest.mark.long
def test_gaussians_follow_a_linear_drift() -> None:
    """Means move by the map, covariances by its linear part; a forgotten class stays zero."""
    made = make_trial("clip_finetune", sizes=(2, 2), heads=("language(drift=linear)",))
    head = made.run().model.heads["language(drift=linear)"]
    head.forget(1)
    before = {name: value.double().clone() for name, value in head.state_dict().items()}
    pairs = torch.randn(300, head.dim, generator=torch.Generator().manual_seed(0))
    turn = torch.eye(head.dim) * 1.5
    drift = FeatureDrift(pairs, pairs @ turn + 1, known=2)
    head.follow(drift)
    after = {name: value.double() for name, value in head.state_dict().items()}
    torch.testing.assert_close(
        after["means_0"][0], before["means_0"][0] * 1.5 + 1, rtol=1e-4, atol=1e-4
    )
    assert not after["means_0"][1].any()
    cov, now = (f["factors_0"][0] @ f["factors_0"][0].T for f in (before, after))
    torch.testing.assert_close(now, cov * 2.25, rtol=1e-4, atol=1e-4)
    assert torch.equal(after["means_1"], before["means_1"])


def test_a_forgotten_class_stays_without_a_spread() -> None:
    """Of few pairs a map does not tell much, and what it misses is added to every spread."""
    head = language(drift="linear")
    through_tasks(head, 2)
    head.forget(1)
    random = generator(3, "drift")
    before = torch.randn(8, DIM, generator=random)
    after = before + 0.3 * torch.randn(8, DIM, generator=random)
    groups = torch.arange(3, 7).repeat_interleave(2)
    head.follow(FeatureDrift(before, after, known=3, groups=groups))
    assert not head.get_buffer("factors_0")[1].any()
    assert head.get_buffer("factors_0")[0].any()
    task = tasks()[2]
    head.start_task(task)
    head.end_task(task, Drawn(task))
    assert bool(head.weight.isfinite().all())
