"""Tables as programs write them: Excel, pandas without a header, Parquet and Arrow with content."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from perdure.errors import StreamError, UnreadableImageError
from perdure.streams import Source, StreamConfig
from perdure.streams.sources.table import table_files, table_images
from perdure.streams.sources.table_file import read_table
from tests.streams.conftest import WriteFolder
from tests.streams.made import load
from tests.streams.published import image_bytes


@pytest.fixture
def photos(tmp_path: Path, write_folder: WriteFolder) -> Path:
    return write_folder(tmp_path, {"ant": 2, "bee": 2})


def written(folder: Path, head: str, between: str = ",", end: str = "\n") -> Path:
    """A table of the photos under a head, which may be no line at all."""
    lines = [
        between.join((f"{name}/00{k}.png", name)) + end for name in ("ant", "bee") for k in (0, 1)
    ]
    table = folder / "t.csv"
    table.write_bytes((head + "".join(lines)).encode())
    return table


def listed(table: Path, **keys: Any) -> tuple[list[str], list[str | int]]:
    paths, labels, _ = table_files(StreamConfig(data=f"table:{table}", **keys), "train")
    return [str(path.relative_to(table.parent)) for path in paths if isinstance(path, Path)], labels


EVERYTHING = (
    ["ant/000.png", "ant/001.png", "bee/000.png", "bee/001.png"],
    ["ant", "ant", "bee", "bee"],
)


@pytest.mark.parametrize(
    ("head", "between", "end"),
    [
        ("sep=;\npath;label\n", ";", "\n"),
        ("\ufeffsep=|\r\npath|label\r\n", "|", "\r\n"),
        ("SEP=,\rpath,label\r", ",", "\r"),
        ("path,label\n\n , \n", ",", "\n\n"),
    ],
)
def test_what_programs_write_around_a_table(
    photos: Path, head: str, between: str, end: str
) -> None:
    assert listed(written(photos, head, between, end)) == EVERYTHING


def test_columns_by_position_where_there_is_no_header(photos: Path) -> None:
    table = written(photos, "")
    by_position = {"image_column": "1", "label_column": "2"}
    assert listed(table, **by_position) == EVERYTHING
    for columns in ({}, {"image_column": "ant/000.png", "label_column": "ant"}):
        with pytest.raises(
            StreamError, match=r"no header: it has 'ant/000\.png'.*column=1 label_c"
        ):
            listed(table, **columns)
    assert len(table_images(table, StreamConfig(image_column="1"))) == 4
    # A header is one all the same where columns are named by position.
    assert listed(written(photos, "path,what\n"), **by_position) == EVERYTHING
    named = written(photos, "where,what\n")
    with pytest.raises(StreamError, match=r"first '.*where' \(line 1\)"):
        listed(named, **by_position)
    assert listed(named, image_column="where", label_column="2") == EVERYTHING
    with pytest.raises(StreamError, match="no column '3'"):
        listed(named, image_column="where", label_column="3")


def test_two_columns_of_one_name(photos: Path) -> None:
    table = photos / "t.csv"
    table.write_text("path,label,Label \nant/000.png,ant,x\nbee/000.png,bee,y\n")
    with pytest.raises(StreamError, match=r"2 columns called 'label', at 2 and 3.*_column=2"):
        listed(table)
    assert listed(table, label_column="3")[1] == ["x", "y"]
    table.write_text("path,label,label\nant/000.png,ant,x\n")
    for name in (None, "label"):
        with pytest.raises(StreamError, match="2 columns called 'label'"):
            listed(table, label_column=name)
    assert listed(table, label_column="2")[1] == ["ant"]


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ("path,label\n\n\nant/000.png,ant\nant/001.png,\n", "line 5"),
        ('path,label,note\nant/000.png,ant,"a\nb\nc"\nant/001.png,,x\n', "line 5"),
        ("sep=,\r\npath,label\r\n\r\nant/000.png,\r\n", "line 4"),
        ("sep=,\npath,label\n\nant/000.png,ant,more\n", "Line 4"),
        ('path,label\n"ant\n/000.png",ant\ngone.png,ant\n', "line 2"),
    ],
)
def test_lines_are_counted_as_an_editor_does(photos: Path, lines: str, where: str) -> None:
    (photos / "t.csv").write_bytes(lines.encode())
    with pytest.raises(StreamError, match=where):
        listed(photos / "t.csv")


def test_files_as_another_system_writes_them(photos: Path) -> None:
    table = photos / "t.csv"
    table.write_text("path,label\nant\\000.png,ant\n.\\bee\\001.png,bee\n")
    assert listed(table)[0] == ["ant/000.png", "bee/001.png"]
    odd = ("a\\b.png", " spaced .png", "two\nlines.png")
    for name in odd:
        (photos / name).write_bytes((photos / "ant" / "000.png").read_bytes())
    table.write_text("path,label\n" + "".join(f'"{name}",ant\n' for name in odd))
    assert sorted(listed(table)[0]) == sorted(odd)
    table.write_text('path,label\nant/000.png,"two\nlines"\nbee/000.png,one\n')
    assert listed(table)[1] == ["two\nlines", "one"]


@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream.arrow"])
@pytest.mark.parametrize("whole", [True, False])
def test_cells_that_hold_an_image(tmp_path: Path, kind: str, whole: bool) -> None:
    contents = [image_bytes(number, "PNG") for number in range(6)]
    cells = [{"bytes": c, "path": None} for c in contents] if whole else contents
    table = pa.table({"image": cells, "label": [7, 7, 7, 9, 9, 9]})
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        writer = pa.ipc.new_stream if kind.startswith("s") else pa.ipc.new_file
        with writer(path, table.schema) as out:
            out.write_table(table)
    source: Source = load("table", path)
    assert source.class_names == ("7", "9")
    assert (len(source.train), len(source.test)) == (4, 2)
    shown = {
        name: split.image(i)
        for split in (source.train, source.test)
        for i, name in enumerate(split.names)
    }
    for row, content in enumerate(contents):
        assert np.array_equal(shown[f"{path}[{row}]"], Image.open(io.BytesIO(content)))


def test_a_cell_that_names_a_file_or_holds_nothing(photos: Path) -> None:
    path = photos / "t.parquet"

    def images(*cells: Any) -> list[Any]:
        pq.write_table(pa.table({"image": list(cells), "label": ["a"] * len(cells)}), path)
        return table_files(StreamConfig(data=f"table:{path}"), "train")[0]

    assert images({"bytes": None, "path": "ant/000.png"}) == [photos / "ant" / "000.png"]
    for cell, text in ((None, "no file in row 0"), (3, "there is int where an image belongs")):
        with pytest.raises(StreamError, match=text):
            images(cell)
    with pytest.raises(StreamError, match=r"no file in row 0 of .*, column 'image'"):
        images({"bytes": None, "path": None})
    pq.write_table(pa.table({"image": [b"", b"none"], "label": ["a", "a"]}), path)
    with pytest.raises(UnreadableImageError, match=r"t\.parquet\[0\]: the file is empty"):
        load("table", path)


def test_names_of_classes_that_a_parquet_file_notes(photos: Path) -> None:
    """As `datasets` writes them: a number is known by the name that the file gives it."""
    features = {"label": {"names": ["bee", "ant"], "_type": "ClassLabel"}}
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    path = photos / "t.parquet"
    for labels in ([1, 0], [1, 2]):
        table = pa.table({"path": ["ant/000.png", "bee/000.png"], "label": labels})
        pq.write_table(table.replace_schema_metadata(noted), path)
        if labels[1] == 0:
            assert listed(path)[1] == ["ant", "bee"]
        else:
            with pytest.raises(StreamError, match=r"row 1 of .* is 2, which is none .*0 … 1: bee"):
                listed(path)


def test_damaged_tables_are_refused(tmp_path: Path) -> None:
    for name in ("t.parquet", "t.arrow", "t.feather"):
        for content in (b"", b"PAR1", b"ARROW1\0\0" + bytes(50), bytes(range(256))):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(StreamError, match=r"cannot be read as (Parquet|Arrow)"):
                read_table(tmp_path / name)
        (tmp_path / name).unlink()
        with pytest.raises(StreamError, match="does not exist"):
            read_table(tmp_path / name)
    (tmp_path / "t.csv").write_bytes(b"")
    with pytest.raises(StreamError, match=r"is empty\. Add a header"):
        read_table(tmp_path / "t.csv")


@pytest.mark.long
def test_damage_within_an_arrow_file_is_told(tmp_path: Path) -> None:
    """Wherever a byte is another one: what is read is whole, or the file is refused."""
    table = pa.table({"image": [b"x"], "label": ["a"]})
    for writer in (pa.ipc.new_stream, pa.ipc.new_file):
        with writer(tmp_path / "t.arrow", table.schema) as out:
            out.write_table(table)
        whole = (tmp_path / "t.arrow").read_bytes()
        refused = 0
        for place in range(0, len(whole), 5):
            for value in (0xFF, 0x80):
                damaged = whole[:place] + bytes([value]) + whole[place + 1 :]
                (tmp_path / "t.arrow").write_bytes(damaged)
                try:
                    read = read_table(tmp_path / "t.arrow")
                    assert all(
                        len(read.column(k)) == len(read.rows) for k in range(len(read.columns))
                    )
                except StreamError:
                    refused += 1
        assert refused > 20


def test_names_that_begin_with_a_tilde(photos: Path) -> None:
    (photos / "~thumb.png").write_bytes((photos / "ant" / "000.png").read_bytes())
    (photos / "t.csv").write_text("path,label\n~thumb.png,ant\n")
    found = table_files(StreamConfig(data=f"table:{photos / 't.csv'}"), "train")[0]
    assert found == [photos / "~thumb.png"]
