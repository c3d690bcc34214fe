"""The comparison: what is joined, what is bold, what is missing, and in three forms."""

from __future__ import annotations

import io
import json
import statistics
from typing import Any

import pytest
from rich.console import Console

from perdure.metrics import METRICS
from perdure.reports.tables.comparison import as_records, as_rich, as_text_table, compare
from tests.reports.entries import entry


def scores(method: str, last: float | None, **changes: Any) -> dict[str, Any]:
    unknown = dict.fromkeys(METRICS)
    return entry(method, **{**unknown, "last_accuracy": last, "seconds": None, **changes})


def markdown(*entries: dict[str, Any]) -> str:
    return as_text_table(compare(entries)).markdown()


def cells(entries: list[dict[str, Any]]) -> list[list[str]]:
    lines = markdown(*entries).split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def printed(entries: list[dict[str, Any]], width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(as_rich(compare(entries), "Comparison"))
    return capture.get()


def test_columns_and_cells() -> None:
    known = entry(
        last_accuracy=0.91743,
        average_incremental_accuracy=0.94,
        forgetting=-0.0123,
        plasticity=0.95,
        within_task_accuracy=0.99,
        task_inference_accuracy=0.92,
        seconds=12.34,
    )
    assert markdown(known) == (
        "| method | head | last acc % | avg incremental % | forgetting (points) | plasticity % "
        "| within-task % | task inference % | time |\n"
        "| :-- | :-- | --: | --: | --: | --: | --: | --: | --: |\n"
        "| nsp2 | linear | 91.74 | 94.00 | -1.23 | 95.00 | 99.00 | 92.00 | 12.3 s |\n"
    )


def test_missing_values_are_dashes() -> None:
    assert cells([scores("joint", None)]) == [["joint", "linear", *["–"] * 7]]


def test_the_best_of_each_column_is_bold() -> None:
    found = cells(
        [
            scores("nsp2", 0.9, forgetting=0.03, seconds=50),
            scores("finetune", 0.7, forgetting=0.3, seconds=40),
            scores("frozen", 0.9, forgetting=None, seconds=None),
        ]
    )
    assert [row[2] for row in found] == ["**90.00**", "70.00", "**90.00**"]
    assert [row[4] for row in found] == ["**3.00**", "30.00", "–"]
    assert [row[8] for row in found] == ["50.0 s", "**40.0 s**", "–"]


def test_what_looks_the_same_is_equally_good() -> None:
    rows = cells([scores("a", 0.90001), scores("b", 0.90002), scores("c", 0.8)])
    assert [row[2] for row in rows] == ["**90.00**", "**90.00**", "80.00"]


@pytest.mark.parametrize("values", [[0.9], [0.9, 0.9], [0.9, None]])
def test_nothing_is_bold_where_nothing_is_better(values: list[float | None]) -> None:
    found = markdown(*[scores(f"m{n}", value) for n, value in enumerate(values)])
    assert "**" not in found


def test_an_upper_bound_is_never_the_best() -> None:
    bound = scores("joint", 0.95, sees_old_images=True)
    entries = [bound, scores("nsp2", 0.9), scores("finetune", 0.7)]
    assert [row[2] for row in cells(entries)] == ["95.00", "**90.00**", "70.00"]
    assert "sees old images: joint" in markdown(*entries)


def test_seeds_are_shown_as_mean_and_deviation() -> None:
    values = (0.90, 0.92, 0.97)
    entries = [scores("nsp2", value, seed=seed) for seed, value in enumerate(values)]
    found = cells([*entries, scores("frozen", 0.8)])
    deviation = 100 * statistics.stdev(values)
    assert found[0][:4] == ["nsp2", "linear", "3", f"**93.00 ± {deviation:.2f}**"]
    assert found[1][:4] == ["frozen", "linear", "1", "80.00"]
    assert "deviation over seeds" in markdown(*entries)


def test_a_seed_without_the_metric_is_left_out_of_its_mean() -> None:
    found = compare([scores("nsp2", 0.9, seed=0), scores("nsp2", None, seed=1)])
    assert found[0].values["last_accuracy"] == (0.9, None, 1)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (119.9, "119.9 s"), (120, "2.0 min"), (7199, "120.0 min"), (9000, "2.5 h")],
)
def test_times_have_the_unit_that_suits_them(seconds: float, shown: str) -> None:
    assert cells([scores("nsp2", 0.9, seconds=seconds)])[0][-1] == shown


def test_times_over_seeds_share_a_unit() -> None:
    entries = [scores("nsp2", 0.9, seed=s, seconds=t) for s, t in enumerate((60.0, 360.0))]
    assert cells(entries)[0][-1] == f"3.5 ± {statistics.stdev((1, 6)):.1f} min"


def test_a_setting_that_differs_has_a_column() -> None:
    found = markdown(entry(), entry(stream="digits B0-Inc2"))
    assert found.startswith("| method | head | stream | last acc % |")
    assert "backbone" not in found


def test_the_same_run_again_is_numbered() -> None:
    assert [row[0] for row in cells([entry(), entry()])] == ["nsp2", "nsp2 #2"]


def test_a_bar_in_a_name_does_not_break_the_table() -> None:
    assert r"| a\|b |" in markdown(entry("a|b"))


def test_no_negative_zero() -> None:
    assert cells([scores("nsp2", 0.9, forgetting=-1e-9)])[0][4] == "0.00"


def test_the_terminal_shows_the_same_cells() -> None:
    entries = [entry(seed=0), entry(seed=1), entry("joint"), entry("frozen", "[gaussian]")]
    found = printed(entries)
    for row in cells(entries):
        for cell in row:
            assert cell.strip("*").replace("± ", "±") in found
    assert "Comparison" in found
    assert "deviation over seeds" in found


def test_the_best_is_bold_in_the_terminal() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(as_rich(compare([scores("nsp2", 0.9), scores("frozen", 0.8)])))
    assert "\x1b[1m90.00\x1b[0m" in capture.get()
    assert "\x1b[1m80.00\x1b[0m" not in capture.get()


def test_a_terminal_of_80_columns_loses_nothing() -> None:
    entries = [entry("nsp2", "gaussian"), entry("joint"), entry("finetune", seconds=1234)]
    found = printed(entries, width=80)
    assert max(len(line) for line in found.splitlines()) <= 80
    assert "…" not in found
    for row in cells(entries):
        line = next(line for line in found.splitlines() if f"{row[0]} " in line)
        assert line.split() == " ".join(row).replace("*", "").split()


def test_records_hold_fractions_and_survive_json() -> None:
    found = as_records(compare([entry(seed=0), entry(seed=1), entry("joint")]))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found[0]["seeds"] == [0, 1]
    assert found[0]["backbone"] == "vit_base_patch16_224.augreg_in21k"
    assert found[0]["last_accuracy"]["n"] == 2
    assert found[0]["last_accuracy"]["mean"] < 1
    assert found[1]["forgetting"] == {"mean": None, "std": None, "n": 0}
    assert set(METRICS) <= set(found[0])


def test_nothing_to_compare_is_an_empty_table() -> None:
    assert as_records(compare([])) == []
    assert markdown().count("\n") == 2
    assert "method" in printed([])
