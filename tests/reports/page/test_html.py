"""The page: whole, self-contained, escaped, with a section for whatever there is data for."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from perdure.errors import OutputError
from perdure.reports.figures.render import PROPERTIES
from perdure.reports.page import html
from perdure.reports.page.html import ReportFiles, check_target, make_report, write_report
from perdure.reports.page.sections import ReportSection, sections_of
from perdure.reports.results.runs import FinishedRun, by_stream
from perdure.reports.tables.against_published import against_paper
from perdure.reports.tables.comparison import compare
from tests.reports.run_folders import NOTHING_KNOWN, finished_run, save_grams

EVIL = "<img src=x onerror=alert(1)>"
ALWAYS = [
    "Setting",
    "Metrics",
    "Accuracy as tasks arrive",
    "Accuracy per task",
    "Forgetting per task",
    "Features and heads",
    "Confusion",
    "Cost and time",
]


class Page(HTMLParser):
    """What a page holds: tags with attributes, and texts by the tag they stand in."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self._open:
            self.texts.append((self._open[-1], data.strip()))

    def inside(self, tag: str) -> list[str]:
        return [text for parent, text in self.texts if parent == tag]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[FinishedRun]:
    """Two seeds of one method, another method over another stream, everything in it hostile."""
    folder = tmp_path_factory.mktemp("runs")
    names = [EVIL, "a & b", '"quoted"', "日本語", "$x$ $", "tab\tand\x00nul"]
    made = [
        finished_run(
            folder / EVIL.replace("/", "") / f"{seed}", seed=seed, changes={"class_names": names}
        )
        for seed in (0, 1)
    ]
    other = {"stream": EVIL, "preset": "</style><script>alert(2)</script>", "confusion": None}
    return [*made, finished_run(folder / "joint", "joint", changes=other)]


@pytest.fixture(scope="module")
def report(runs: list[FinishedRun]) -> ReportFiles:
    return make_report(runs, against=True)


@pytest.fixture(scope="module")
def page(report: ReportFiles) -> Page:
    return Page(report.page.decode())


def sections(*runs: FinishedRun, against: bool = False) -> dict[str, ReportSection]:
    (stream,) = by_stream(runs)
    rows = compare(stream.entries)
    published = against_paper(stream, rows) if against else None
    return {section.title: section for section in sections_of(stream, rows, published)}


@pytest.mark.long
def test_nothing_is_loaded_from_anywhere(page: Page, report: ReportFiles) -> None:
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                assert (value or "").startswith(("#", "data:image/png;base64,")), (tag, name, value)
    text = report.page.decode()
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []


def test_what_comes_from_data_is_text(page: Page, report: ReportFiles) -> None:
    text = report.page.decode()
    assert "<img" not in text
    assert "<script" not in text
    assert "&lt;img src=x" in text
    assert any(EVIL in heading for heading in page.inside("h2"))
    # In figures names are cut, in tables they are not.
    assert any(text.startswith("<img src=x") for text in page.inside("text"))
    assert "$x$ $" in page.inside("text")
    assert "日本語" in page.inside("text")
    assert "tab and nul" in page.inside("text")


def test_fragments_lead_to_one_place(page: Page) -> None:
    known = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(known) == len(set(known))
    for _, attributes in page.tags:
        for name in ("href", "xlink:href"):
            value = attributes.get(name) or ""
            assert not value.startswith("#") or value[1:] in known


def test_streams_are_not_mixed(page: Page, report: ReportFiles) -> None:
    assert len(page.inside("h2")) == 2
    assert page.inside("h3").count("Metrics") == 2
    assert page.inside("h3").count("Confusion") == 1
    assert {"1-metrics.csv", "2-metrics.csv", "1-confusion-1.png"} <= set(report.files)
    assert "2-confusion-1.png" not in report.files
    assert [record["method"] for record in report.records] == ["nsp2", "joint"]
    assert report.records[0]["seeds"] == [0, 1]
    assert len(report.published) > 0


def test_seeds_are_joined(page: Page, report: ReportFiles) -> None:
    assert "Mean ± standard deviation over seeds." in page.inside("p")
    lines = report.files["1-metrics.csv"].decode().splitlines()
    assert lines[0].startswith(
        "method,head,stream,backbone,preset,options,seeds,last_accuracy_mean,"
    )
    assert lines[1].startswith("nsp2,linear,digits,")
    assert report.files["1-metrics.md"].decode().count("\n| nsp2 |") == 1


def test_figures_take_the_colours_of_the_page(report: ReportFiles) -> None:
    text = report.page.decode()
    style, body = text.split("</style>", 1)
    assert all(f"{name}: {colour};" in style for name, colour in PROPERTIES.items())
    assert "prefers-color-scheme: dark" in style
    for name in ("--ink", "--faint", "--paper", "--curve-0", "--font"):
        assert f"var({name})" in body
    assert all(
        content.startswith(b"\x89PNG")
        for name, content in report.files.items()
        if name.endswith("png")
    )


@pytest.mark.long
def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    run = finished_run(tmp_path, changes=NOTHING_KNOWN)
    assert make_report([run]) == make_report([run])


