"""Labels as data sets have them: the names that items get, and the type that comes back."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset, random_split
from torchvision.datasets import ImageFolder

from perdure import experiment
from perdure.errors import StreamError, UnreadableImageError
from perdure.learner import ContinualClassifier
from perdure.learner.labelled import LabelledImages, gather
from perdure.streams import StreamConfig
from tests.tiny import RUN, classifier, small_config

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


class Pairs(Dataset[Any]):
    """A data set of the given labels, with names of its classes or without."""

    def __init__(self, labels: Sequence[Any], classes: Any = None) -> None:
        self.labels = labels
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        return Image.fromarray(PICTURES[index]), self.labels[index]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images each of ant, bee and cow."""
    for place, name in enumerate(("ant", "bee", "cow")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(2):
            Image.fromarray(PICTURES[2 * place + number]).save(folder / f"{number}.png")
    return tmp_path / "photos"


def taken(data: Any, labels: Any = None, **keys: Any) -> LabelledImages:
    return gather(data, labels, "train", StreamConfig(**keys), 0)


def test_labels_are_those_of_the_items(photos: Path) -> None:
    class Swapped(ImageFolder):
        def __getitem__(self, index: int) -> Any:
            image, label = super().__getitem__(index)
            return image, {0: 2, 1: 1, 2: 0}[label]

    merged = ImageFolder(photos, target_transform=[0, 0, 2].__getitem__)
    assert taken(merged).counts() == {"ant": 4, "cow": 2}
    swapped = taken(Swapped(photos))
    assert [swapped.names[label] for label in swapped.images.labels] == [
        *["cow"] * 2,
        *["bee"] * 2,
        *["ant"] * 2,
    ]
    named = ImageFolder(photos, target_transform=["x", "y", "z"].__getitem__)
    assert taken(named).names == ("x", "y", "z")


def test_wrappers_keep_the_names_of_the_data_set_within(photos: Path) -> None:
    whole = ImageFolder(photos)
    assert taken(Subset(whole, [4, 0])).counts() == {"ant": 1, "cow": 1}
    parts = random_split(whole, [3, 3], torch.Generator().manual_seed(0))
    assert {name for part in parts for name in taken(part).names} == {"ant", "bee", "cow"}
    other = Pairs([0, 1], ["cow", "yak"])
    joined = ConcatDataset([Subset(whole, [0, 5]), other])
    assert taken(joined).counts() == {"ant": 1, "cow": 2, "yak": 1}


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ([("kite",), ("goose", "wild goose")], ("kite", "goose")),
        ([("crane", "bird"), ("crane", "machine")], ("crane, bird", "crane, machine")),
    ],
)
def test_of_synonyms_the_first_is_the_name_where_it_tells_apart(
    classes: Any, names: tuple[str, ...]
) -> None:
    assert taken(Pairs([0, 1, 0, 1], classes)).names == names


@pytest.mark.parametrize("labels", [torch.eye(2), torch.zeros(4, 40), [True, False], [None, 1]])
def test_labels_that_are_no_class_are_refused_by_item(labels: Any) -> None:
    with pytest.raises(StreamError, match="item 0 of the data set"):
        taken(Pairs(labels))


