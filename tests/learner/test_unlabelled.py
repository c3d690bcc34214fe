"""`predict` takes what `learn` takes, in order, and reads no labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from perdure.errors import StreamError, UnreadableImageError
from perdure.learner import ContinualClassifier
from perdure.learner.labelled import gather
from perdure.learner.unlabelled import pictures_to_predict
from perdure.streams import StreamConfig
from tests.tiny import pictures

PIXELS = [pictures(name, 1)[0] for name in "abcd"]


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Two folders with two photos each."""
    files = [tmp_path / "p" / name / f"{k}.png" for name in ("x", "y") for k in (0, 1)]
    for file, pixels in zip(files, PIXELS, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return files


def shown(data: Any, **keys: Any) -> list[list[int]]:
    found = pictures_to_predict(data, StreamConfig(**keys))
    return [np.asarray(found.image(place)).ravel().tolist() for place in range(len(found))]


EXPECTED = [pixels.ravel().tolist() for pixels in PIXELS]


def test_whatever_learn_takes(photos: list[Path], tmp_path: Path) -> None:
    texts = [str(file) for file in photos]
    frame = pd.DataFrame({"path": texts, "what": list("aabb")})
    frame.to_csv(tmp_path / "t.csv", index=False)
    contents = [file.read_bytes() for file in photos]
    cells = [{"bytes": content, "path": "x.png"} for content in contents]
    kind = datasets.Features({"photo": datasets.Image()})
    rows = datasets.Dataset.from_dict({"photo": texts}, features=kind)
    given = (
        *(tmp_path / "p", str(tmp_path / "p"), tmp_path / "t.csv", frame, contents, cells),
        *(pd.DataFrame({"image": cells}), rows, ImageFolder(tmp_path / "p")),
        datasets.Dataset.from_dict({"image": cells}),
    )
    for data in given:
        assert shown(data) == EXPECTED, type(data)
    numbered = pd.DataFrame([[0, text] for text in texts])
    assert shown(numbered, image_column="1") == EXPECTED
    windows = frame.assign(path=[text.replace("/x/", "/x\\") for text in texts])
    assert shown(windows) == EXPECTED
    with pytest.raises(StreamError, match=r"splits train, test\. Name one: predict\(data\['test'"):
        shown(datasets.DatasetDict({"train": rows, "test": rows}))


def test_one_call_answers_for_all(learned: ContinualClassifier, photos: list[Path]) -> None:
    assert np.array_equal(learned.predict(photos[0].parents[1]), learned.predict(PIXELS))


def test_a_damaged_item_is_named(photos: list[Path], learned: ContinualClassifier) -> None:
    photos[1].write_bytes(b"\x89PNG broken")
    with pytest.raises(UnreadableImageError, match=r"ImageFolder\[1\]: UnidentifiedImageError"):
        learned.predict(ImageFolder(photos[0].parents[1]))
    with pytest.raises(UnreadableImageError, match=r"x/1\.png"):
        learned.predict(photos[0].parents[1])

    class Tensors(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, place: int) -> Any:
            return torch.zeros(3)

    with pytest.raises(UnreadableImageError, match=r"Tensors\[0\]: .*no picture but Tensor"):
        learned.predict(Tensors())


def test_columns_of_a_frame(photos: list[Path]) -> None:
    texts = [str(file) for file in photos]
    twice = pd.DataFrame([[t, "a", "b"] for t in texts], columns=["path", "label", "label"])
    with pytest.raises(StreamError, match=r"DataFrame has 2 columns called 'label', at 2 and 3"):
        gather(twice, None, "train", StreamConfig(), 0)
    chosen = gather(twice, None, "train", StreamConfig(label_column="3"), 0)
    assert chosen.counts() == {"b": 4}
    unnamed = pd.DataFrame([[t, "a"] for t in texts])
    with pytest.raises(StreamError, match=r"It has: 0, 1\..*image_column=0"):
        gather(unnamed, None, "train", StreamConfig(label_column="1"), 0)
    taken = gather(unnamed, None, "train", StreamConfig(image_column="0", label_column="1"), 0)
    assert taken.counts() == {"a": 4}
    with pytest.raises(StreamError, match="no file in row 1 of the DataFrame"):
        gather(
            pd.DataFrame({"path": [texts[0], " "], "label": "a"}), None, "train", StreamConfig(), 0
        )
    cells = pd.DataFrame({"image": [photos[0].read_bytes(), b"none"], "label": "a"})
    with pytest.raises(UnreadableImageError, match="row 1: no image of a known format"):
        gather(cells, None, "train", StreamConfig(), 0)


def test_damaged_pictures_of_a_mixed_list(photos: list[Path]) -> None:
    photos[0].write_bytes(b"\x89PNG broken")
    photos[1].write_bytes(photos[1].read_bytes()[:90])
    mixed = [str(photos[0]), Image.fromarray(PIXELS[2]), photos[1], b"none", PIXELS[3]]
    labels = ["a", "a", "b", "b", "c"]
    left = gather(mixed, labels, "train", StreamConfig(skip_unreadable=True), 0)
    assert left.counts() == {"a": 1, "c": 1}
    places = [str(photos[0]), str(photos[1]), "image 3"]
    assert [text.partition(":")[0] for text in left.skipped] == places
    with pytest.raises(UnreadableImageError, match=r"(?s)2 images cannot be read.*0\.png.*image 3"):
        gather(mixed, labels, "train", StreamConfig(), 0)
    with pytest.raises(StreamError, match=r"no image to take\. All 1 were unreadable"):
        gather([b"x"], ["a"], "train", StreamConfig(skip_unreadable=True), 0)


def test_a_report_says_what_it_counts(photos: list[Path], tmp_path: Path) -> None:
    def part(data: Any) -> str:
        return gather(data, None, "test", StreamConfig(), 0).part

    everything = "all images: nothing says which are for testing"
    lines = [f"{file},{file.parent.name}" for file in photos]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *lines]))
    assert part(tmp_path / "p") == part(tmp_path / "t.csv") == everything
    told = [f"{line},{'test' if '/0.png' in line else 'train'}" for line in lines]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *told]))
    assert part(tmp_path / "t.csv") == part("digits") == "the test images"
    (tmp_path / "q").mkdir()
    for side in ("train", "test"):
        (tmp_path / "q" / side).symlink_to(tmp_path / "p")
    assert part(tmp_path / "q") == "the test images"
    assert part((PIXELS, list("abcd"))) == ""
