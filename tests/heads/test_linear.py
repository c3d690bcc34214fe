"""The per-task linear head: how a task's layer starts, what it scores, what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from perdure.heads import HeadConfig, LinearHead
from perdure.randomness import generator
from perdure.testing.drawn import FeatureSurvey
from perdure.types import BackboneSpec, Task

DIM = 8
PARTS = ("weight", "bias")
SPEC = BackboneSpec("features", DIM, 1, 1, 1, True, 1, 1e-6)


def task(index: int, count: int, seen: int) -> Task:
    classes = tuple(range(seen - count, seen))
    return Task(index, classes, tuple(str(c) for c in classes), seen)


def head(init: str = "reference", seed: int = 0) -> LinearHead:
    config = HeadConfig(head_init=init)  # type: ignore[arg-type]
    return LinearHead(SPEC, config, lambda name: generator(seed, name))


def train(layer: nn.Module) -> None:
    """Stands for a task's training."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(1.0)


def layer(made: LinearHead, index: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a task's layer, finished or newest."""
    assert made.layer is not None
    weight = torch.cat([made.weight, made.layer.weight.detach()])
    bias = torch.cat([made.bias, made.layer.bias.detach()])
    first = sum(made.sizes[:index])
    rows = slice(first, first + made.sizes[index])
    return weight[rows], bias[rows]


def newest(made: LinearHead) -> nn.Linear:
    assert made.layer is not None
    return made.layer


def test_reference_init_copies_the_first_layer_into_the_second() -> None:
    made = head("reference")
    made.start_task(task(0, 3, 3))
    train(newest(made))
    made.start_task(task(1, 3, 6))
    for first, second in zip(layer(made, 0), layer(made, 1), strict=True):
        assert torch.equal(first, second)
    train(newest(made))
    assert not torch.equal(layer(made, 1)[0], layer(made, 0)[0])


def test_reference_init_copies_nothing_from_the_third_task_on() -> None:
    made, fresh = head("reference"), head("fresh")
    for index in range(3):
        made.start_task(task(index, 3, 3 * index + 3))
        fresh.start_task(task(index, 3, 3 * index + 3))
        train(newest(made))
    assert torch.equal(layer(made, 2)[0], layer(fresh, 2)[0] + 1)


def test_reference_init_is_fresh_where_class_counts_differ() -> None:
    made, fresh = head("reference"), head("fresh")
    for other in (made, fresh):
        other.start_task(task(0, 3, 3))
        other.start_task(task(1, 2, 5))
    assert torch.equal(layer(made, 1)[0], layer(fresh, 1)[0])


def test_fresh_layers_are_uniform_and_named_by_task_and_seed() -> None:
    first, again, other = head("fresh"), head("fresh"), head("fresh", seed=1)
    for made in (first, again, other):
        for index in range(3):
            made.start_task(task(index, 50, 50 * index + 50))
    bound = DIM**-0.5
    weights = [layer(first, index)[0] for index in range(3)]
    for index, weight in enumerate(weights):
        assert torch.equal(weight, layer(again, index)[0])
        assert not torch.equal(weight, layer(other, index)[0])
        assert 0.95 * bound < float(weight.detach().abs().max()) <= bound
        assert abs(float(weight.detach().mean())) < 0.1 * bound
    assert not torch.equal(weights[0], weights[1])


def test_initialisation_leaves_the_global_generator_alone() -> None:
    """nn.Linear draws its own default before it is overwritten."""
    made = head()
    state = torch.get_rng_state()
    made.start_task(task(0, 2, 2))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("init", ["reference", "fresh"])
def test_logits_are_the_tasks_scores_side_by_side(init: str) -> None:
    made = head(init)
    tasks = [task(0, 2, 2), task(1, 3, 5), task(2, 1, 6)]
    for one in tasks:
        made.start_task(one)
    features = torch.randn(4, DIM, generator=generator(0, "x"))
    parts = [made.task_logits(features, one) for one in tasks]
    assert [part.shape[1] for part in parts] == [2, 3, 1]
    torch.testing.assert_close(made.logits(features), torch.cat(parts, dim=1))


def test_training_one_task_leaves_the_others_alone() -> None:
    made = head()
    for index in range(2):
        made.start_task(task(index, 2, 2 * index + 2))
    features = torch.randn(4, DIM, generator=generator(0, "x"))
    before = layer(made, 0)[0].clone()
    made.logits(features).sum().backward()
    assert newest(made).weight.grad is not None
    assert [name for name, _ in made.named_parameters()] == ["layer.weight", "layer.bias"]
    train(made.trained(task(1, 2, 4)))
    assert torch.equal(layer(made, 0)[0], before)
    with pytest.raises(ValueError, match="task 0 is not the newest"):
        made.trained(task(0, 2, 2))


def test_replay_gives_equal_shapes_and_initial_values() -> None:
    made, replayed = head(), head()
    for index, (count, seen) in enumerate(((2, 2), (2, 4), (3, 7))):
        made.start_task(task(index, count, seen))
        replayed.start_task(task(index, count, seen))
    ours, theirs = made.state_dict(), replayed.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def given(features: Tensor) -> FeatureSurvey:
    """A survey with these features, whose classes are not asked for."""
    return FeatureSurvey((features, torch.zeros(len(features), dtype=torch.int64)))


def centred() -> LinearHead:
    return LinearHead(SPEC, HeadConfig(head_inputs="centred"), lambda name: generator(0, name))


def through_tasks(made: LinearHead, before: list[Tensor], after: list[Tensor]) -> None:
    for index, (first, last) in enumerate(zip(before, after, strict=True)):
        one = task(index, 2, 2 * index + 2)
        start, end = given(first), given(last)
        made.start_task(one)
        assert made.prepare(one, start)
        made.end_task(one, end)


def drawn(name: str, count: int) -> Tensor:
    return 3 + 2 * torch.randn(count, DIM, generator=generator(0, name))


def test_centred_layers_take_off_the_mean_of_all_features_so_far() -> None:
    """Twin: earlier tasks as they were when they ended, the current one before it is trained."""
    before = [drawn("a", 5), drawn("b", 7), drawn("c", 3)]
    after = [drawn("d", 5), drawn("e", 7), drawn("f", 3)]
    made = centred()
    through_tasks(made, before, after)
    queries = drawn("x", 4)
    logits = made.logits(queries)
    for index in range(3):
        seen = torch.cat([*after[:index], before[index]])
        spread = seen.var(0, correction=0).mean().sqrt()
        twin = nn.functional.linear((queries - seen.mean(0)) / spread, *layer(made, index))
        torch.testing.assert_close(logits[:, 2 * index : 2 * index + 2], twin)
        torch.testing.assert_close(made.task_logits(queries, task(index, 2, 2 * index + 2)), twin)


def test_features_without_spread_are_only_shifted() -> None:
    made = centred()
    same = torch.full((4, DIM), 2.0)
    through_tasks(made, [same], [same])
    torch.testing.assert_close(made.logits(same + 1), newest(made)(torch.ones(4, DIM)))


def test_plain_layers_ask_for_no_survey_and_keep_nothing_else() -> None:
    made = head()
    made.start_task(task(0, 2, 2))
    nothing = given(torch.full((0, DIM), torch.nan))
    assert not made.prepare(task(0, 2, 2), nothing)
    made.end_task(task(0, 2, 2), nothing)
    assert list(made.state_dict()) == ["weight", "bias", "layer.weight", "layer.bias"]


@pytest.mark.parametrize("inputs", ["features", "centred"])
def test_a_state_with_a_layer_per_task_is_taken_in(inputs: str) -> None:
    """As models of before have it: `layers.0.weight`, `layers.1.weight`, …"""
    config = HeadConfig(head_inputs=inputs)  # type: ignore[arg-type]
    made, loaded = (LinearHead(SPEC, config, lambda name: generator(0, name)) for _ in range(2))
    for index, (count, seen) in enumerate(((2, 2), (3, 5), (1, 6))):
        for one in (made, loaded):
            one.start_task(task(index, count, seen))
        made.prepare(task(index, count, seen), given(drawn(f"{index}", 5)))
        train(newest(made))
    old = {f"layers.{i}.{part}": layer(made, i)[part == "bias"] for i in range(3) for part in PARTS}
    if inputs == "centred":
        for name in ("images", "feature_sum", "square_sum"):
            old[name] = made.get_buffer(name)
        for i in range(3):
            old |= {f"layers.{i}.offset": made.offsets[i], f"layers.{i}.spread": made.spreads[i]}
    loaded.load_state_dict(old, strict=True)
    features = drawn("x", 4)
    assert torch.equal(loaded.logits(features), made.logits(features))
