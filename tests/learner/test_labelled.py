"""Labelled images are made out from whatever people hand in, or refused with what to type."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from perdure.errors import PerdureError, UnreadableImageError
from perdure.learner.labelled import LabelledImages, Side, gather
from perdure.streams import StreamConfig
from tests.tiny import lesson, pictures


def made_out(data: Any, labels: Any = None, side: Side = "train", **keys: Any) -> LabelledImages:
    return gather(data, labels, side, StreamConfig(**keys), 0)


def write(folder: Path, *names: str, count: int = 2) -> list[Path]:
    files = []
    for name in names:
        (folder / name).mkdir(parents=True)
        for place, picture in enumerate(pictures(name, count)):
            files.append(folder / name / f"{place}.png")
            Image.fromarray(picture).save(files[-1])
    return files


class Pairs(torch.utils.data.Dataset[Any]):
    def __init__(self, items: list[tuple[Any, Any]], classes: list[str] | None = None) -> None:
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.items[index]


def test_a_model_of_domains_takes_tables_without_any(tmp_path: Path) -> None:
    files = write(tmp_path, "owl", "cat")
    table = tmp_path / "photos.csv"
    table.write_text("\n".join(["path,label", *(f"{one},{one.parent.name}" for one in files)]))
    over = {"increment": "domains", "domain_column": "site", "domains": ("north", "south")}
    assert made_out(str(table), **over).counts() == {"cat": 2, "owl": 2}


def test_folder_of_class_folders(tmp_path: Path) -> None:
    write(tmp_path, "owl", "cat")
    found = made_out(tmp_path)
    assert found.counts() == {"cat": 2, "owl": 2}
    assert found.names == ("cat", "owl")
    assert found.images.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(np.asarray(found.images.image(2)), pictures("owl")[0])


def test_folder_with_training_and_test_images(tmp_path: Path) -> None:
    write(tmp_path / "train", "cat", "owl", count=3)
    write(tmp_path / "test", "cat", "owl", count=1)
    assert made_out(str(tmp_path)).counts() == {"cat": 3, "owl": 3}
    assert made_out(str(tmp_path), side="test").counts() == {"cat": 1, "owl": 1}


@pytest.mark.parametrize("kind", ["csv", "parquet", "frame"])
def test_table_of_path_and_label(tmp_path: Path, kind: str) -> None:
    files = write(tmp_path / "pictures", "a", "b")
    frame = pd.DataFrame({"path": [str(file) for file in files], "label": [10, 10, 9, 9]})
    if kind == "parquet":
        frame.to_parquet(tmp_path / "table.parquet")
    elif kind == "csv":
        with (tmp_path / "table.csv").open("w", newline="") as file:
            csv.writer(file).writerows([frame.columns, *frame.itertuples(index=False)])
    found = made_out(frame if kind == "frame" else tmp_path / f"table.{kind}")
    assert found.names == ("9", "10")
    assert found.images.labels.tolist() == [1, 1, 0, 0]
    assert np.array_equal(np.asarray(found.images.image(2)), pictures("b")[0])


def test_table_that_says_what_is_for_testing(tmp_path: Path) -> None:
    files = write(tmp_path / "p", "a", count=3)
    lines = [
        f"{file},a,{split}" for file, split in zip(files, ["test", "train", "train"], strict=True)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *lines]))
    assert made_out(tmp_path / "t.csv").counts() == {"a": 2}
    assert made_out(tmp_path / "t.csv", side="test").counts() == {"a": 1}


def test_data_set_of_hugging_face(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "none", "ant"])}
    )
    images, labels = [Image.fromarray(p) for p in pictures("x", 3)], [2, 0, 2]
    rows = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    for given in (rows, datasets.DatasetDict({"train": rows, "test": rows.select([0])})):
        found = made_out(given)
        assert found.names == ("zebra", "ant")
        assert found.images.labels.tolist() == [1, 0, 1]
    assert made_out(given, side="test").counts() == {"ant": 1}
    rows.save_to_disk(str(tmp_path / "saved"))
    assert made_out(tmp_path / "saved").counts() == {"zebra": 1, "ant": 2}


def test_torch_dataset() -> None:
    images = pictures("x", 3)
    found = made_out(
        Pairs([(images[0], 2), (Image.fromarray(images[1]), 0), (images[2], 2)], ["z", "y", "a"])
    )
    assert found.names == ("z", "a")
    assert found.images.labels.tolist() == [1, 0, 1]
    assert np.array_equal(np.asarray(found.images.image(1)), images[1])
    assert made_out(Pairs([(images[0], 10), (images[1], 9)])).names == ("9", "10")
    assert made_out(Pairs([(images[0], "owl"), (images[1], "cat")])).names == ("cat", "owl")


@pytest.mark.parametrize("labels", [[3, 20, 3], np.array([3, 20, 3]), torch.tensor([3, 20, 3])])
def test_images_and_labels(labels: Any) -> None:
    images = np.stack(pictures("x", 3))
    for found in (made_out(images, labels), made_out((list(images), labels))):
        assert found.counts() == {"3": 2, "20": 1}
        assert np.array_equal(np.asarray(found.images.image(1)), images[1])


def test_files_and_labels(tmp_path: Path) -> None:
    files = write(tmp_path, "a", "b")
    assert made_out(files, ["x", "x", "y", "y"]).counts() == {"x": 2, "y": 2}
    with Image.open(files[1]) as opened:
        mixed = [str(files[0]), opened, pictures("a")[0]]
        assert made_out(mixed, ["x", "y", "y"]).counts() == {"x": 1, "y": 2}


def test_known_stream() -> None:
    assert len(made_out("digits").names) == 10


def test_unreadable_images_are_listed_or_left_out(tmp_path: Path) -> None:
    files = write(tmp_path, "a", "b")
    files[0].write_bytes(b"no image")
    files[3].write_bytes(files[3].read_bytes()[:60])
    with pytest.raises(UnreadableImageError, match=r"(?s)2 images.*a/0\.png.*b/1\.png"):
        made_out(tmp_path)
    left = made_out(tmp_path, skip_unreadable=True)
    assert left.counts() == {"a": 1, "b": 1}
    assert [fault.partition(":")[0] for fault in left.skipped] == [str(files[0]), str(files[3])]


IMAGES, NAMES = lesson("a", "b", count=1)


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (3.5, None, "float is nothing to take labelled images from"),
        (IMAGES, None, r"list is nothing.*as learn\(images, labels\)"),
        (None, None, "NoneType"),
        ("nowhere/at/all", None, "does not exist"),
        (IMAGES, NAMES[:1], "1 labels were given for 2 images"),
        (IMAGES, "ab", "Labels come as a list"),
        (IMAGES, 3, "Labels come as a list"),
        (IMAGES, ["a", ""], "label of image 1 is ''"),
        (IMAGES, ["a", None], "label of image 1 is missing"),
        (IMAGES, [1, float("nan")], "label of image 1 is missing"),
        (IMAGES, [True, False], "label of image 0 is the truth value"),
        (IMAGES, [1, "1"], "would be the same class"),
        ([], [], "There is no image to take"),
        ("cat.jpg", ["cat"], r"Type \['cat\.jpg'\]"),
        (IMAGES[0][..., 0], ["cat"], r"one array of shape \(32, 32\).*\[image\]"),
        ([IMAGES[0] / 255], ["cat"], r"(?s)image 0: This array is no picture: float64.*uint8"),
        ([object()], ["cat"], "no picture but object"),
        ([np.zeros((3, 0), np.uint8)], ["cat"], r"of shape \(3, 0\)"),
        (
            Pairs([(IMAGES[0], 0), (IMAGES[1], 1)], ["cat", "cat"]),
            None,
            "Two classes are called 'cat'",
        ),
        (Pairs([(IMAGES[0], 2)], ["cat", "dog"]), None, "numbered 0 … 1"),
        (Pairs([(torch.zeros(3, 8, 8), 0)], ["cat"]), None, "no picture but Tensor"),
        (Pairs([(IMAGES[0],)]), None, "not a pair of image and label"),  # type: ignore[list-item]
        (pd.DataFrame({"photo": ["a.jpg"], "label": ["a"]}), None, "no column called path"),
    ],
)
def test_what_cannot_be_made_out_is_refused(data: Any, labels: Any, message: str) -> None:
    with pytest.raises(PerdureError, match=message):
        made_out(data, labels)
