"""``perdure report``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import Perdure
from tests.reports.run_folders import NOTHING_KNOWN, finished_run


@pytest.mark.long
def test_report(perdure: Perdure, tmp_path: Path) -> None:
    finished_run(tmp_path / "runs" / "a", changes=NOTHING_KNOWN)
    finished_run(tmp_path / "runs" / "b", "finetune", changes=NOTHING_KNOWN)
    said = perdure("report", tmp_path / "runs", tmp_path / "runs" / "a", "--against", "paper")
    assert (said.code, said.err) == (0, "drawing the figures of 2 runs\n")
    assert said.out.splitlines()[0] == "report  report.html"
    assert said.out.splitlines()[1].startswith("files   report_files (")
    page = Path("report.html").read_text()
    assert page.count("<h3>Metrics</h3>") == 1
    assert "Nothing published is comparable with these runs." in page


@pytest.mark.long
def test_report_as_json(perdure: Perdure, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "a", "iprompt", changes=NOTHING_KNOWN)
    said = perdure("report", run.folder, "--json", "--against", "paper", "--out", "new/x.html")
    made = json.loads(said.out)
    assert sorted(made) == ["files", "published", "rows"]
    assert made["files"][0] == "new/x.html"
    assert all(Path(file).stat().st_size for file in made["files"])
    assert [row["method"] for row in made["rows"]] == ["iprompt"]
    assert made["published"] == []


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["nowhere"], 1, "'nowhere' does not exist. Name the folder of a finished run"),
        (["empty"], 1, "'empty' holds no results.json."),
        (["unfinished"], 1, "The run in 'unfinished' is not finished. Go on with `perdure run"),
        (["damaged"], 1, "'damaged/results.json' is damaged or no results.json"),
        (["nothing"], 1, "There is no result to report."),
        (["run", "--out", "empty"], 1, "'empty' is a folder. Type the name of the page, as --out"),
        (["run", "--out", "page"], 1, "'page' does not end in .html. Type --out page.html."),
        (["run", "--out", "file/x.html"], 1, "is a file, not a folder. Choose another place."),
        (["run", "--against", "papers"], 2, "Unknown paper 'papers'. Did you mean 'paper'?"),
        ([], 2, "The following arguments are required: DIR."),
    ],
)
def test_bad_input(perdure: Perdure, words: list[str], code: int, expected: str) -> None:
    for name in ("empty", "unfinished", "damaged", "nothing"):
        Path(name).mkdir()
    Path("unfinished/config.toml").touch()
    Path("damaged/results.json").write_text("[{")
    Path("nothing/results.json").write_text("[]")
    Path("file").touch()
    finished_run(Path("run"), changes=NOTHING_KNOWN)
    said = perdure("report", *words)
    assert (said.code, said.out) == (code, "")
    assert expected in said.err
    assert "Traceback" not in said.err
    assert not list(Path().glob("**/*.html"))