def test_a_damaged_item_is_named_or_left_out(photos: Path) -> None:
    (photos / "bee" / "9.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(UnreadableImageError, match=r"ImageFolder\[4\]"):
        taken(ImageFolder(photos))
    left = taken(ImageFolder(photos), skip_unreadable=True)
    assert left.counts() == {"ant": 2, "bee": 2, "cow": 2}
    assert len(left.skipped) == 1


@pytest.mark.parametrize("whole", [[7, 3, 7, 3, 10, 3], [7.0, 3.0, 7.0, 3.0, 10.0, 3.0]])
def test_numbers_come_back_as_numbers_also_from_disk(tmp_path: Path, whole: list[Any]) -> None:
    clf = classifier().learn(PICTURES, whole)
    frame = pd.DataFrame({"image": list(PICTURES), "label": whole})
    assert classifier().learn(frame).classes_.tolist() == [3, 7, 10]
    clf.save(tmp_path / "model")
    for one in (clf, ContinualClassifier.load(tmp_path / "model")):
        assert one.classes_.tolist() == [3, 7, 10]
        assert one.predict(PICTURES).dtype.kind == "i"
        assert one.top(PICTURES[:1])[0][0].name in {"3", "7", "10"}
    clf.learn(PICTURES[:2], ["7", "eel"])
    assert clf.classes_.tolist() == ["10", "3", "7", "eel"]


def test_columns_are_sorted_whatever_arrived_first() -> None:
    clf = (
        classifier(mirrored=False)
        .learn(PICTURES[:4], ["yak", "yak", "owl", "owl"])
        .learn(PICTURES[4:], ["ant"] * 2)
    )
    assert clf.classes_.tolist() == ["ant", "owl", "yak"]
    assert [lesson.new for lesson in clf.history_.lessons] == [("owl", "yak"), ("ant",)]
    probabilities = clf.predict_proba(PICTURES)
    assert clf.predict(PICTURES).tolist() == clf.classes_[probabilities.argmax(1)].tolist()
    assert clf.predict(PICTURES[4:]).tolist() == ["ant", "ant"]


@pytest.mark.long
def test_splits_that_number_classes_differently_agree_by_name(photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.glob("*/*.png"))

    def split(order: list[str]) -> datasets.Dataset:
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=order)}
        )
        labels = [order.index(file.parent.name) for file in files]
        return datasets.Dataset.from_dict(
            {"image": [str(file) for file in files], "label": labels}, features=features
        )

    orders = {"train": ["ant", "bee", "cow"], "test": ["cow", "ant", "bee"]}
    saved = datasets.DatasetDict({name: split(order) for name, order in orders.items()})
    saved.save_to_disk(tmp_path / "saved")
    config = small_config(
        "lda", data=str(tmp_path / "saved"), tasks="3", **dict.fromkeys(_caps(), None)
    )
    finished = experiment.run(config, tmp_path / "run")
    assert finished.entries[0]["last_accuracy"] == 1


def _caps() -> list[str]:
    return [key for key in RUN if "per_class" in key]


def test_images_below_a_class_folder_are_of_that_class(photos: Path) -> None:
    inner = photos / "ant" / "2024" / "may"
    inner.mkdir(parents=True)
    Image.fromarray(PICTURES[0]).save(inner / "0.png")
    (photos / "__MACOSX").mkdir()
    (photos / "ant" / "__MACOSX").mkdir()
    (photos / "ant" / "__MACOSX" / "._0.png").write_bytes(b"x")
    assert taken(str(photos)).counts() == {"ant": 3, "bee": 2, "cow": 2}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_learning_needs_no_mode_of_the_callers(mode: Any, tmp_path: Path) -> None:
    labels = list("aabbcc")
    plain = classifier("finetune").learn(PICTURES[:4], labels[:4]).learn(PICTURES[4:], labels[4:])
    with mode():
        inside = classifier("finetune").learn(PICTURES[:4], labels[:4])
        inside.save(tmp_path / "model")
        inside = ContinualClassifier.load(tmp_path / "model").learn(PICTURES[4:], labels[4:])
        scores = inside.logits(PICTURES)
    assert torch.equal(scores, plain.logits(PICTURES))


def test_pickled_and_copied_classifiers_answer_alike() -> None:
    clf = classifier().learn(PICTURES, [0, 0, 1, 1, 2, 2])
    for again in (pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)):
        assert np.array_equal(again.predict_proba(PICTURES), clf.predict_proba(PICTURES))
        assert again.history_ == clf.history_
        assert again.learn(PICTURES[:1], [3]).classes_.tolist() == [0, 1, 2, 3]
    assert not hasattr(pickle.loads(pickle.dumps(classifier())), "_state")


def test_an_array_with_colours_is_one_picture() -> None:
    clf = classifier().learn(PICTURES, list("aabbcc"))
    assert clf.predict(PICTURES[0]).tolist() == clf.predict(PICTURES[:1]).tolist()
    assert clf.learn(PICTURES[0], ["d"]).last_lesson_.images == {"d": 1}