def test_a_section_for_whatever_there_is_data_for(tmp_path: Path) -> None:
    assert list(sections(finished_run(tmp_path / "a", "finetune"))) == ALWAYS
    run = finished_run(tmp_path / "b", changes={"selection_entropy": 0.5})
    save_grams(run, gram_affinity_0=torch.eye(4), gram_aggregation_0=torch.eye(3))
    found = sections(run, against=True)
    spectra, selection = found["Spectra and null spaces"], found["Selection"]
    assert list(found) == [
        *ALWAYS[:-1],
        "Spectra and null spaces",
        "Selection",
        "Cost and time",
        "Against published numbers",
    ]
    assert [name for name, _ in spectra.figures] == [
        "spectrum-1-affinity",
        "spectrum-1-aggregation",
    ]
    assert [cell.text for cell in selection.tables[0].content.rows[0]] == [
        "nsp2",
        "–",
        "0.500",
        "–",
    ]
    cost = found["Cost and time"].tables[0].content.rows[0]
    assert [cell.text for cell in cost] == ["nsp2", "linear", "1,234", "–", "12.0"]


def test_a_section_without_data_is_left_out(tmp_path: Path) -> None:
    found = sections(finished_run(tmp_path, "finetune", changes=NOTHING_KNOWN))
    absent = ("Forgetting per task", "Features and heads", "Confusion")
    assert list(found) == [title for title in ALWAYS if title not in absent]


@pytest.mark.parametrize(
    ("config", "damage", "note"),
    [
        ({}, None, "nsp2: left out, the run has no saved model ('"),
        ({}, b"no tensors", "cannot be read (it is damaged ("),
        (
            {"conditions": "exact"},
            b"",
            "nsp2: its conditions are exact, so the null spaces it used",
        ),
    ],
)
def test_what_is_said_where_spectra_are_not_plain(
    tmp_path: Path, config: dict[str, Any], damage: bytes | None, note: str
) -> None:
    run = finished_run(tmp_path, **config)
    if damage is not None:
        save_grams(run, gram_affinity_0=torch.eye(4))
        run.model.write_bytes(damage or run.model.read_bytes())
    section = sections(run)["Spectra and null spaces"]
    assert any(note in text for text in section.texts)


def test_confusion_of_many_classes_is_by_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(tmp_path)
    ((_, by_class),) = sections(run)["Confusion"].figures
    monkeypatch.setattr("perdure.reports.figures.report.MOST_CLASSES", 5)
    ((_, by_task),) = sections(run)["Confusion"].figures
    assert by_class.axes[0].get_ylabel() == "true class"
    assert len(by_class.axes[0].get_yticks()) == 6
    assert by_task.axes[0].get_ylabel() == "true task"
    assert len(by_task.axes[0].get_yticks()) == 3
    assert {text.get_text() for text in by_task.axes[0].texts} == {"100.0"}


def test_a_configuration_that_is_not_at_hand_is_said(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    found = sections(FinishedRun(run.folder, run.entries, {}, {}))
    assert found["Setting"].texts == (
        f"The configuration of {tmp_path} is not at hand (no config.toml).",
    )
    assert "Spectra and null spaces" not in found


def test_nothing_comparable_is_said_plainly(tmp_path: Path) -> None:
    section = sections(finished_run(tmp_path), against=True)["Against published numbers"]
    assert "Nothing published is comparable with these runs." in section.texts
    assert [table.name for table in section.tables] == ["published-others"]


def test_the_page_is_written_last(
    tmp_path: Path, report: ReportFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "page.html"
    files = write_report(report, out)
    assert files[0] == out
    assert out.read_bytes() == report.page
    assert {file.name for file in files[1:]} == set(report.files)
    assert {file.parent for file in files[1:]} == {tmp_path / "new" / "page_files"}

    def full(path: Path, data: bytes) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(html, "atomic_write", full)
    with pytest.raises(OutputError, match="the disk is full"):
        write_report(ReportFiles(b"other", {"a.md": b""}, [], []), out)
    assert out.read_bytes() == report.page


def test_names_that_no_page_can_have(tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(
        OutputError, match=r"is a folder\. Type the name .*folder\.html/report\.html"
    ):
        check_target(tmp_path / "folder.html")
    with pytest.raises(OutputError, match=r"does not end in \.html\. Type --out .*report\.html\."):
        check_target(tmp_path / "report")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file' is a file, not a folder\. Choose another place"):
        check_target(tmp_path / "file" / "report.html")
    check_target(tmp_path / "new" / "report.HTML")


def test_no_run_is_no_report() -> None:
    with pytest.raises(OutputError, match="There is no result to report"):
        make_report([])


def test_time_to_accuracy_is_by_epochs_under_the_frozen_methods_head(tmp_path: Path) -> None:
    def made(name: str, method: str, accuracy: float, seconds: float, **config: Any) -> FinishedRun:
        heads = config.pop("heads", ("gaussian",))
        changes = {"last_accuracy": accuracy, "seconds": seconds}
        changes["sees_old_images"] = method == "joint"
        return finished_run(tmp_path / name, method, heads=heads, changes=changes, **config)

    follows = ("gaussian(drift=linear)", "linear")
    runs = [
        made("lda", "lda", 0.5, 10.0),
        made("short", "nsp2", 0.45, 20.0, heads=follows, epochs=1),
        made("middle", "nsp2", 0.55, 40.0, heads=follows, epochs=2),
        made("long", "nsp2", 0.6, 80.0, heads=follows, epochs=4),
        made("other", "iprompt", 0.4, 30.0, epochs=2),
        made("bound", "joint", 0.9, 90.0),
    ]
    section = sections(*runs)["Time to accuracy"]
    rows = [[cell.text for cell in row] for row in section.tables[0].content.rows]
    assert rows == [
        ["nsp2 · gaussian(drift=linear)", "50.0 (lda)", "10.0", "40.0", "2", "1, 2, 4"],
        ["iprompt · gaussian", "50.0 (lda)", "10.0", "never", "–", "2"],
    ]
    assert [name for name, _ in section.figures] == ["time-to-accuracy-1"]
    assert "Time to accuracy" not in sections(*runs[1:]), "nothing frozen, nothing to pass"
