"""Long tails: how many images every class keeps, and which."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.engine.config import make_config
from perdure.errors import ConfigError
from perdure.streams import Stream
from perdure.streams.imbalance import tail_sizes
from tests.streams.made import cut_up
from tests.streams.test_increments import drawn


def digits(imbalance: float | None, **options: object) -> Stream:
    values = {"seed": 3, "imbalance": imbalance and float(imbalance), **options}
    return cut_up(**values)  # type: ignore[arg-type]


def sizes(stream: Stream) -> dict[str, int]:
    whole = stream.upto(len(stream.tasks) - 1)
    counts = np.bincount(whole.train.labels.numpy(), minlength=len(whole.task.names))
    return dict(zip(whole.task.names, counts.tolist(), strict=True))


def test_the_convention_of_long_tailed_cifar() -> None:
    # CIFAR-10-LT at a ratio of 100, as its papers print it.
    expected = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert tail_sizes(5000, 10, 100.0) == expected
    assert tail_sizes(7, 1, 100.0) == [7]


@given(st.integers(1, 600), st.integers(2, 200), st.floats(1, 1000))
def test_sizes_fall_from_all_to_the_ratio(largest: int, classes: int, imbalance: float) -> None:
    found = tail_sizes(largest, classes, imbalance)
    assert found[0] == largest
    assert found == sorted(found, reverse=True)
    assert found[-1] == max(1, math.floor(largest / imbalance + 1e-9))


def test_training_images_are_thinned_and_no_others() -> None:
    whole, tailed = digits(None, tasks="4+2+2+2"), digits(20, tasks="4+2+2+2")
    assert tailed.sizes == (4, 2, 2, 2)
    found = sorted(sizes(tailed).values(), reverse=True)
    largest = max(sizes(whole).values())
    expected = tail_sizes(largest, 10, 20.0)
    # The most frequent class keeps what it has: it need not be the largest of the data set.
    assert found[0] in sizes(whole).values()
    assert found[1:] == expected[1:]
    assert found[-1] == 6
    for before, after in zip(whole.tasks, tailed.tasks, strict=True):
        assert set(after.train.names) <= set(before.train.names)
        assert after.test.names == before.test.names
        assert np.all(np.diff(after.train.indices) > 0)
    kept = sum(found)
    assert tailed.notes[-1] == (
        f"imbalance=20 leaves {1262 - kept} training images out: {found[0]} are left in the largest "
        "class, 6 in the smallest."
    )


def test_the_tail_follows_the_seed_alone() -> None:
    first = sizes(digits(50))
    assert sizes(digits(50, tasks="10", class_order="sorted")) == first
    other = sizes(digits(50, seed=4))
    assert sorted(other.values())[0] == sorted(first.values())[0]
    assert other != first
    names = [set(digits(ratio).upto(4).train.names) for ratio in (10, 50)]
    assert names[1] < names[0]


def test_validation_images_stay_balanced() -> None:
    stream = digits(100, validation_fraction=0.25)
    for data in stream.tasks:
        assert data.val is not None
        counts = np.bincount(data.val.labels.numpy())[list(data.task.classes)]
        assert counts.min() > 30
        assert not set(data.val.names) & set(data.train.names)
    assert min(sizes(stream).values()) == 1


def test_a_ratio_of_one_keeps_all() -> None:
    assert sizes(digits(1)) == sizes(digits(None))


def test_the_same_classes_are_rare_in_every_domain() -> None:
    source = drawn({"a": [20, 20, 20], "b": [40, 40, 40]})
    stream = cut_up(class_order="sorted", increment="domains", imbalance=4.0, source=source)
    ours = [np.bincount(data.train.labels.numpy())[-3:].tolist() for data in stream.tasks]
    assert [sorted(counts) for counts in ours] == [[5, 10, 20], [10, 20, 40]]
    assert np.argsort(ours[0]).tolist() == np.argsort(ours[1]).tolist()
    both = cut_up(
        class_order="sorted", increment="classes+domains", imbalance=4.0, tasks="2+1", source=source
    )
    assert sizes(both) == {"ant": 20, "bee": 10, "cat": 40}  # of 20, 20 and 40
    assert sum(len(data.test) for data in both.tasks) == 6


@pytest.mark.parametrize("imbalance", [0.5, 0.0, -3.0, math.inf, math.nan])
def test_what_is_no_ratio(imbalance: float) -> None:
    with pytest.raises(ConfigError, match=rf"imbalance={imbalance}: "):
        make_config({"method": "lda", "imbalance": imbalance})


def test_keys_are_checked() -> None:
    with pytest.raises(ConfigError, match="imbalance='much': "):
        make_config({"method": "lda", "imbalance": "much"})
    with pytest.raises(ConfigError, match=r"increment='domain': .* Did you mean 'domains'\?"):
        make_config({"method": "lda", "increment": "domain"})
    assert make_config({"method": "lda", "domains": "real"}).stream.domains == ("real",)


def test_caps_come_first() -> None:
    assert sorted(sizes(digits(5, images_per_class=10)).values())[::9] == [2, 10]
