"""Names of classes and files that others chose: none reaches a terminal raw, none a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from perdure.cli.output import json_text, print_columns, print_fields
from perdure.errors import did_you_mean
from perdure.reports.results.files import write_confusion
from perdure.reports.tables.text_table import TextTable
from perdure.streams.images.sets import unreadable_images
from perdure.wording import csv_cell, listed, printable
from tests.cli.command import Perdure
from tests.tiny import classifier, pictures

RED, TITLE, LINE, FORMULA = "\x1b[31mred", "\x9b2Jgone\x9d", "two\nlines", "=1+1"
NAMES = [RED, TITLE, LINE, FORMULA, "caf\u00e9\u3000\u732b"]


def is_safe(text: str) -> bool:
    return not any(one < " " or "\x7f" <= one < "\xa0" for one in text if one != "\n")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of such classes, and photographs called like them; not to be changed."""
    place = tmp_path_factory.mktemp("hostile")
    images = [picture for name in "abcde" for picture in pictures(name, 2)]
    classifier().learn(images, [name for name in NAMES for _ in range(2)]).save(place / "m")
    for name, picture in zip(NAMES, images[::2], strict=True):
        (place / "p" / name).mkdir(parents=True)
        Image.fromarray(picture).save(place / "p" / name / f"{name}.png")
        (place / "p" / name / f"{name}2.png").write_bytes(b"")
    return place


@pytest.mark.long
def test_nothing_raw_in_what_commands_write(perdure: Perdure, hostile: Path) -> None:
    model, photos = hostile / "m", hostile / "p"
    commands = [
        *(("predict", model, photos, "--format", form) for form in ("table", "csv")),
        *(("show", model), ("data", "check", photos), ("eval", model, photos)),
    ]
    for words in commands:
        said = perdure(*words)
        assert is_safe(said.out + said.err), words
        assert "two\nlines" not in said.out + said.err, words
    found = json.loads(perdure("predict", hostile / "m", hostile / "p", "--json").out)
    assert {one["class"] for one in found if "class" in one} == set(NAMES)


def test_no_formula_in_what_commands_write(
    perdure: Perdure, hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hostile / "p" / FORMULA)
    said = perdure("predict", hostile / "m", f"{FORMULA}.png", "--format", "csv", "--top", "5")
    _, row = csv.reader(io.StringIO(said.out))
    assert row[:2] == ["'=1+1.png", "'=1+1"]
    assert sorted(row[1::2][:5]) == sorted(
        ["'=1+1", r"\x1b[31mred", r"\x9b2Jgone\x9d", r"two\nlines", "caf\u00e9\u3000\u732b"]
    )


def test_cells_of_tables(tmp_path: Path) -> None:
    for text in ("=A1", "+1+1", "-1-1", "@SUM(1)", "=\x1b"):
        assert str(csv_cell(text)).startswith(f"'{text[0]}")
    for plain in ("-1", "+2.5", "-1e-05", "1", "a=b", "\u2013", 0.5, -3, None):
        assert csv_cell(plain) == plain
    table = TextTable.plain(["=head"], [[RED], [LINE], ["a|b"]])
    assert table.csv() == b"'=head\n\\x1b[31mred\ntwo\\nlines\na|b\n"
    assert table.markdown().splitlines()[2:] == [r"| \x1b[31mred |", "| two lines |", r"| a\|b |"]
    write_confusion(tmp_path / "c.csv", [[1]], [FORMULA])
    assert (tmp_path / "c.csv").read_text() == "true class,'=1+1\n'=1+1,1\n"


def test_parts_of_messages(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("caf\u00e9\u00a0\u3000\u732b") == "caf\u00e9\u00a0\u3000\u732b"
    assert printable("a\nb\x07", lines=True) == "a\nb\\x07"
    assert listed([RED, LINE]) == r"\x1b[31mred, two\nlines"
    assert did_you_mean("red", ["\x1bred"]) == r" Did you mean '\x1bred'?"
    assert (
        str(unreadable_images([f"{LINE}.png: empty"])).splitlines()[1] == r"  two\nlines.png: empty"
    )
    print_fields([("name", "a\nb\x1b")])
    print_columns(["name"], [[LINE + RED]])
    assert is_safe(written := capsys.readouterr().out)
    assert written.splitlines() == ["name  a", r"      b\x1b", "name", r"two\nlines\x1b[31mred"]
    text = json_text({"\x9b": ["\x1b\x7f\udce9\n\u00e9"]}, 1)
    assert is_safe(text)
    assert json.loads(text) == {"\x9b": ["\x1b\x7f\udce9\n\u00e9"]}
    assert "\u00e9" in text
