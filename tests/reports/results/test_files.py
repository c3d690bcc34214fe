"""The files a run leaves: what is in them, and what is said of one that is something else."""

from __future__ import annotations

import csv
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import OutputError
from perdure.reports.results.files import (
    read_results,
    write_accuracy,
    write_all,
    write_confusion,
    write_markdown,
    write_results,
)
from tests.reports.entries import entry


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results.json"


def lines(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_what_is_written_is_read_back(results: Path) -> None:
    entries = [entry(), entry(head="gaussian"), entry("joint", tasks=1), entry(preset=None)]
    write_results(results, entries)
    assert read_results(results) == entries


def test_a_run_is_found_by_its_folder(results: Path) -> None:
    write_results(results, [entry()])
    assert read_results(results.parent) == [entry()]


def test_no_results_at_all(results: Path) -> None:
    write_results(results, [])
    assert read_results(results) == []


def test_results_read_well_by_eye(results: Path) -> None:
    write_results(results, [entry()])
    text = results.read_text()
    assert '\n    "method": "nsp2",\n' in text
    assert len(text.splitlines()) < 60
    assert json.loads(text) == [entry()]


def test_unusual_values_become_json(results: Path) -> None:
    known = entry(
        last_accuracy=np.float64(0.5),
        forgetting=math.nan,
        seconds=np.float32(2),
        cost={"peak": np.int64(3), "rate": math.inf, "sizes": (1, 2), "where": Path("x")},
        test_counts=np.array([1, 2, 3]),
    )
    write_results(results, [known])
    found = read_results(results)[0]
    assert (found["last_accuracy"], found["forgetting"], found["seconds"]) == (0.5, None, 2.0)
    assert found["cost"] == {"peak": 3, "rate": None, "sizes": [1, 2], "where": "x"}
    assert found["test_counts"] == [1, 2, 3]


def test_keys_of_a_newer_version_are_kept(results: Path) -> None:
    write_results(results, [entry(invented={"a": [1]})])
    assert read_results(results)[0]["invented"] == {"a": [1]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged or no results.json: Expecting value"),
        (b'[{"method": "nsp2"', "line 1 column"),
        (b"\xff\xfe", "can't decode byte 0xff"),
        (b"[NaN]", "NaN is no JSON"),
        (b"[" * 100_000, "is damaged or no results.json"),
        (b"{}", "it holds an object where a list of results belongs"),
        (b"3", "it holds 3 where a list of results belongs"),
        (b"[3]", "entry 1 is 3 where an object belongs"),
    ],
)
def test_a_file_that_is_something_else_is_named(
    results: Path, content: bytes, message: str
) -> None:
    results.write_bytes(content)
    with pytest.raises(OutputError, match=message) as raised:
        read_results(results)
    assert f"'{results}'" in str(raised.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("method", 3, "'method' is 3; allowed: a name"),
        ("head", "", "'head' is ''; allowed: a name"),
        ("stream", None, "'stream' is null; allowed: a name"),
        ("preset", [], "'preset' is a list of 0; allowed: a name or null"),
        ("seed", 1.5, "'seed' is 1.5; allowed: a whole number"),
        ("seed", True, "'seed' is true; allowed: a whole number"),
        ("last_accuracy", 91.7, "'last_accuracy' is 91.7; allowed: 0 to 1, or null"),
        ("plasticity", "x" * 99, f"'plasticity' is '{'x' * 36}…; allowed: 0 to 1, or null"),
        ("forgetting", -1.2, "'forgetting' is -1.2; allowed: -1 to 1, or null"),
        ("seconds", -1, "'seconds' is -1; allowed: a number from 0, or null"),
        (
            "accuracy_matrix",
            {},
            "'accuracy_matrix' is an object; allowed: one list or null per task",
        ),
        (
            "accuracy_matrix",
            [],
            "'accuracy_matrix' is a list of 0; allowed: one list or null per task",
        ),
        (
            "accuracy_matrix",
            [[0.5, None], [0.5]],
            "row 2 of 'accuracy_matrix' is a list of 1; allowed: a list of 2",
        ),
        (
            "accuracy_matrix",
            [[0.5, 0.5], [0.5, 0.5]],
            "row 1 of 'accuracy_matrix' has 0.5 for task 2, not yet learned; allowed: null",
        ),
        (
            "accuracy_matrix",
            [[50]],
            "row 1 of 'accuracy_matrix' has 50 for task 1; allowed: 0 to 1, or null",
        ),
        ("accuracy_curve", [0.5], "'accuracy_curve' is a list of 1; allowed: 3, one per task"),
        (
            "test_counts",
            [1, 2, -3],
            "'test_counts' is a list of 3; allowed: one whole number",
        ),
        ("confusion", [[1, 2]], "'confusion' is not a square of whole numbers from 0"),
        ("class_names", ["a"], "'confusion' has 6 rows; allowed: 1, one per class name"),
        ("class_names", [1, 2], "'class_names' is a list of 2; allowed: a list of names"),
        (
            "task_sizes",
            [2, 0, 2],
            "'task_sizes' is a list of 3; allowed: one whole number",
        ),
        ("selection_entropy", 2, "'selection_entropy' is 2; allowed: 0 to 1, or null"),
        ("cost", [], "'cost' is a list of 0; allowed: an object"),
        ("cost", {"state_bytes": "1"}, "'state_bytes' of 'cost' is '1'; allowed: a number from 0"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(
    results: Path, key: str, value: Any, message: str
) -> None:
    results.write_text(json.dumps([entry(), {**entry(), key: value}]))
    with pytest.raises(OutputError) as raised:
        read_results(results)
    assert str(raised.value).startswith(
        f"'{results}' is no results.json that perdure can read: entry 2: {message}"
    )


@pytest.mark.parametrize("key", ["method", "head", "stream", "backbone", "seed", "last_accuracy"])
def test_a_missing_key_is_named(results: Path, key: str) -> None:
    known = entry()
    del known[key]
    results.write_text(json.dumps([known]))
    with pytest.raises(OutputError, match=f"entry 1: the key '{key}' is missing"):
        read_results(results)


def test_a_missing_file_is_named_with_what_to_give(results: Path) -> None:
    for place in (results, results.parent):
        with pytest.raises(OutputError, match=f"No results at '{results}'. Give the folder"):
            read_results(place)


def test_a_file_below_a_file_cannot_be_read(results: Path) -> None:
    results.touch()
    with pytest.raises(OutputError, match=r"Cannot read '.*': Not a directory"):
        read_results(results / "deeper")


def test_accuracy_in_long_form(tmp_path: Path) -> None:
    straight = entry(accuracy_matrix=[[0.75, None], [0.5, 1.0]], test_counts=[4, 5])
    last = entry(head="gaussian", accuracy_matrix=[[None] * 2, [0.25, 0.8]], test_counts=[4, 5])
    write_accuracy(tmp_path / "accuracy.csv", [straight, last])
    assert lines(tmp_path / "accuracy.csv") == [
        ["head", "after_task", "on_task", "accuracy", "correct", "total"],
        ["linear", "1", "1", "0.75", "3", "4"],
        ["linear", "2", "1", "0.5", "2", "4"],
        ["linear", "2", "2", "1.0", "5", "5"],
        ["gaussian", "2", "1", "0.25", "1", "4"],
        ["gaussian", "2", "2", "0.8", "4", "5"],
    ]


@given(st.integers(1, 10**9), st.data())
def test_counts_are_recovered_exactly(total: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, total))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "accuracy.csv"
        write_accuracy(path, [entry(accuracy_matrix=[[correct / total]], test_counts=[total])])
        assert lines(path)[1] == [
            "linear",
            "1",
            "1",
            str(correct / total),
            f"{correct}",
            f"{total}",
        ]


def test_a_task_without_test_images_has_an_empty_accuracy(tmp_path: Path) -> None:
    known = entry(accuracy_matrix=[[0.5, None], [0.25, None]], test_counts=[4, 0])
    write_accuracy(tmp_path / "accuracy.csv", [known])
    assert lines(tmp_path / "accuracy.csv")[1:] == [
        ["linear", "1", "1", "0.5", "2", "4"],
        ["linear", "2", "1", "0.25", "1", "4"],
        ["linear", "2", "2", "", "0", "0"],
    ]


def test_confusion_has_the_class_names_on_both_sides(tmp_path: Path) -> None:
    classes = ["cat, domestic", 'the "dog"', "línea\nnueva"]
    write_confusion(tmp_path / "c.csv", [[1, 2, 3], [4, 5, 6], [7, 8, 9]], classes)
    classes[2] = r"línea\nnueva"  # a line break in a name is shown as Python writes it
    assert lines(tmp_path / "c.csv") == [
        ["true class", *classes],
        [classes[0], "1", "2", "3"],
        [classes[1], "4", "5", "6"],
        [classes[2], "7", "8", "9"],
    ]


def test_a_class_name_that_is_no_unicode_does_not_lose_the_results(tmp_path: Path) -> None:
    write_confusion(tmp_path / "c.csv", [[1]], ["caf\udce9"])
    assert lines(tmp_path / "c.csv")[0] == ["true class", r"caf\udce9"]


def test_a_confusion_matrix_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 class names for a matrix with sides \[1, 2\]"):
        write_confusion(tmp_path / "c.csv", [[1, 2]], ["a", "b", "c"])


def test_the_table_is_the_comparison(tmp_path: Path) -> None:
    write_markdown(tmp_path / "results.md", [entry(), entry("joint")])
    text = (tmp_path / "results.md").read_text()
    assert text.startswith("| method | head | last acc % |")
    assert text.count("\n") == 4


def test_everything_a_run_leaves(tmp_path: Path) -> None:
    entries = [entry(), entry(head="gaussian", confusion=None)]
    write_all(tmp_path, entries, [f"class {number}" for number in range(6)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "accuracy.csv",
        "confusion-linear.csv",
        "results.json",
        "results.md",
    ]
    assert read_results(tmp_path) == entries
    assert len(lines(tmp_path / "accuracy.csv")) == 1 + 2 * 6


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"'{tmp_path}/run' is missing"):
        write_all(tmp_path / "run", [entry()], [])
