"""Images of one's own, named by ``data=``: tables, data sets of Hugging Face, folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from perdure.engine.config import make_config
from perdure.errors import ConfigError, StreamError, UnknownNameError, UnreadableImageError
from perdure.learner.labelled import gather
from perdure.streams import Source, StreamConfig, resolve
from tests.streams.conftest import WriteFolder
from tests.streams.made import load

WriteTable = Callable[..., Path]


@pytest.fixture
def photos(tmp_path: Path, write_folder: WriteFolder) -> Path:
    return write_folder(tmp_path / "photos", {"cat": 5, "dög fish": 5})


@pytest.fixture
def write_table(tmp_path: Path, photos: Path) -> WriteTable:
    """Write a table of the photos beside their folder: header, then a line per image and column."""

    def write(header: str = "path,label", name: str = "table.csv", **changes: Any) -> Path:
        lines = [header]
        for path in sorted(photos.rglob("*.png")):
            values = {"path": path.relative_to(tmp_path), "label": path.parent.name}
            values |= {"split": "test" if path.stem == "000" else "Train"}
            line = ",".join(str(values.get(column, "x")) for column in header.split(","))
            lines.append(line)
        for number, line in changes.get("lines", {}).items():
            lines[number - 1 :] = [line, *lines[number:]]
        table = tmp_path / name
        table.write_text("\n".join(lines) + "\n", "utf-8")
        return table

    return write


def table(path: Path, **options: Any) -> Source:
    return load("table", path, **options)


def test_a_table_lists_files_and_classes(write_table: WriteTable) -> None:
    source = table(write_table())
    assert source.class_names == ("cat", "dög fish")
    assert np.bincount(source.train.labels).tolist() == [4, 4]
    assert np.bincount(source.test.labels).tolist() == [1, 1]
    assert not set(source.train.names) & set(source.test.names)
    assert source.train.image(0).size == (12, 10)


def test_a_table_may_say_what_is_for_testing(write_table: WriteTable) -> None:
    source = table(write_table("split,path,label,note"))
    assert [Path(name).stem for name in source.test.names] == ["000", "000"]
    assert len(source.train) == 8
    with pytest.raises(ConfigError, match=r"test_fraction=0\.5 has no use: the table says"):
        table(write_table("path,label,split"), test_fraction=0.5)


def test_columns_are_found_by_usual_names_or_named(write_table: WriteTable) -> None:
    path = write_table()
    text = path.read_text("utf-8")
    path.write_text(text.replace("path,label", "FileName,Category"), "utf-8")
    assert len(table(path).train) == 8
    path.write_text(text.replace("path,label", "where,kind"), "utf-8")
    with pytest.raises(StreamError, match=r"no column called path or .*: image_column=where"):
        table(path)
    assert len(table(path, image_column="where", label_column="kind").train) == 8
    with pytest.raises(StreamError, match=r"no column 'kin'\. Did you mean 'kind'\?"):
        table(path, image_column="where", label_column="kin")


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_and_a_byte_order_mark(write_table: WriteTable, delimiter: str) -> None:
    path = write_table()
    text = path.read_text("utf-8").replace(",", delimiter)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(table(path).train) == 8


def test_whole_numbers_are_classes_in_their_order(write_table: WriteTable) -> None:
    path = write_table()
    text = path.read_text("utf-8")
    path.write_text(text.replace(",cat", ",10").replace(",dög fish", ",9"), "utf-8")
    assert table(path).class_names == ("9", "10")


def test_parquet_says_the_same_as_csv(write_table: WriteTable, tmp_path: Path) -> None:
    csv = write_table("path,label,split")
    lines = [line.split(",") for line in csv.read_text("utf-8").splitlines()]
    columns = {name: [line[place] for line in lines[1:]] for place, name in enumerate(lines[0])}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    one, other = table(csv), table(tmp_path / "t.parquet")
    assert one.train.names == other.train.names
    assert one.test.names == other.test.names
    numbers = {**columns, "label": [1.0] * 5 + [0.0] * 5}
    pyarrow.parquet.write_table(pa.table(numbers), tmp_path / "n.parquet")
    assert table(tmp_path / "n.parquet").class_names == ("0", "1")


@pytest.mark.parametrize(
    ("header", "lines", "text"),
    [
        ("path,label", {3: "photos/cat/000.png"}, r"Line 3 of .* not as many values"),
        ("path,label", {3: "photos/cat/000.png,cat,more"}, r"Line 3 of .* not as many values"),
        (
            "path,label",
            {3: "photos/cat/000.png,"},
            r"label of line 3 of .* is '', an empty name",
        ),
        ("path,label", {3: ",cat"}, r"no file in line 3 of .*column 'path'"),
        (
            "path,label",
            {3: "photos/cat/000.png,cat"},
            r"lists '.*000\.png' more than once \(line 2, line 3\)",
        ),
        ("path,label", {3: "photos/cat/9.png,cat"}, r"1 of 10 files .* do not exist.*\(line 3\)"),
        ("path,label,split", {3: "photos/cat/001.png,cat,val"}, r"'val'\. Allowed: train and test"),
        ("path,note", {}, r"no column called label or .*label_column=path"),
    ],
)
def test_wrong_tables(
    write_table: WriteTable, header: str, lines: dict[int, str], text: str
) -> None:
    with pytest.raises(StreamError, match=text):
        table(write_table(header, lines=lines))


def test_unreadable_tables(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="does not exist"):
        table(tmp_path / "no.csv")
    (tmp_path / "empty.csv").write_text("path,label\n")
    with pytest.raises(StreamError, match="no line but its header"):
        table(tmp_path / "empty.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(StreamError, match=r"cannot be read as a table"):
        table(tmp_path / "binary.csv")
    (tmp_path / "no.parquet").write_text("path,label")
    with pytest.raises(StreamError, match="cannot be read as Parquet"):
        table(tmp_path / "no.parquet")
    with pytest.raises(ConfigError, match=r"names no table\. Type data=FILE"):
        load("table")


def test_parquet_labels_that_are_no_names(write_table: WriteTable, tmp_path: Path) -> None:
    files = [line.split(",")[0] for line in write_table().read_text("utf-8").splitlines()[1:]]
    for labels in ([0.5] * 10, [None] * 10, [True] * 10):
        pyarrow.parquet.write_table(
            pa.table({"path": files, "label": labels}), tmp_path / "t.parquet"
        )
        with pytest.raises(StreamError, match="A label is a text or a whole number"):
            table(tmp_path / "t.parquet")


def test_a_damaged_image_of_a_table_is_named(write_table: WriteTable, photos: Path) -> None:
    name = Path(table(write_table()).train.names[0]).name
    (photos / "cat" / name).write_bytes(b"")
    with pytest.raises(UnreadableImageError, match=f"{name}: the file is empty"):
        table(write_table())
    assert len(table(write_table(), skip_unreadable=True).skipped) == 1


@pytest.fixture
def rows(photos: Path) -> datasets.Dataset:
    paths = sorted(photos.rglob("*.png"))
    features = datasets.Features(
        {"photo": datasets.Image(), "kind": datasets.ClassLabel(names=["dog fish", "cat"])}
    )
    kinds = [1 if path.parent.name == "cat" else 0 for path in paths]
    content = {"photo": [str(path) for path in paths], "kind": kinds}
    return datasets.Dataset.from_dict(content, features=features)


def saved(rows: Any, folder: Path) -> str:
    rows.save_to_disk(str(folder))
    return str(folder)


def hugging(path: str, **options: Any) -> Source:
    return load("huggingface", path, **options)


def test_a_saved_data_set_is_split_by_the_seed(rows: datasets.Dataset, tmp_path: Path) -> None:
    source = hugging(path := saved(rows, tmp_path / "saved"), test_fraction=0.4)
    assert source.class_names == ("dog fish", "cat")
    assert np.bincount(source.test.labels).tolist() == [2, 2]
    assert np.bincount(source.train.labels).tolist() == [3, 3]
    assert source.train.image(0).size == (12, 10)
    other = hugging(path, test_fraction=0.4, seed=1)
    assert other.test.names != source.test.names
    assert len(hugging(path, images_per_class=1).train) == 2


def test_splits_of_a_data_set_are_kept(rows: datasets.Dataset, tmp_path: Path) -> None:
    parts = datasets.DatasetDict({"train": rows, "validation": rows.select([0, 9])})
    source = hugging(path := saved(parts, tmp_path / "saved"))
    assert (len(source.train), len(source.test)) == (10, 2)
    assert source.test.names[1].endswith("saved[test][1]")
    with pytest.raises(ConfigError, match=r"test_fraction=0\.5 has no use: the data set '.*' says"):
        hugging(path, test_fraction=0.5)


def test_columns_of_a_data_set(rows: datasets.Dataset, tmp_path: Path) -> None:
    two = rows.add_column("other", rows["kind"], feature=rows.features["kind"])
    path = saved(two, tmp_path / "two")
    with pytest.raises(StreamError, match=r"several columns of classes: kind, other\. Name one"):
        hugging(path)
    assert hugging(path, label_column="other").class_names == ("dog fish", "cat")
    with pytest.raises(StreamError, match=r"has no column 'phot'\. Did you mean 'photo'"):
        hugging(path, image_column="phot", label_column="kind")
    without = saved(rows.remove_columns("photo"), tmp_path / "without")
    with pytest.raises(StreamError, match=r"no column of images\. It has: kind"):
        hugging(without)


def test_labels_that_are_texts(rows: datasets.Dataset, tmp_path: Path) -> None:
    texts = rows.remove_columns("kind").add_column("label", ["b"] * 5 + ["a"] * 5)
    assert hugging(saved(texts, tmp_path / "texts")).class_names == ("a", "b")


def test_a_data_set_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> None:
        raise ConnectionError(f"no way to {name}")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(StreamError, match=r"'no/where' cannot be loaded .*save_to_disk"):
        hugging("no/where")
    with pytest.raises(ConfigError, match=r"names no data set\. Type data=hf:NAME"):
        load("huggingface")


def test_data_names_what_it_is(write_table: WriteTable, photos: Path, tmp_path: Path) -> None:
    csv = str(write_table())
    for data, full, source, place in (
        (str(photos), f"folder:{photos}", "folder", str(photos)),
        (csv, f"table:{csv}", "table", csv),
        ("hf:user/name", "hf:user/name", "huggingface", "user/name"),
        ("cifar100:/data", "cifar100:/data", "cifar100", "/data"),
        ("digits", "digits", "digits", None),
    ):
        assert resolve(data) == resolve(full) == full
        config = make_config({"method": "lda", "data": data}).stream
        assert (config.data, config.source, config.place) == (full, source, place)
    for wrong, text in (
        (str(tmp_path / "table.cvs"), r"does not exist.*Did you mean 'table\.csv'"),
        ("digit", "Did you mean 'digits'"),
        (str(photos / "cat" / "000.png"), "is a file of another kind"),
    ):
        with pytest.raises(UnknownNameError, match=text):
            resolve(wrong)


def test_a_known_name_wins_over_a_folder(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(photos, tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert resolve("digits") == "digits"
    assert resolve("./digits") == "folder:./digits"


def test_a_table_may_say_the_domain(write_table: WriteTable, photos: Path) -> None:
    path = write_table("path,label,Domain")
    text = path.read_text("utf-8")
    lines = [
        f"{line.rpartition(',')[0]},{'paint' if number % 2 else 'photo'}" if number else line
        for number, line in enumerate(text.splitlines())
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    assert table(path).domains is None
    source = table(path, increment="domains")
    assert source.domains is not None
    assert source.domains.names == ("paint", "photo")
    # Of two or three images of a class in a domain one is held out.
    for images, areas, counts in (
        (source.train, source.domains.train, [[2, 1], [1, 2]]),
        (source.test, source.domains.test, [[1, 1], [1, 1]]),
    ):
        found = np.zeros((2, 2), int)
        np.add.at(found, (images.labels, areas), 1)
        assert found.tolist() == counts
        for name, area in zip(images.names, areas, strict=True):
            line = next(
                line for line in lines if Path(name).relative_to(path.parent).as_posix() in line
            )
            assert line.endswith(source.domains.names[area])
    capped = table(path, increment="domains", images_per_class=1)
    assert len(capped.train) == 4
    assert table(path, increment="domains", domain_column="label").domains is not None
    bad = Path(source.train.names[0])
    bad.write_bytes(b"")
    left = table(path, increment="domains", skip_unreadable=True)
    assert left.domains is not None
    assert len(left.domains.train) == len(left.train) == 5


@pytest.mark.parametrize(
    ("header", "lines", "options", "text"),
    [
        ("path,label", {}, {}, r"no column called domain or .*domain_column=path\. It must say of"),
        (
            "path,label,style",
            {},
            {"domain_column": "styl"},
            r"no column 'styl'\. Did you mean 'style'",
        ),
        (
            "path,label,domain",
            {4: "photos/cat/002.png,cat,"},
            {},
            r"The domain of line 4 of .*, column 'domain' is '', an empty name\.",
        ),
        (
            "path,label,domain",
            {4: "photos/cat/002.png,cat,other"},
            {},
            r"class 'cat' in domain 'other' has one image .*, and needs two",
        ),
    ],
)
def test_wrong_domains_of_a_table(
    write_table: WriteTable,
    header: str,
    lines: dict[int, str],
    options: dict[str, Any],
    text: str,
) -> None:
    path = write_table(header)
    found = path.read_text("utf-8").splitlines()
    for number, line in lines.items():
        found[number - 1] = line
    path.write_text("\n".join(found) + "\n", "utf-8")
    with pytest.raises(StreamError, match=text):
        table(path, increment="domains", **options)


def test_a_data_set_may_say_the_domain(rows: datasets.Dataset, tmp_path: Path) -> None:
    areas = datasets.ClassLabel(names=["sketch", "photo", "unused"])
    known = rows.add_column("domain", [0, 0, 1, 1, 1] * 2, feature=areas)
    path = saved(known, tmp_path / "known")
    source = hugging(path, increment="domains")
    assert source.class_names == ("dog fish", "cat")
    assert source.domains is not None
    assert source.domains.names == ("sketch", "photo", "unused")
    assert sorted(zip(source.test.labels, source.domains.test, strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    assert len(hugging(path, increment="domains", images_per_class=1).train) == 4
    texts = rows.add_column("style", ["b", "b", "a", "a", None] * 2)
    path = saved(texts, tmp_path / "texts")
    with pytest.raises(StreamError, match=r"no column called domain or .*leave increment out"):
        hugging(path, increment="domains")
    with pytest.raises(StreamError, match=r"row 4 of .*'style' is missing \(None\)"):
        hugging(path, increment="domains", domain_column="style")


def test_unreadable_rows_of_a_data_set(tmp_path: Path, photos: Path) -> None:
    contents = [path.read_bytes() for path in sorted(photos.rglob("*.png"))]
    contents[7] = b"\x89PNG broken"
    content = {"image": [{"bytes": one, "path": None} for one in contents]}
    rows = datasets.Dataset.from_dict({**content, "label": ["a"] * 5 + ["b"] * 5})
    path = saved(rows, tmp_path / "saved")
    source = hugging(path, skip_unreadable=True)
    assert len(source.train) + len(source.test) == 9
    assert [text.partition(": ")[0].rpartition("[")[2] for text in source.skipped] == ["7]"]
    whole = hugging(path)
    names = [*whole.train.names, *whole.test.names]
    place = next(place for place, name in enumerate(names) if name.endswith("[7]"))
    images = whole.train if place < len(whole.train) else whole.test
    with pytest.raises(UnreadableImageError, match=r"\[7\]: no image of a known format"):
        images.image(place % len(whole.train))
    left = gather(rows, None, "train", StreamConfig(skip_unreadable=True), 0)
    assert (left.counts(), len(left.skipped)) == ({"a": 5, "b": 4}, 1)


def test_what_cannot_be_looked_for_is_named() -> None:
    with pytest.raises(UnknownNameError, match="cannot be looked for"):
        resolve("é" * 300)


def test_a_name_that_begins_like_a_home_is_one_as_well() -> None:
    with pytest.raises(UnknownNameError, match="does not exist"):
        resolve("~nobody-of-that-name/photos")
