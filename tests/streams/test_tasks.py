from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perdure.errors import ConfigError, StreamError
from perdure.streams import class_order, task_sizes

ANIMALS = ["ant", "bee", "cat", "dog"]


@pytest.mark.parametrize(
    ("spec", "classes", "sizes"),
    [
        ("B0-Inc2", 10, (2, 2, 2, 2, 2)),
        ("B4-Inc2", 10, (4, 2, 2, 2)),
        ("B50-Inc5", 100, (50, *[5] * 10)),
        ("B50-Inc2", 100, (50, *[2] * 25)),
        ("b0-inc3", 10, (3, 3, 3, 1)),
        ("B4-Inc4", 10, (4, 4, 2)),
        ("B9-Inc1", 10, (9, 1)),
        ("B0-Inc10", 10, (10,)),
        ("4+2+2+2", 10, (4, 2, 2, 2)),
        (" 10 ", 10, (10,)),
        ([4, 2, 2, 2], 10, (4, 2, 2, 2)),
        ((1, 1), 2, (1, 1)),
    ],
)
def test_task_sizes(spec: str | list[int], classes: int, sizes: tuple[int, ...]) -> None:
    assert task_sizes(spec, classes) == sizes
    assert sum(sizes) == classes


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("B0-Inc0", "n starts at 1"),
        ("B10-Inc2", "m is at most 9"),
        ("B60-Inc2", "m is at most 9"),
        ("B0-Inc20", "n is at most 10"),
        ("B4-Inc7", "n is at most 6"),
        ("4+2", "add up to 6, and must add up to 10. For example: tasks=4+2+4."),
        ([8, 4], "add up to 12, and must add up to 10. For example: tasks=B0-Inc2."),
        ("5+0+5", "every task needs at least one class"),
        ([], "add up to 0"),
        ([11, -1], "every task needs at least one class"),
    ],
)
def test_sizes_that_do_not_fit_are_explained(spec: str | list[int], reason: str) -> None:
    with pytest.raises(StreamError) as caught:
        task_sizes(spec, 10)
    assert reason in str(caught.value)
    assert "10" in str(caught.value)
    assert "For example: tasks=" in str(caught.value)


@pytest.mark.parametrize("spec", ["", "B2Inc2", "Inc2", "2,2", "B-Inc2", "B0-Inc2.5", "-2+12"])
def test_an_unreadable_spec_is_quoted(spec: str) -> None:
    with pytest.raises(ConfigError, match="For example: tasks=B0-Inc2"):
        task_sizes(spec, 10)


def test_nsp2_order_is_a_pcg64_shuffle() -> None:
    names = [str(label) for label in range(100)]
    assert class_order("nsp2", 10, names[:10], 2024) == [3, 5, 2, 9, 0, 7, 4, 1, 6, 8]
    assert class_order("nsp2", 10, names[:10], 2025) == [2, 3, 0, 9, 1, 4, 5, 8, 7, 6]
    assert class_order("nsp2", 10, names[:10], 2026) == [1, 9, 0, 6, 8, 3, 5, 2, 7, 4]
    order = class_order("nsp2", 100, names, 2024)
    assert order[:10] == [55, 17, 75, 11, 2, 29, 49, 48, 41, 45]
    assert sorted(order) == list(range(100))


def test_pilot_order_is_the_legacy_permutation_for_every_seed() -> None:
    names = [str(label) for label in range(100)]
    before = repr(np.random.get_state())  # noqa: NPY002
    order = class_order("pilot", 100, names, 0)
    expected = [68, 56, 78, 8, 23, 84, 90, 65, 74, 76, 40, 89, 3, 92, 55, 9, 26, 80, 43, 38]
    assert order[:20] == expected
    assert order[-3:] == [49, 57, 33]
    assert class_order("pilot", 100, names, 7) == order
    assert class_order("pilot", 10, names[:10], 0) == [4, 2, 7, 6, 0, 3, 5, 8, 9, 1]
    assert repr(np.random.get_state()) == before  # noqa: NPY002


def test_sorted_order_is_the_order_of_source_labels() -> None:
    assert class_order("sorted", 4, ["dog", "cat", "bee", "ant"], 3) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "names", "order"),
    [
        ("dog\ncat\n\n bee \nant\n", ANIMALS, [3, 2, 1, 0]),
        ("\ufeffdog\r\ncat\r\nbee\r\nant", ANIMALS, [3, 2, 1, 0]),
        ("3\n1\n0\n2\n", ANIMALS, [3, 1, 0, 2]),
        # Folders called 1, 10, 2 sort like that; a file of just these names means the names.
        ("1\n2\n10\n", ["1", "10", "2"], [0, 2, 1]),
        ("2\n0\n1\n", ["1", "10", "2"], [2, 0, 1]),
        ("cafe\u0301\n1.0\n", ["1", "caf\u00e9"], [1, 0]),
    ],
)
def test_order_from_a_file(tmp_path: Path, text: str, names: list[str], order: list[int]) -> None:
    path = tmp_path / "order.txt"
    path.write_text(text, encoding="utf-8")
    assert class_order(str(path), len(names), names, 0) == order


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("dogg\ncat\nbee\nant\n", ["unknown: 'dogg' (Did you mean 'dog'?)", "missing: 'dog'"]),
        ("dog\ncat\nbee\nant\ncat\n", ["more than once: 'cat'"]),
        ("dog\ncat\nant\n", ["missing: 'bee'"]),
        ("0\n1\n2\n4\n", ["unknown: '4'", "missing: '3'", "label from 0 to 3"]),
        ("", ["missing: 'ant', 'bee', 'cat', 'dog'", "4 lines"]),
    ],
)
def test_a_file_that_is_no_permutation(tmp_path: Path, text: str, faults: list[str]) -> None:
    path = tmp_path / "order.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StreamError) as caught:
        class_order(str(path), 4, ANIMALS, 0)
    for fault in [*faults, str(path)]:
        assert fault in str(caught.value)


def test_order_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"class_order=pilott .* Did you mean 'pilot'") as caught:
        class_order("pilott", 4, ANIMALS, 0)
    assert "nsp2, pilot, sorted, or the path of a text file" in str(caught.value)
    binary = tmp_path / "order.txt"
    binary.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(StreamError, match="UTF-8 text file"):
        class_order(str(binary), 4, ANIMALS, 0)
