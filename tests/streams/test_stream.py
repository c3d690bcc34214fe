from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from perdure.errors import StreamError
from perdure.streams import (
    ArrayImages,
    Source,
    Stream,
    Subset,
)
from perdure.types import Task
from tests.streams.conftest import WriteFolder
from tests.streams.made import cut_up


def digits(tasks: str = "B4-Inc3", validation_fraction: float = 0.0, seed: int = 2024) -> Stream:
    return cut_up(tasks=tasks, seed=seed, validation_fraction=validation_fraction)


def images_of(labels: list[int]) -> ArrayImages:
    return ArrayImages(
        np.zeros((len(labels), 2, 2), np.uint8),
        np.array(labels, np.int64),
        [f"image[{index}]" for index in range(len(labels))],
    )


def test_labels_follow_the_order_of_arrival() -> None:
    stream = digits()
    assert stream.class_order == (3, 5, 2, 9, 0, 7, 4, 1, 6, 8)
    assert stream.class_names == ("3", "5", "2", "9", "0", "7", "4", "1", "6", "8")
    assert stream.sizes == (4, 3, 3)
    assert [data.task for data in stream.tasks] == [
        Task(0, (0, 1, 2, 3), ("3", "5", "2", "9"), 4),
        Task(1, (4, 5, 6), ("0", "7", "4"), 7),
        Task(2, (7, 8, 9), ("1", "6", "8"), 10),
    ]
    for data in stream.tasks:
        for subset in (data.train, data.test):
            assert set(subset.labels.tolist()) == set(data.task.classes)
            source_labels = subset.images.labels[subset.indices]
            mapped = [stream.class_order[label] for label in subset.labels.tolist()]
            assert mapped == source_labels.tolist()
            assert subset.labels.dtype == torch.int64


def test_every_image_is_in_one_task_in_data_set_order() -> None:
    stream = digits()
    for name in ("train", "test"):
        subsets: list[Subset] = [getattr(data, name) for data in stream.tasks]
        everything = np.concatenate([subset.indices for subset in subsets])
        assert sorted(everything) == list(range(len(subsets[0].images)))
        for subset in subsets:
            assert np.all(np.diff(subset.indices) > 0)
            assert len(subset) == len(subset.labels) == len(subset.names)
    names = [set(data.train.names) | set(data.test.names) for data in stream.tasks]
    assert not names[0] & names[1]
    assert stream.tasks[0].val is None


@pytest.mark.parametrize(("fraction", "share"), [(0.25, 0.25), (0.5, 0.5), (0.001, 1 / 127)])
def test_validation_images_are_kept_from_training(fraction: float, share: float) -> None:
    whole, stream = digits(), digits(validation_fraction=fraction)
    for with_all, data in zip(whole.tasks, stream.tasks, strict=True):
        assert data.val is not None
        assert not set(data.val.names) & set(data.train.names)
        assert set(data.val.names) | set(data.train.names) == set(with_all.train.names)
        assert data.test.names == with_all.test.names
        assert np.all(np.diff(data.val.indices) > 0)
        for label in data.task.classes:
            total = int((with_all.train.labels == label).sum())
            assert abs(int((data.val.labels == label).sum()) - share * total) <= 0.6


def test_the_validation_split_follows_the_seed_alone() -> None:
    def kept(tasks: str, seed: int) -> set[str]:
        data = digits(tasks, 0.25, seed).upto(0 if tasks == "10" else 4)
        assert data.val is not None
        return set(data.val.names)

    assert kept("10", 1) == kept("B0-Inc2", 1)
    assert kept("10", 1) != kept("10", 2)


def test_upto_is_the_union_of_tasks() -> None:
    stream = digits(validation_fraction=0.25)
    union = stream.upto(1)
    assert union.task == Task(1, (0, 1, 2, 3, 4, 5, 6), ("3", "5", "2", "9", "0", "7", "4"), 7)
    assert union.val is not None
    for name in ("train", "val", "test"):
        subset: Subset = getattr(union, name)
        parts: list[Subset] = [getattr(data, name) for data in stream.tasks[:2]]
        label_of = {
            key: label
            for part in parts
            for key, label in zip(part.names, part.labels.tolist(), strict=True)
        }
        assert np.all(np.diff(subset.indices) > 0)
        assert dict(zip(subset.names, subset.labels.tolist(), strict=True)) == label_of
    assert stream.upto(0).train.names == stream.tasks[0].train.names
    with pytest.raises(IndexError, match="tasks 0 … 2, and no 3"):
        stream.upto(3)


def test_the_union_of_all_tasks_is_the_whole_set() -> None:
    stream = digits()
    union = stream.upto(len(stream.tasks) - 1)
    assert union.task.classes == tuple(range(10))
    assert (len(union.train), len(union.test)) == (1262, 535)
    # One set of images serves both, so what was computed for one is there for the other.
    assert union.train.images is stream.tasks[0].train.images


def test_a_stream_tells_what_a_user_should_know() -> None:
    assert digits("B0-Inc5").notes == ()
    assert digits("B0-Inc3").notes == ("The last task has 1 class, the one before it 3.",)
    assert digits("B0-Inc4").notes == ("The last task has 2 classes, the one before it 4.",)


def test_skipped_images_are_told(tmp_path: Path, write_folder: WriteFolder) -> None:
    write_folder(tmp_path, {"cat": 5, "dog": 5})
    bad = tmp_path / "cat" / "002.png"
    bad.write_bytes(b"")
    stream = cut_up("folder", tmp_path, tasks="1+1", skip_unreadable=True)
    assert stream.skipped == (f"{bad}: the file is empty",)
    assert stream.notes == (f"1 unreadable image was left out, first: {bad}: the file is empty",)


def test_the_seed_of_the_stream_is_the_seed_of_its_source() -> None:
    def first_image(seed: int) -> bytes:
        caps = {"images_per_class": 2, "test_images_per_class": 1}
        stream = cut_up("synthetic", class_order="sorted", seed=seed, **caps)
        return stream.tasks[0].train.images.image(0).tobytes()

    assert first_image(1) == first_image(1)
    assert first_image(1) != first_image(2)


def test_a_source_can_be_handed_over() -> None:
    source = Source("mine", ("a", "b", "c"), images_of([2, 0, 1, 0]), images_of([1, 2, 0]))
    stream = cut_up(tasks="2+1", class_order="nsp2", seed=0, source=source)
    assert sorted(stream.class_order) == [0, 1, 2]
    assert stream.tasks[0].train.images is source.train
    with pytest.raises(StreamError, match="class 'b' has one training image"):
        cut_up(
            tasks="1+1",
            validation_fraction=0.5,
            source=Source("mine", ("a", "b"), images_of([0, 1, 0]), images_of([0, 1])),
        )


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
def test_validation_leaves_something_to_train_on(fraction: float) -> None:
    source = Source("mine", ("a", "b"), images_of([0, 1, 0, 1]), images_of([0, 1]))
    stream = cut_up(tasks="1+1", validation_fraction=fraction, source=source)
    for data in stream.tasks:
        assert data.val is not None
        assert (len(data.train), len(data.val)) == (1, 1)


def test_sizes_must_fit() -> None:
    with pytest.raises(StreamError, match="add up to 9"):
        digits("4+5")
