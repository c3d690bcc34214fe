from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from perdure.errors import ConfigError, UnreadableImageError
from perdure.randomness import permutation
from perdure.streams import (
    ArrayImages,
    Batch,
    ImageSet,
    Stream,
    Subset,
    augment,
    batch_count,
    batch_order,
    batches,
    build_transform,
    loader,
)
from tests.streams.conftest import WriteFolder
from tests.streams.made import cut_up


def synthetic() -> Stream:
    return cut_up("synthetic", "3x12", tasks="2+1", images_per_class=5)


def load(subset: Subset, batch_size: int = 4, **given: Any) -> list[Batch]:
    options = {
        "transform": "nsp2",
        "side": "train",
        "img_size": 8,
        "seed": 3,
        "task": 1,
        "epoch": 2,
        **given,
    }
    return list(batches(subset, batch_size, **options))


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images)
        and torch.equal(a.labels, b.labels)
        and torch.equal(a.positions, b.positions)
        for a, b in zip(first, second, strict=True)
    )


def by_position(found: list[Batch]) -> dict[int, Tensor]:
    return {
        int(position): image
        for batch in found
        for position, image in zip(batch.positions, batch.images, strict=True)
    }


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images that were asked of any in-memory set, in order."""
    seen: list[int] = []
    original = ArrayImages.image

    def spy(self: ArrayImages, index: int) -> Image.Image:
        seen.append(index)
        return original(self, index)

    monkeypatch.setattr(ArrayImages, "image", spy)
    return seen


@pytest.fixture(scope="module")
def train() -> Subset:
    return synthetic().tasks[0].train


def test_batch_count() -> None:
    for count in range(9):
        chunks = [range(count)[start : start + 3] for start in range(0, count, 3)]
        assert batch_count(count, 3) == len(chunks)
    with pytest.raises(ConfigError, match="batch_size=0 is too small"):
        batch_count(5, 0)


def test_training_order_is_drawn_per_epoch(train: Subset) -> None:
    found = load(train)
    assert [len(batch.positions) for batch in found] == [4, 4, 2]
    positions = torch.cat([batch.positions for batch in found]).tolist()
    assert positions == permutation(10, 3, "order", 1, 2)
    assert torch.equal(torch.cat([batch.labels for batch in found]), train.labels[positions])
    for changed in ({"seed": 4}, {"task": 2}, {"epoch": 3}):
        other = torch.cat([batch.positions for batch in load(train, **changed)]).tolist()
        assert sorted(other) == list(range(10))
        assert other != positions


def test_evaluation_order_is_data_set_order(train: Subset) -> None:
    found = load(train, side="test", epoch=None)
    assert torch.cat([batch.positions for batch in found]).tolist() == list(range(10))
    assert torch.equal(torch.cat([batch.labels for batch in found]), train.labels)
    transform = build_transform("nsp2", 8)
    for position, pixels in by_position(found).items():
        image = train.images.image(int(train.indices[position]))
        assert torch.equal(pixels, transform.test(image))


def test_images_are_augmented_by_their_own_counters() -> None:
    train = synthetic().tasks[1].train
    found = by_position(load(train))
    assert len(found) == 5
    for position, pixels in found.items():
        index = int(train.indices[position])
        expected = augment(
            build_transform("nsp2", 8),
            train.images.image(index),
            seed=3,
            task=1,
            epoch=2,
            index=index,
        )
        assert pixels.shape == (3, 8, 8)
        assert torch.equal(pixels, expected)


def test_augmentation_depends_on_neither_batch_nor_subset(train: Subset) -> None:
    reference = by_position(load(train))
    for size in (1, 3, 100):
        found = by_position(load(train, size))
        assert all(torch.equal(found[position], reference[position]) for position in reference)
    part = Subset(train.images, train.indices[4:7], train.labels[4:7])
    for position, pixels in by_position(load(part)).items():
        assert torch.equal(pixels, reference[position + 4])


def test_images_differ_between_epochs(train: Subset) -> None:
    first, second = by_position(load(train, epoch=0)), by_position(load(train, epoch=1))
    assert sum(torch.equal(first[position], second[position]) for position in first) <= 1


@pytest.mark.parametrize("transform", ["nsp2", "plain"])
def test_start_step_leaves_out_batches_without_touching_them(
    transform: str, touched: list[int]
) -> None:
    train = synthetic().tasks[0].train
    whole = load(train, transform=transform)
    assert len(whole) == 3
    for start in range(len(whole) + 2):
        fresh = synthetic().tasks[0].train
        touched.clear()
        rest = load(fresh, transform=transform, start_step=start)
        assert equal(rest, whole[start:])
        expected = [int(fresh.indices[p]) for batch in whole[start:] for p in batch.positions]
        assert touched == expected


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"start_step": 1},
        {"transform": "plain"},
        {"side": "test", "epoch": None},
    ],
)
def test_results_do_not_depend_on_workers(workers: int, given: dict[str, Any]) -> None:
    alone = load(synthetic().tasks[0].train, **given)
    assert equal(load(synthetic().tasks[0].train, workers=workers, **given), alone)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("transform", ["nsp2", "plain"])
def test_several_epochs_are_those_epochs_one_after_another(workers: int, transform: str) -> None:
    given = {"transform": transform, "workers": workers}
    train = synthetic().tasks[0].train
    singly = [
        batch for epoch in (1, 2, 3) for batch in load(train, epoch=epoch, transform=transform)
    ]
    together = load(synthetic().tasks[0].train, epoch=range(1, 4), **given)
    assert equal(together, singly)
    # A run that was interrupted in the first of them.
    resumed = load(synthetic().tasks[0].train, epoch=range(1, 4), start_step=2, **given)
    assert equal(resumed, singly[2:])
    assert load(train, epoch=range(3, 3), **given) == []


@pytest.mark.parametrize(("transform", "started"), [("nsp2", 1), ("plain", 2)])
def test_workers_start_once_for_all_epochs(
    monkeypatch: pytest.MonkeyPatch, transform: str, started: int
) -> None:
    made: list[int] = []

    class Spy(DataLoader[Any]):
        def __init__(self, *args: Any, **options: Any) -> None:
            made.append(options["num_workers"])
            super().__init__(*args, **options)

    monkeypatch.setattr(loader, "DataLoader", Spy)
    train = synthetic().tasks[0].train
    # Two of three batches at first: what is kept afterwards is only taken from memory.
    load(train, transform=transform, epoch=range(4), workers=1, start_step=1)
    assert made == [1] * started


def test_the_order_is_known_without_reading(touched: list[int]) -> None:
    train = synthetic().tasks[0].train
    given: dict[str, Any] = {"seed": 3, "task": 1, "epoch": range(2, 4), "start_step": 1}
    found = list(batch_order(len(train), 4, **given))
    assert touched == []
    expected = load(train, epoch=range(2, 4), start_step=1)
    assert [chunk.positions for chunk in found] == [b.positions.tolist() for b in expected]
    assert [chunk.epoch for chunk in found] == [2, 2, 3, 3, 3]


def test_torchs_generator_is_left_alone(train: Subset) -> None:
    state = torch.get_rng_state()
    load(train)
    load(train, workers=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_deterministic_transform_is_computed_once(touched: list[int]) -> None:
    stream = synthetic()
    train = stream.tasks[0].train
    first = load(train, transform="plain", epoch=0)
    assert len(touched) == 10
    again = load(train, transform="plain", epoch=1)
    evaluated = load(train, transform="plain", side="test", epoch=None)
    assert len(touched) == 10
    kept = by_position(first)
    for found in (by_position(again), by_position(evaluated)):
        assert all(torch.equal(found[position], kept[position]) for position in kept)
    # The same set in another task or stream: only what is new is computed.
    load(stream.upto(1).train, transform="plain")
    assert len(touched) == 15
    load(train, transform="plain", img_size=9)
    load(train, side="test", epoch=None)
    assert len(touched) == 35
    load(train, side="test", epoch=None)
    assert len(touched) == 35
    load(train)
    load(train)
    assert len(touched) == 55


def test_what_workers_compute_is_kept(touched: list[int]) -> None:
    train = synthetic().tasks[0].train
    first = load(train, transform="plain", workers=2, start_step=1)
    assert touched == []
    kept = train.images.transformed("plain", "test", 8)
    assert kept is not None
    assert int(kept.filled.sum()) == 6
    second = load(train, transform="plain")
    assert len(touched) == 4
    assert equal(second[1:], first)


def test_a_kept_image_is_not_changed_by_its_user() -> None:
    train = synthetic().tasks[0].train
    first = load(train, transform="plain")
    expected = by_position([Batch(b.images.clone(), b.labels, b.positions) for b in first])
    for batch in first:
        batch.images.zero_()
    for batch in load(train, transform="plain"):
        batch.images.zero_()
    found = by_position(load(train, transform="plain"))
    assert all(torch.equal(found[position], expected[position]) for position in expected)


def test_a_pickled_set_leaves_what_was_computed_behind(touched: list[int]) -> None:
    train = synthetic().tasks[0].train
    first = load(train, transform="plain")
    copy = pickle.loads(pickle.dumps(train))
    assert len(pickle.dumps(train)) < 10_000
    assert equal(load(copy, transform="plain"), first)
    assert len(touched) == 20


def test_the_memory_budget_is_kept(touched: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    # 15 training images of 3 x 8 x 8 bytes.
    enough = 15 * 3 * 8 * 8
    monkeypatch.setattr(ImageSet, "memory_budget", enough)
    train = synthetic().tasks[0].train
    load(train, transform="plain")
    load(train, transform="plain")
    assert len(touched) == 10
    load(train, transform="nsp2_cifar", side="test")
    load(train, transform="nsp2_cifar", side="test")
    assert len(touched) == 30
    touched.clear()
    monkeypatch.setattr(ImageSet, "memory_budget", enough - 1)
    short = synthetic().tasks[0].train
    without = load(short, transform="plain")
    assert equal(load(short, transform="plain"), without)
    assert len(touched) == 20
    assert equal(load(train, transform="plain"), without)


def test_an_empty_subset_gives_nothing(train: Subset) -> None:
    empty = Subset(train.images, train.indices[:0], train.labels[:0])
    assert load(empty) == []
    assert load(empty, workers=2) == []
    assert load(empty, side="test", epoch=None) == []


def test_arguments_are_checked_before_the_first_batch(train: Subset) -> None:
    given: dict[str, Any] = {
        "transform": "nsp2",
        "side": "train",
        "img_size": 8,
        "seed": 0,
        "task": 0,
    }
    with pytest.raises(ConfigError, match="transform 'nsp2' draws at random and needs an epoch"):
        batches(train, 4, epoch=None, **given)
    with pytest.raises(ConfigError, match="batch_size=0"):
        batches(train, 0, epoch=0, **given)
    with pytest.raises(ConfigError, match="workers=-1 is negative"):
        batches(train, 4, epoch=0, workers=-1, **given)
    with pytest.raises(ConfigError, match="start_step=-1 is negative"):
        batches(train, 4, epoch=0, start_step=-1, **given)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_broke_is_named_when_its_batch_is_due(
    tmp_path: Path, write_folder: WriteFolder, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageSet, "memory_budget", 0)
    write_folder(tmp_path, {"cat": 8, "dog": 8})
    stream = cut_up("folder", tmp_path, tasks="1+1", class_order="sorted")
    train = stream.tasks[0].train
    path = Path(train.names[4])
    path.write_bytes(path.read_bytes()[:200])
    found = batches(
        train,
        3,
        transform="plain",
        side="test",
        img_size=8,
        seed=0,
        task=0,
        epoch=None,
        workers=workers,
    )
    assert next(found).positions.tolist() == [0, 1, 2]
    with pytest.raises(UnreadableImageError) as caught:
        next(found)
    assert str(caught.value).startswith("1 image cannot be read:\n  " + str(path))
    assert "Traceback" not in str(caught.value)


def test_file_images_are_loaded_like_arrays(
    tmp_path: Path, write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, {"cat": 6, "dog": 6})
    found = []
    for budget in (2**30, 0):
        monkeypatch.setattr(ImageSet, "memory_budget", budget)
        stream = cut_up("folder", tmp_path, tasks="1+1")
        train = stream.tasks[1].train
        found.append(load(train))
        for position, pixels in by_position(load(train, transform="plain")).items():
            image = Image.open(train.names[position])
            assert np.array_equal(pixels, build_transform("plain", 8).test(image))
    assert equal(*found)
