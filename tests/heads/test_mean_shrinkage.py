"""Gaussian head whose class means are drawn together: scores, images left out, classes forgotten."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perdure.heads import HEADS, GaussianHead
from perdure.heads.config import GaussianConfig
from perdure.numerics.pooled_means import image_error
from perdure.randomness import generator
from perdure.testing.drawn import FeatureSurvey
from perdure.types import BackboneSpec, Task

DIM, CLASSES, TASKS = 6, 3, 3
KINDS = pytest.mark.parametrize(
    ("shrinkage", "views"), [(0.2, 1), ("analytic", 1), ("loo", 1), ("loo", 2)]
)


def taught(shrinkage: float | str, views: int, strength: float = 2.0) -> GaussianHead:
    config = GaussianConfig(
        shrinkage=shrinkage,  # type: ignore[arg-type]
        mirrored=views > 1,
        mean_shrinkage=strength,
    )
    spec = BackboneSpec("features", DIM, 1, 1, 1, True, 1, 1e-6)
    head = HEADS["gaussian"](spec, config, lambda name: generator(0, name))
    assert isinstance(head, GaussianHead)
    for index in range(TASKS):
        classes = tuple(range(index * CLASSES, (index + 1) * CLASSES))
        task = Task(index, classes, tuple(str(c) for c in classes), classes[-1] + 1)
        head.start_task(task)
        head.end_task(task, FeatureSurvey(images(index, views)))
    return head


def images(index: int, views: int) -> tuple[Tensor, Tensor]:
    random = generator(index, "features", views)
    labels = torch.arange(index * CLASSES, (index + 1) * CLASSES).repeat_interleave(
        torch.tensor([2, 4, 7])
    )
    centres = 10 + torch.randn(CLASSES, DIM, generator=random)[labels - index * CLASSES]
    shape = (len(labels), views, DIM) if views > 1 else (len(labels), DIM)
    noise = torch.randn(shape, generator=random)
    return (centres[:, None] if views > 1 else centres) + noise, labels


def metric(head: GaussianHead, scatter: Tensor, divisor: int) -> Tensor:
    """A⁻¹, its level and ρ those of the head."""
    level = head.scatter.diagonal().mean() / divisor
    rho = float(head.rho)
    return torch.linalg.inv((1 - rho) * scatter / divisor + rho * level * torch.eye(DIM))


def divisor_of(head: GaussianHead) -> int:
    return int(head.counts.sum()) - (head.config.shrinkage == "loo")


def pooled(
    head: GaussianHead,
    views: int,
    means: Tensor,
    counts: Tensor,
    scatter: Tensor,
    out: int | None = None,
) -> Tensor:
    """Means drawn together, number by number; the error of an image is that of the whole head."""
    images, known = int(head.counts.sum()), counts > 0
    classes = int(known.sum())
    if out is not None:
        known[out] = False
    error = image_error(
        torch.linalg.eigvalsh(head.scatter / images),
        DIM,
        float(head.rho),
        images * views,
        classes,
    )
    apart = means[known] - means[known].mean(dim=0)
    gram = apart @ metric(head, scatter, images - 1) @ apart.T
    errors = torch.diag(2 * error / counts[known].double())
    found = means.clone()
    found[known] = means[known].mean(dim=0) + gram @ torch.linalg.inv(gram + errors) @ apart
    return found


def densities(head: GaussianHead, x: Tensor, means: Tensor, scatter: Tensor) -> Tensor:
    apart = x.double()[:, None] - means
    return -0.5 * torch.einsum(
        "ncd,de,nce->nc", apart, metric(head, scatter, divisor_of(head)), apart
    )


@KINDS
def test_scores_are_log_densities_around_pooled_means(shrinkage: float | str, views: int) -> None:
    head = taught(shrinkage, views)
    x = 10 + torch.randn(5, DIM, generator=generator(9, "asked"), dtype=torch.float64)
    means = pooled(head, views, head.means, head.counts, head.scatter)
    wanted = densities(head, x, means, head.scatter).log_softmax(1)
    torch.testing.assert_close(head.logits(x).log_softmax(1), wanted)
    torch.testing.assert_close(head.evidence(x).scores.log_softmax(1), wanted)


@KINDS
def test_images_are_left_out_as_if_refitted(shrinkage: float | str, views: int) -> None:
    """Means, counts and scatter without the image, and means pooled anew; ρ and the level stay."""
    head = taught(shrinkage, views)
    x, labels = images(TASKS - 1, views)
    judged, found = head.scores_left_out(x, labels)
    assert bool(judged.all())
    for image, (own, label) in enumerate(zip(x.double(), labels.tolist(), strict=True)):
        rows, counts, means = own.view(-1, DIM), head.counts.clone(), head.means.clone()
        counts[label] -= 1
        means[label] += (means[label] - rows.mean(dim=0)) / counts[label]
        inner, moved = rows - rows.mean(dim=0), rows.mean(dim=0) - means[label]
        between = counts[label] / head.counts[label] * torch.outer(moved, moved)
        scatter = head.scatter - inner.T @ inner / len(rows) - between
        refitted = pooled(head, views, means, counts, scatter)
        wanted = densities(head, rows[:1], refitted, scatter)[0]
        torch.testing.assert_close(found[image], wanted, rtol=1e-7, atol=1e-7)


@KINDS
def test_a_forgotten_class_leaves_the_pooled_means(shrinkage: float | str, views: int) -> None:
    head, x = taught(shrinkage, views), images(0, 1)[0].double()
    before = head.logits(x)
    head.forget(2)
    kept = [label for label in range(TASKS * CLASSES) if label != 2]
    assert not head.means[2].any()
    assert not head.weight[2].any()
    assert not torch.equal(head.logits(x)[:, kept], before[:, kept])
    counts = head.counts.clone()
    counts[2] = 0
    means = pooled(head, views, head.means, counts, head.scatter)[kept]
    wanted = densities(head, x, means, head.scatter).log_softmax(1)
    torch.testing.assert_close(head.logits(x)[:, kept].log_softmax(1), wanted)
    again, labels = images(0, views)
    _, left_out = head.scores_left_out(again[:2], labels[:2])
    assert bool(left_out[:, kept].isfinite().all())


@KINDS
def test_a_class_left_out_has_no_say_in_the_means_of_the_others(
    shrinkage: float | str, views: int
) -> None:
    head = taught(shrinkage, views)
    label, (x, labels) = TASKS * CLASSES - 1, images(TASKS - 1, views)
    own = x[labels == label]
    found = head.evidence_class_left_out(own, labels[labels == label]).scores
    rows = own.double().view(len(own), views, DIM)
    apart = (rows - head.means[label]).flatten(0, 1)
    scatter = head.scatter - apart.T @ apart / views
    means = pooled(head, views, head.means, head.counts, head.scatter, out=label)
    wanted = densities(head, rows[:, 0], means, scatter)
    torch.testing.assert_close(found[:, :label], wanted[:, :label], rtol=1e-6, atol=1e-6)


def test_means_of_images_that_are_alike_stay() -> None:
    config = GaussianConfig(mean_shrinkage=2.0)
    spec = BackboneSpec("features", DIM, 1, 1, 1, True, 1, 1e-6)
    head = HEADS["gaussian"](spec, config, lambda name: generator(0, name))
    task = Task(0, (0, 1, 2), ("a", "b", "c"), 3)
    head.start_task(task)
    x = torch.randn(3, DIM, generator=generator(1, "alone"))
    head.end_task(task, FeatureSurvey((x, torch.arange(3))))
    assert torch.equal(head.logits(x).argmax(dim=1), torch.arange(3))


@pytest.mark.parametrize("spread", [1e-3, 1e-8, 1e-12, 1e-150])
def test_images_that_are_all_but_alike_are_told(spread: float) -> None:
    config = GaussianConfig(mean_shrinkage=3.0, shrinkage="loo")
    spec = BackboneSpec("features", DIM, 1, 1, 1, True, 1, 1e-6)
    head = HEADS["gaussian"](spec, config, lambda name: generator(0, name))
    task = Task(0, (0, 1, 2), ("a", "b", "c"), 3)
    head.start_task(task)
    labels = torch.arange(3).repeat_interleave(3)
    x = torch.randn(3, DIM, generator=generator(1, "alike"), dtype=torch.float64)[labels]
    x = x + spread * torch.randn(9, DIM, generator=generator(2, "alike"), dtype=torch.float64)
    head.end_task(task, FeatureSurvey((x, labels)))
    assert torch.equal(head.logits(x).argmax(dim=1), labels)
    assert torch.equal(head.scores_left_out(x, labels)[1].argmax(dim=1), labels)


def test_without_it_means_are_scored_as_they_are() -> None:
    head, x = taught(0.2, 1, strength=0.0), images(0, 1)[0].double()
    wanted = densities(head, x, head.means, head.scatter).log_softmax(1)
    torch.testing.assert_close(head.logits(x).log_softmax(1), wanted)
    assert not torch.equal(head.logits(x), taught(0.2, 1).logits(x))
