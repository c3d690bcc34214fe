from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perdure.errors import ConfigError, StreamError, UnknownNameError
from perdure.streams import SOURCES, ArrayImages, Source
from tests.streams.made import load


def tiny_set(labels: list[int]) -> ArrayImages:
    pixels = np.arange(len(labels) * 4, dtype=np.uint8).reshape(-1, 2, 2)
    return ArrayImages(
        pixels, np.array(labels, np.int64), [f"tiny[{i}]" for i in range(len(labels))]
    )


def test_the_registry_knows_every_source() -> None:
    assert list(SOURCES) == [
        "cifar100",
        "cub200",
        "digits",
        "domainnet",
        "domainnet200",
        "fashion_mnist",
        "folder",
        "huggingface",
        "imagenet_a",
        "imagenet_r",
        "shards",
        "synthetic",
        "table",
    ]
    with pytest.raises(
        UnknownNameError, match=r"Unknown data set 'digit'. Did you mean 'digits'\?"
    ):
        load("digit")


def test_digits_hold_out_the_last_thirty_per_cent_of_each_class() -> None:
    source = load("digits")
    assert source.class_names == tuple("0123456789")
    assert len(source.train) == 1262
    assert np.bincount(source.test.labels).tolist() == [53, 54, 53, 54, 54, 54, 54, 53, 52, 54]
    numbers = {
        split: np.array([int(name[len("digits[") : -1]) for name in images.names])
        for split, images in (("train", source.train), ("test", source.test))
    }
    assert sorted([*numbers["train"], *numbers["test"]]) == list(range(1797))
    for label in range(10):
        last_train = numbers["train"][source.train.labels == label].max()
        assert last_train < numbers["test"][source.test.labels == label].min()


def test_digits_are_scaled_to_bytes() -> None:
    source = load("digits")
    image = source.train.image(0)
    assert (source.train.names[0], image.mode, image.size) == ("digits[0]", "RGB", (8, 8))
    # The first image of the data set starts with the values 0 0 5 13 9 1 0 0 of 16.
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


def test_the_test_images_do_not_depend_on_the_seed() -> None:
    names = [load("digits", seed=seed, test_images_per_class=5).test.names for seed in (0, 1)]
    assert len(names[0]) == 50
    assert names[0] == names[1]


def test_the_cap_on_training_images_is_drawn_from_the_seed() -> None:
    full = load("digits")
    one = load("digits", seed=1, images_per_class=20)
    again = load("digits", seed=1, images_per_class=20)
    other = load("digits", seed=2, images_per_class=20)
    assert np.bincount(one.train.labels).tolist() == [20] * 10
    assert one.train.names == again.train.names
    assert one.train.names != other.train.names
    assert len(one.test) == len(full.test)
    kept = [full.train.names.index(name) for name in one.train.names]
    assert kept == sorted(kept)
    assert np.array_equal(np.asarray(one.train.image(3)), np.asarray(full.train.image(kept[3])))
    fewer = load("digits", seed=1, images_per_class=10)
    assert set(fewer.train.names) < set(one.train.names)


def test_synthetic_images_are_a_function_of_their_counters() -> None:
    few = load("synthetic", "3x32", seed=3, images_per_class=2)
    many = load("synthetic", "4x32", seed=3, images_per_class=5)
    assert (len(few.train), len(many.train), len(many.test)) == (6, 20, 64)
    for label in range(3):
        for number in range(2):
            assert few.train.image(2 * label + number) == many.train.image(5 * label + number)
    other = load("synthetic", "3x32", seed=4, images_per_class=2)
    assert all(few.train.image(index) != other.train.image(index) for index in range(6))
    assert few.train.image(0) != few.train.image(1)
    assert few.train.image(0) != few.test.image(0)


def test_synthetic_sizes_are_named() -> None:
    source = load("synthetic", "11x12", test_images_per_class=1)
    assert source.train.image(0).size == (12, 12)
    assert source.class_names[-1] == "pattern_10"
    assert np.bincount(source.train.labels).tolist() == [32] * 11


def test_synthetic_classes_can_be_told_apart_by_their_colours() -> None:
    source = load("synthetic")

    def colours(images: object) -> np.ndarray:
        assert isinstance(images, ArrayImages)
        pixels = images.pixels.reshape(len(images), -1, 3) / 255
        return np.concatenate([pixels.mean(1), pixels.std(1)], axis=1)

    train, test = colours(source.train), colours(source.test)
    means = np.stack([train[source.train.labels == label].mean(0) for label in range(10)])
    nearest = ((test[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (nearest == source.test.labels).mean() > 0.5


@pytest.mark.parametrize(
    ("place", "keys", "unused"),
    [
        ("/data", {}, "'/data' in data=digits:/data. Type data=digits."),
        (None, {"test_fraction": 0.5}, "test_fraction=0.5"),
        (None, {"label_column": "kind"}, "label_column=kind"),
    ],
)
def test_a_key_without_a_use_is_refused(
    place: str | None, keys: dict[str, Any], unused: str
) -> None:
    with pytest.raises(ConfigError, match=f"Data set 'digits' has no use for {unused}"):
        load("digits", place, **keys)


@pytest.mark.parametrize("place", ["/data", "4", "1x32", "4x1", "4x-2"])
def test_what_is_no_size_of_drawn_images(place: str) -> None:
    with pytest.raises(ConfigError, match=f"data=synthetic:{place}: .* as data=synthetic:10x32"):
        load("synthetic", place)


def test_a_source_is_checked() -> None:
    good = tiny_set([0, 1])
    with pytest.raises(StreamError, match="no test image for 'b'"):
        Source("mine", ("a", "b"), good, tiny_set([0, 0]))
    with pytest.raises(StreamError, match="no training image for 'a'"):
        Source("mine", ("a", "b"), tiny_set([1]), good)
    with pytest.raises(StreamError, match="test labels run from 0 to 2; with 2 classes"):
        Source("mine", ("a", "b"), good, tiny_set([0, 1, 2]))
    with pytest.raises(StreamError, match="two classes are called 'a'"):
        Source("mine", ("a", "a"), good, good)
    with pytest.raises(StreamError, match="has 1 classes, and a stream needs two"):
        Source("mine", ("a",), tiny_set([0]), tiny_set([0]))


def test_arrays_are_checked() -> None:
    labels = np.zeros(2, np.int64)
    colour = ArrayImages(np.full((2, 3, 4, 3), 7, np.uint8), labels, ["a", "b"])
    assert (colour.image(1).size, colour.image(1).getpixel((0, 0))) == ((4, 3), (7, 7, 7))
    for shape in ((2, 3), (2, 3, 4, 4), (1, 3, 4), (2, 0, 4)):
        with pytest.raises(StreamError, match="shape"):
            ArrayImages(np.zeros(shape, np.uint8), labels, ["a", "b"])
    with pytest.raises(StreamError, match="2 labels were given for 1 images"):
        ArrayImages(np.zeros((1, 3, 4), np.uint8), labels, ["a"])
