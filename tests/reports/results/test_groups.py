"""Which results are joined, and how what is left apart is told apart."""

from __future__ import annotations

from perdure.reports.results.groups import group
from tests.reports.entries import entry


def labels(*entries: dict[str, object]) -> list[tuple[str, tuple[int | None, ...]]]:
    return [(joined.label, joined.seeds) for joined in group(entries)]


def test_seeds_are_joined_in_order_of_arrival() -> None:
    found = labels(entry(seed=2), entry("frozen", "gaussian"), entry(seed=0), entry(seed=1))
    assert found == [("nsp2 · linear", (2, 0, 1)), ("frozen · gaussian", (0,))]


def test_what_differs_is_in_the_label_and_what_does_not_is_left_out() -> None:
    found = group([entry(), entry(stream="digits B0-Inc2")])
    assert [joined.label for joined in found] == [
        "nsp2 · linear · cifar100 B0-Inc2",
        "nsp2 · linear · digits B0-Inc2",
    ]
    assert {joined.varying for joined in found} == {("stream",)}


def test_a_missing_preset_is_a_preset_of_its_own() -> None:
    assert labels(entry(), entry(preset=None)) == [
        ("nsp2 · linear · cifar100/nsp2", (0,)),
        ("nsp2 · linear · –", (0,)),
    ]


def test_options_are_told_where_there_are_any() -> None:
    assert labels(entry(options="epochs=1"), entry(options="epochs=2"), entry("joint")) == [
        ("nsp2 · linear · epochs=1", (0,)),
        ("nsp2 · linear · epochs=2", (0,)),
        ("joint · linear", (0,)),
    ]


def test_the_same_seed_again_is_another_run() -> None:
    found = labels(entry(seed=0), entry(seed=1), entry(seed=0), entry(seed=1), entry(seed=0))
    assert found == [
        ("nsp2 · linear", (0, 1)),
        ("nsp2 · linear #2", (0, 1)),
        ("nsp2 · linear #3", (0,)),
    ]


def test_another_number_of_tasks_is_another_run() -> None:
    assert labels(entry(seed=0), entry(seed=1, tasks=4)) == [
        ("nsp2 · linear", (0,)),
        ("nsp2 · linear #2", (1,)),
    ]
