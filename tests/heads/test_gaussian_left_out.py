"""The Gaussian head that chooses its shrinkage by leaving images out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perdure.heads import HEADS, GaussianHead
from perdure.heads.config import GaussianConfig
from perdure.heads.left_out_sums import LeftOutSums
from perdure.numerics.leave_one_out import SHRINKAGES
from perdure.randomness import generator
from perdure.testing.drawn import FeatureSurvey
from perdure.types import BackboneSpec, Task
from tests.reference.leave_one_out_literal import scores_without

DIM = 6
SPEC = BackboneSpec("features", DIM, 1, 1, 1, True, 1, 1e-6)


def drawn(seed: int, classes: int, images: int) -> tuple[Tensor, Tensor]:
    """Classes that overlap, in directions of unequal spread."""
    random = generator(seed, "overlapping")
    labels = torch.arange(classes).repeat_interleave(images)
    centres = 5 + torch.randn(classes, DIM, generator=random, dtype=torch.float64)
    spread = torch.linspace(0.3, 2, DIM)
    noise = torch.randn(len(labels), DIM, generator=random, dtype=torch.float64)
    return centres[labels] + spread * noise, labels


def new(shrinkage: str | float = "loo") -> GaussianHead:
    made = HEADS["gaussian"](
        SPEC, GaussianConfig(shrinkage=shrinkage), lambda name: generator(0, name)
    )  # type: ignore[arg-type]
    assert isinstance(made, GaussianHead)
    return made


def teach(head: GaussianHead, features: Tensor, labels: Tensor, classes: tuple[int, ...]) -> None:
    task = Task(0, classes, tuple(f"class {label}" for label in classes), classes[-1] + 1)
    head.start_task(task)
    own = torch.isin(labels, torch.tensor(classes))
    head.end_task(task, FeatureSurvey((features[own], labels[own])))


@pytest.mark.long
def test_the_shrinkage_with_most_right_answers_to_images_left_out_is_chosen() -> None:
    features, labels = drawn(0, 4, 5)
    head = new()
    teach(head, features, labels, (0, 1, 2, 3))
    right = []
    for rho in SHRINKAGES:
        rows = [scores_without(features, labels, i, rho) for i in range(len(labels))]
        right.append(int((torch.tensor(rows).argmax(1) == labels).sum()))
    assert head.left_out is not None
    assert head.left_out.right.tolist() == right
    assert right[SHRINKAGES.index(float(head.rho))] == max(right) > min(right)
    assert int(head.left_out.judged) == len(labels)


def test_it_scores_as_the_distances_by_which_it_chose() -> None:
    features, labels = drawn(1, 3, 6)
    head = new()
    teach(head, features, labels, (0, 1, 2))
    n, rho = len(labels), float(head.rho)
    given = new(rho)
    teach(given, features, labels, (0, 1, 2))
    assert given.left_out is None
    torch.testing.assert_close(head.logits(features) * n, given.logits(features) * (n - 1))


def test_sums_of_lessons_add_up_and_old_classes_compete() -> None:
    features, labels = drawn(2, 4, 5)
    head = new()
    teach(head, features, labels, (0, 1))
    assert head.left_out is not None
    first = head.left_out.right.clone()
    teach(head, features, labels, (2, 3))
    own = labels >= 2
    rows = [scores_without(features, labels, int(i), 0.5) for i in own.nonzero()[:, 0]]
    second = int((torch.tensor(rows).argmax(1) == labels[own]).sum())
    place = SHRINKAGES.index(0.5)
    assert int(head.left_out.right[place] - first[place]) == second
    assert int(head.left_out.judged) == 20


def test_more_images_have_a_say_and_forgotten_classes_answer_nothing() -> None:
    features, labels = drawn(3, 3, 6)
    head = new()
    teach(head, features[::2], labels[::2], (0, 1, 2))
    traces = head.forget(1)
    assert any("left_out.right" in trace.tensors for trace in traces)
    late = labels[1::2] != 1
    head.take_in(features[1::2][late], labels[1::2][late])
    assert head.left_out is not None
    assert int(head.left_out.judged) == 9 + 6
    # The forgotten class's mean is 0, next to which nothing lies; its images' spread stays.
    assert bool(head.left_out.loss.isfinite().all())
    assert not head.weight[1].any()


@pytest.mark.long
def test_choosing_task_by_task_moves_few_labels() -> None:
    """The first classes did not know the later ones: 5 % of labels move at most, over ten draws."""
    moved = others = 0
    for seed in range(10):
        features, labels = drawn(seed, 4, 40)
        taught = torch.arange(len(labels)) % 5 == 0
        at_once, slowly = new(), new()
        for head, lessons in ((at_once, [(0, 1, 2, 3)]), (slowly, [(0, 1), (2, 3)])):
            for classes in lessons:
                teach(head, features[taught], labels[taught], classes)
        rest = features[~taught]
        moved += int((slowly.logits(rest).argmax(1) != at_once.logits(rest).argmax(1)).sum())
        others += len(rest)
    assert moved / others <= 0.05


def test_without_two_images_of_a_class_distances_are_plain() -> None:
    features, labels = drawn(4, 3, 1)
    head = new()
    assert head.remarks == ()
    teach(head, features, labels, (0, 1, 2))
    assert "no class has two images" in head.remarks[0]
    nearest = torch.cdist(features + 0.1, features).argmin(1)
    assert torch.equal(head.logits(features + 0.1).argmax(1), nearest)


def test_classes_of_one_image_are_told_and_have_no_say() -> None:
    features, labels = drawn(5, 3, 4)
    kept = (labels != 2) | (torch.arange(len(labels)) == 8)
    head = new()
    teach(head, features[kept], labels[kept], (0, 1, 2))
    assert head.left_out is not None
    assert int(head.left_out.judged) == 8
    assert "1 of 3 classes have one image" in head.remarks[0]


def test_images_that_are_all_alike_are_told() -> None:
    head = new()
    features = torch.zeros(4, DIM, dtype=torch.float64)
    teach(head, features, torch.tensor([0, 0, 1, 1]), (0, 1))
    assert "all images of a class are alike" in head.remarks[0]
    assert bool(head.logits(features).isfinite().all())


@pytest.mark.parametrize(("chosen", "said"), [(0.001, "lower end"), (0.99, "upper end"), (0.5, "")])
def test_a_choice_at_an_end_of_the_grid_is_told(chosen: float, said: str) -> None:
    sums = LeftOutSums(SHRINKAGES)
    sums.judged += 4
    remarks = sums.remarks("shrinkage", chosen, torch.tensor([2, 2]))
    assert [said in text for text in remarks] == ([True] if said else [])


def test_other_shrinkages_keep_the_names_of_their_state() -> None:
    names = {"means", "counts", "scatter", "weight", "bias", "rho"}
    assert new("analytic").state_dict().keys() == new(0.5).state_dict().keys() == names
    sums = {"left_out.right", "left_out.loss", "left_out.judged"}
    assert new().state_dict().keys() == names | sums
