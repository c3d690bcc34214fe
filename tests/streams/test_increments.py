"""Streams over domains: what every task brings, under which labels, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from perdure.errors import ConfigError, StreamError
from perdure.streams import (
    ArrayImages,
    Domains,
    Source,
    Stream,
)
from perdure.streams.increments import Cut, cut
from perdure.types import Task
from tests.streams.made import asked, cut_up, load

NAMES = ("ant", "bee", "cat")
Counts = Mapping[str, Sequence[int]]
"""Images of each class, by domain."""


def drawn(train: Counts, test: Counts | None = None, names: Sequence[str] = NAMES) -> Source:
    """A source with so many images; two test images wherever there are training images."""
    test = test or {domain: [2 * bool(n) for n in counts] for domain, counts in train.items()}
    sets, areas = [], []
    for split, counts in (("train", train), ("test", test)):
        pairs = [
            (label, place)
            for place, of_class in enumerate(counts.values())
            for label, count in enumerate(of_class)
            for _ in range(count)
        ]
        labels, domains = np.array(pairs, np.int64).reshape(-1, 2).T
        called = [f"{split}[{index}]" for index in range(len(labels))]
        sets.append(ArrayImages(np.zeros((len(labels), 2, 2), np.uint8), labels, called))
        areas.append(domains)
    return Source("drawn", tuple(names), *sets, domains=Domains(tuple(train), *areas))


def stream(source: Source, increment: str, **options: object) -> Stream:
    values = {"tasks": "2+1", "class_order": "sorted", "increment": increment, **options}
    return cut_up(**values, source=source)  # type: ignore[arg-type]


def test_every_domain_is_a_task_with_the_same_classes() -> None:
    source = drawn({"real": [3, 4, 5], "sketch": [2, 2, 2]})
    made = stream(source, "domains")
    assert [data.task for data in made.tasks] == [
        Task(0, (0, 1, 2), NAMES, 3),
        Task(1, (3, 4, 5), NAMES, 6),
    ]
    assert (made.class_names, made.class_order, made.sizes) == (NAMES, (0, 1, 2), (3, 3))
    assert (made.domains, made.repeats) == (("real", "sketch"), True)
    assert made.notes == ("Every domain is a task: real, sketch. The key tasks is not read.",)
    assert source.domains is not None
    for place, data in enumerate(made.tasks):
        for subset, areas in ((data.train, source.domains.train), (data.test, source.domains.test)):
            assert set(areas[subset.indices]) == {place}
            labels = subset.images.labels[subset.indices]
            assert subset.labels.tolist() == (labels + 3 * place).tolist()
    assert [len(data.train) for data in made.tasks] == [12, 6]


def test_the_order_of_domains_and_classes_is_given() -> None:
    source = drawn({"a": [1, 1, 1], "b": [1, 1, 1], "c": [1, 1, 1]})
    made = stream(source, "domains", domains=("c", "a"), class_order="pilot")
    assert made.domains == ("c", "a")
    assert made.notes[1] == "3 of 9 training images are in other domains, and left out."
    assert [data.task.names for data in made.tasks] == [made.class_names] * 2
    assert made.class_names != NAMES
    assert sorted(made.class_names) == list(NAMES)


def test_a_class_may_be_absent_from_a_domain() -> None:
    made = stream(drawn({"real": [3, 0, 5], "sketch": [2, 2, 2]}), "domains")
    assert [data.task.names for data in made.tasks] == [("ant", "cat"), NAMES]
    assert made.class_names == ("ant", "cat", "bee")
    assert made.class_order == (0, 2, 1)
    assert made.notes[1:] == ("The domain 'real' has no images of 'bee'.",)
    assert made.upto(1).task == Task(1, (0, 1, 2, 3, 4), ("ant", "cat", *NAMES), 5)


def test_new_classes_of_one_domain_in_every_task() -> None:
    source = drawn({"a": [4] * 6, "b": [3] * 6}, names=[f"c{index}" for index in range(6)])
    made = stream(source, "classes+domains", tasks="2+2+2")
    assert (made.domains, made.repeats) == (("a", "b", "a"), False)
    assert [data.task.classes for data in made.tasks] == [(0, 1), (2, 3), (4, 5)]
    assert [len(data.train) for data in made.tasks] == [8, 6, 8]
    assert [len(data.test) for data in made.tasks] == [4, 4, 4]
    assert made.class_order == tuple(range(6))
    assert made.notes == (
        "Domains of the tasks: a, b, a.",
        "20 of 42 training images are in another domain than their class's, and left out.",
    )


def test_classes_of_one_domain_each_wait_for_its_turn() -> None:
    source = drawn({"a": [2, 0, 2, 0], "b": [0, 2, 0, 2]}, names=("w", "x", "y", "z"))
    made = stream(source, "classes+domains", tasks="1+1+1+1")
    assert [data.task.names for data in made.tasks] == [("w",), ("x",), ("y",), ("z",)]
    made = stream(source, "classes+domains", tasks="2+2", domains=("b", "a"))
    assert [data.task.names for data in made.tasks] == [("x", "z"), ("w", "y")]
    assert made.notes == ("Domains of the tasks: b, a.",)


def test_a_domain_with_too_few_classes_passes_its_turn() -> None:
    source = drawn({"a": [2, 2, 2, 2, 2], "b": [0, 0, 0, 0, 2]}, names=tuple("vwxyz"))
    made = stream(source, "classes+domains", tasks="2+1+2")
    assert made.domains == ("a", "b", "a")
    with pytest.raises(StreamError, match=r"Every task would be in the domain 'a': tasks=2\+3"):
        stream(source, "classes+domains", tasks="2+3")


def test_sizes_that_no_domain_has() -> None:
    source = drawn({"a": [2, 2, 0, 0], "b": [0, 0, 2, 2]}, names=tuple("wxyz"))
    with pytest.raises(
        StreamError,
        match=r"Task 1 wants 3 classes of one domain, but of the 4 classes left at most 2 are in one",
    ):
        stream(source, "classes+domains", tasks="3+1")
    with pytest.raises(StreamError, match=r"tasks=1\+1\+1\+1\+1 does not fit 4 classes"):
        stream(source, "classes+domains", tasks="1+1+1+1+1")


def test_validation_images_are_drawn_in_every_domain() -> None:
    made = stream(drawn({"a": [4, 4, 4], "b": [8, 8, 8]}), "domains", validation_fraction=0.25)
    for data, count in zip(made.tasks, (1, 2), strict=True):
        assert data.val is not None
        assert [int((data.val.labels == c).sum()) for c in data.task.classes] == [count] * 3
        assert not set(data.val.names) & set(data.train.names)
    with pytest.raises(StreamError, match="class 'bee' in domain 'b' has one training image"):
        stream(drawn({"a": [4, 4, 4], "b": [8, 1, 8]}), "domains", validation_fraction=0.25)


@pytest.mark.parametrize("increment", ["domains", "classes+domains"])
def test_one_domain_is_none(increment: str) -> None:
    with pytest.raises(
        StreamError,
        match=rf"'drawn' has one domain \('a'\), and increment={increment.replace('+', '.')} needs two",
    ):
        stream(drawn({"a": [2, 2, 2]}), increment)
    with pytest.raises(StreamError, match=r"domains=a names one domain"):
        stream(drawn({"a": [2, 2, 2], "b": [2, 2, 2]}), increment, domains=("a",))


def test_a_class_needs_training_and_test_images_in_a_domain() -> None:
    train = {"a": [2, 2, 2], "b": [2, 2, 0]}
    with pytest.raises(StreamError, match=r"domain 'b' .* test images of 'cat', but no training"):
        stream(drawn(train, {"a": [1, 1, 1], "b": [1, 1, 1]}), "domains")
    with pytest.raises(StreamError, match=r"domain 'b' .* training images of 'bee', but no test"):
        stream(drawn(train, {"a": [1, 1, 1], "b": [1, 0, 0]}), "classes+domains")


def test_classes_that_never_come_again() -> None:
    with pytest.raises(
        StreamError, match=r"every class in one domain only.*Type increment=classes\+domains"
    ):
        stream(drawn({"a": [2, 2, 0], "b": [0, 0, 2]}), "domains")


def test_names_of_domains_are_checked() -> None:
    source = drawn({"real": [2, 2, 2], "sketch": [2, 2, 2], "clipart": [2, 2, 2]})
    with pytest.raises(
        ConfigError, match=r"no domain 'sketc'\. Did you mean 'sketch'\? .* has: real"
    ):
        stream(source, "domains", domains=("real", "sketc"))
    with pytest.raises(ConfigError, match="each domain at most once"):
        stream(source, "domains", domains=("real", "sketch", "real"))
    with pytest.raises(ConfigError, match="domains=real has no use: tasks are formed by classes"):
        stream(source, "classes", domains=("real",))
    two = stream(
        drawn({"a": [2, 0, 2], "b": [2, 0, 2], "c": [2, 2, 2]}), "domains", domains=("a", "b")
    )
    assert two.class_names == ("ant", "cat")
    assert two.notes[0] == "No image in these domains, so left out: bee."


@pytest.mark.parametrize("increment", ["domains", "classes+domains"])
def test_sources_without_domains_say_what_to_do(increment: str) -> None:
    with pytest.raises(ConfigError, match=r"'digits' does not know .* a column 'domain'"):
        cut_up(increment=increment)
    plain = load("synthetic", images_per_class=1, test_images_per_class=1)
    with pytest.raises(StreamError, match=r"'synthetic' does not say in which domain"):
        cut_up(increment=increment, source=plain)
    with pytest.raises(ConfigError, match=r"domain_column=style has no use"):
        asked(domain_column="style")


def test_classes_alone_are_cut_as_ever() -> None:
    source = drawn({"a": [2, 2, 2], "b": [2, 2, 2]})
    assert cut(source, [2, 0, 1], "2+1") == Cut((2, 1), ((2, 0), (0, 0), (1, 0)))
    made = stream(source, "classes")
    assert [len(data.train) for data in made.tasks] == [8, 4]
    assert (made.domains, made.repeats, made.notes) == ((), False, made.notes[-1:])
