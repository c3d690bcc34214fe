"""The picture: every mix of results can be drawn, nothing overlaps, and the file is whole."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from perdure.errors import OutputError
from perdure.reports.figures.axes import ticks
from perdure.reports.figures.comparison import _apart, _figure, draw
from perdure.reports.results.groups import group
from tests.reports.entries import entry

METHODS = ("nsp2", "finetune", "frozen", "joint", "l2p", "dualprompt", "coda_prompt", "iprompt")


def drawn(*entries: dict[str, Any]) -> Figure:
    figure = _figure(group(entries))
    figure.draw_without_rendering()
    return figure


def shown(figure: Figure) -> tuple[Axes, list[Axes]]:
    """Return the axes of the curves and those of the heat maps."""
    curves, *others = figure.axes
    return curves, [ax for ax in others if ax.images and ax.get_visible()]


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


@pytest.mark.long
@pytest.mark.parametrize(("count", "tasks"), [(1, 1), (1, 10), (12, 3), (3, 20)])
def test_draws_any_mix(tmp_path: Path, count: int, tasks: int) -> None:
    methods = [METHODS[n % len(METHODS)] for n in range(count)]
    entries = [entry(method, tasks=tasks, seed=n) for n, method in enumerate(methods)]
    draw(entries, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 400
    assert len(list(tmp_path.iterdir())) == 1


def test_one_line_and_one_heat_map_per_method_and_head() -> None:
    curves, maps = shown(drawn(entry(seed=0), entry(seed=1), entry("frozen"), entry("joint")))
    assert [ax.get_title() for ax in maps] == [
        "nsp2 · linear",
        "frozen · linear",
        "joint · linear",
    ]
    assert len(curves.texts) == 3
    assert curves.get_xlabel() == "tasks learned"
    assert {ax.get_xlabel() for ax in maps} == {"evaluated on task"}
    assert maps[0].get_ylabel() == "task learned"


def test_cells_show_per_cent_of_the_mean_over_seeds() -> None:
    one = entry(seed=0, accuracy_matrix=[[0.5, None], [0.25, 1.0]], accuracy_curve=[0.5, 0.6])
    two = entry(seed=1, accuracy_matrix=[[0.6, None], [0.35, 1.0]], accuracy_curve=[0.6, 0.7])
    curves, maps = shown(drawn(one, two))
    assert texts(maps[0]) == ["55.0", "30.0", "100.0"]
    assert texts(curves) == ["nsp2 · linear   65.0"]
    assert curves.lines[0].get_ydata().tolist() == pytest.approx([55, 65])  # type: ignore[union-attr]


def test_the_colour_scale_is_shared_and_covers_every_cell() -> None:
    low = entry("finetune", accuracy_matrix=[[0.31]], accuracy_curve=[0.31])
    high = entry("nsp2", accuracy_matrix=[[0.87]], accuracy_curve=[0.87])
    bar = drawn(low, high).axes[-1]
    assert bar.get_ylim() == (30, 90)


def test_results_evaluated_only_at_the_end_are_level_and_dashed() -> None:
    given = entry("joint")
    curves, maps = shown(drawn(given))
    line, marker = curves.lines[:2]
    last = pytest.approx(100 * given["last_accuracy"])
    assert line.get_linestyle() == "--"
    assert line.get_ydata().tolist() == [last, last]  # type: ignore[union-attr]
    assert marker.get_ydata().tolist() == [last]  # type: ignore[union-attr]
    assert "not evaluated" in texts(maps[0])


def test_a_line_goes_past_evaluations_that_were_left_out() -> None:
    matrix = [[None] * 3, [0.5, 0.7, None], [0.4, 0.6, 0.8]]
    some = entry(accuracy_matrix=matrix, accuracy_curve=[None, 0.6, 0.6])
    gap = entry("pgp", accuracy_curve=[0.9, None, 0.5])
    curves, _ = shown(drawn(some, gap))
    assert [line.get_xdata().tolist() for line in curves.lines[:2]] == [[2, 3], [1, 3]]  # type: ignore[union-attr]


def test_entries_without_a_curve_show_their_last_accuracy() -> None:
    given = entry(last_accuracy=0.5)
    del given["accuracy_curve"]
    assert texts(shown(drawn(given))[0]) == ["nsp2 · linear   50.0"]


def test_entries_that_know_nothing_can_be_drawn() -> None:
    unknown = entry(accuracy_matrix=[[None]], accuracy_curve=[None], last_accuracy=None)
    curves, maps = shown(drawn(unknown))
    assert texts(curves) == []
    assert texts(maps[0]) == ["not evaluated"]


@pytest.mark.long
def test_tiny_cells_have_no_numbers() -> None:
    assert texts(shown(drawn(entry(tasks=100)))[1][0]) == []
    assert len(texts(shown(drawn(entry(tasks=20)))[1][0])) == 210


@pytest.mark.long
def test_lines_differ_in_grey() -> None:
    curves, _ = shown(drawn(*(entry(method) for method in METHODS if method != "joint")))
    markers = [line.get_marker() for line in curves.lines[: len(METHODS) - 1]]
    assert len(set(markers)) == len(METHODS) - 1


def test_a_dollar_sign_is_a_dollar_sign() -> None:
    curves, _ = shown(drawn(entry("a$_$b", stream="$x")))
    assert texts(curves)[0].startswith(r"a\$_\$b")


@given(st.lists(st.floats(0, 1), max_size=12).map(sorted), st.floats(0.01, 0.2))
def test_labels_are_moved_apart_and_stay_in_order(wanted: list[float], gap: float) -> None:
    found = _apart(wanted, gap)
    assert len(found) == len(wanted)
    for below, above in itertools.pairwise(found):
        assert above - below >= gap - 1e-9
    if all(above - below >= gap for below, above in itertools.pairwise(wanted)):
        assert found == wanted
    if wanted:
        assert sum(found) == pytest.approx(sum(wanted))


@given(st.integers(1, 2000))
def test_ticks_are_few_and_in_range(tasks: int) -> None:
    found = ticks(tasks)
    assert 1 <= len(found) <= 10
    assert set(found) <= set(range(1, tasks + 1))


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"No results to draw in '.*x\.png': give at least one"):
        draw([], tmp_path / "x.png")


@pytest.mark.long
def test_a_picture_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is missing"):
        draw([entry(tasks=1)], tmp_path / "absent" / "x.png")


@pytest.mark.long
def test_reports_need_neither_torch_nor_a_display() -> None:
    code = (
        "import sys, perdure.reports.results.files, perdure.reports.figures.comparison\n"
        "sys.exit(bool({'torch', 'timm', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(Path("src").absolute())}, check=False
    )
    assert done.returncode == 0
