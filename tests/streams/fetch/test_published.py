"""Every published data set: from small archives in its true layout to a stream."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perdure.cache import archives_dir
from perdure.errors import ConfigError, StreamError, UnreadableImageError
from perdure.streams import (
    PUBLISHED,
    SOURCES,
    FileImages,
)
from perdure.streams.decoding import decode
from perdure.streams.fetch.fetching import fetch
from perdure.streams.sources import domainnet, imagenet
from perdure.streams.sources.splits import read_split
from tests.streams.made import cut_up, load
from tests.streams.published import SPLITS, WRITERS, cub_members, offer, write_tar

BIRD_NAMES = ("Black footed Albatross", "Laysan Albatross", "Été à la mer")
EXPECTED = {
    "cifar100": (("apple", "aquarium fish", "baby"), 12, 6),
    "cub200": (BIRD_NAMES, 6, 6),
    "domainnet": (("aircraft carrier", "The Eiffel Tower", "zebra"), 36, 18),
    "domainnet200": (("pickup truck", "The Eiffel Tower", "animal migration"), 9, 6),
    "imagenet_a": (("goldfish", "lion", "acorn"), 12, 3),
    "imagenet_r": (("goldfish", "lion", "acorn"), 12, 3),
}
"""Class names, training and test images of the small archives."""
IN_FILES = sorted(set(EXPECTED) - {"cifar100"})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let small archives stand for the real ones."""
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "home"))
    for module in (imagenet, domainnet):
        monkeypatch.setattr(module, "read_split", SPLITS.__getitem__)
    for name in WRITERS:
        offer(monkeypatch, name)


def fetched(name: str) -> Path:
    WRITERS[name](archives_dir())
    return fetch(PUBLISHED[name])


def test_every_published_data_set_is_a_source() -> None:
    assert set(PUBLISHED) == set(SOURCES) - {
        "folder",
        "huggingface",
        "shards",
        "synthetic",
        "table",
    }
    assert set(WRITERS) == {name for name, known in PUBLISHED.items() if known.files}
    for name, known in PUBLISHED.items():
        assert name == known.name
        assert known.publisher
        assert known.licence


@pytest.mark.parametrize("name", EXPECTED)
def test_from_the_archive_to_a_stream(name: str, tmp_path: Path) -> None:
    assert not PUBLISHED[name].at_hand
    folder = fetched(name)
    assert PUBLISHED[name].at_hand
    assert folder == tmp_path / "home" / "data" / name
    class_names, train, test = EXPECTED[name]
    source = load(name)
    assert (source.class_names, len(source.train), len(source.test)) == (class_names, train, test)
    assert not set(source.train.names) & set(source.test.names)
    assert np.bincount(source.train.labels).tolist() == [train // 3] * 3
    stream = cut_up(name, tasks="2+1", class_order="sorted")
    assert [data.task.names for data in stream.tasks] == [class_names[:2], class_names[2:]]
    assert [len(data.test) for data in stream.tasks] == [2 * test // 3, test // 3]
    capped = load(name, images_per_class=1, test_images_per_class=1)
    assert (len(capped.train), len(capped.test)) == (3, 3)
    with pytest.raises(ConfigError, match=r"no use for test_fraction=0\.5"):
        load(name, test_fraction=0.5)


@pytest.mark.parametrize("name", IN_FILES)
def test_images_are_read_when_they_are_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(name)
    decoded: list[Path] = []

    def spy(path: Path) -> Image.Image:
        decoded.append(path)
        return decode(path)

    for module in ("file_sets", "sets"):
        monkeypatch.setattr(f"perdure.streams.images.{module}.decode", spy)
    source = load(name)
    assert not decoded
    image = source.test.image(2)
    assert (image.mode, image.size) == ("RGB", (8, 6))
    assert [str(path) for path in decoded] == [source.test.names[2]]


@pytest.mark.parametrize("name", IN_FILES)
def test_unreadable_images_are_named_or_left_out(name: str) -> None:
    fetched(name)
    source = load(name)
    bad = Path(source.train.names[1])
    bad.write_bytes(bad.read_bytes()[:100])
    with pytest.raises(UnreadableImageError, match=bad.name):
        load(name).train.image(1)
    skipped = load(name, skip_unreadable=True)
    assert len(skipped.train) == len(source.train) - 1
    assert skipped.skipped[0].startswith(f"{bad}: ")


@pytest.mark.parametrize("name", ["cub200", "domainnet", "domainnet200", "imagenet_r"])
def test_missing_images_are_counted(name: str) -> None:
    fetched(name)
    for path in load(name).test.names[:2]:
        Path(path).unlink()
    with pytest.raises(StreamError, match=rf"2 of \d+ images of '{name}' are missing, first '"):
        load(name)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_the_folder_can_be_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "with a space, é"
    shutil.move(fetched(name), elsewhere)
    source = load(name, elsewhere)
    assert len(source.train) > 0
    if name != "fashion_mnist":  # it is small, and fetched by the run
        with pytest.raises(StreamError, match=f"Type: perdure data fetch {name} "):
            load(name)
    with pytest.raises(
        StreamError, match=rf"does not hold '.*data={name}:FOLDER, or type data={name}"
    ):
        load(name, tmp_path)
    inner = next((path for path in elsewhere.iterdir() if path.is_dir()), None)
    if inner is not None:
        with pytest.raises(StreamError, match=f"Type data='{name}:{elsewhere}'"):
            load(name, inner)


def test_cifar_planes_become_colours() -> None:
    folder = fetched("cifar100")
    record = np.fromfile(folder / "cifar-100-binary" / "train.bin", np.uint8)[3074 : 2 * 3074]
    source = load("cifar100")
    assert source.train.labels.tolist() == [0, 1, 2] * 4
    assert source.train.names[1] == "cifar100/train[1]"
    pixels = np.asarray(source.train.image(1))
    for y, x, channel in ((0, 0, 0), (0, 5, 1), (31, 2, 2)):
        assert pixels[y, x, channel] == record[2 + 1024 * channel + 32 * y + x]


@pytest.mark.parametrize("content", [b"", bytes(3073), bytes(3075)])
def test_a_damaged_cifar_file_is_named(content: bytes) -> None:
    path = fetched("cifar100") / "cifar-100-binary" / "test.bin"
    path.write_bytes(content)
    with pytest.raises(StreamError, match=f"'{path}' has {len(content):,} bytes"):
        load("cifar100")


def test_cub_follows_the_publishers_files() -> None:
    folder = fetched("cub200") / "CUB_200_2011"
    source = load("cub200")
    lines = (folder / "images.txt").read_text("utf-8").splitlines()
    assert source.train.names == tuple(
        str(folder / "images" / line.partition(" ")[2]) for line in lines[::2]
    )
    assert source.test.labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("images.txt", "1\n", "must have a line per image"),
        ("images.txt", "1 a/a.jpg\n1 a/b.jpg\n", "must have a line per image"),
        ("train_test_split.txt", "1 1\n", "do not name the same images; 10 is in one"),
        ("image_class_labels.txt", "", "do not name the same images"),
        ("images.txt", "\xff\xfe", "must have a line per image"),
    ],
)
def test_damaged_files_of_cub_are_named(file: str, content: str, reason: str) -> None:
    folder = fetched("cub200") / "CUB_200_2011"
    (folder / file).write_text(content, "latin-1")
    with pytest.raises(StreamError, match=reason) as caught:
        load("cub200")
    assert str(folder) in str(caught.value)


def test_spaces_in_file_names_survive(tmp_path: Path) -> None:
    members = {
        name.replace("Albatross_", "Albatross "): content.replace(b"Albatross_", b"Albatross ")
        for name, content in cub_members().items()
    }
    write_tar(archives_dir() / "CUB_200_2011.tgz", members, "w:gz")
    fetch(PUBLISHED["cub200"])
    source = load("cub200")
    assert source.train.names[0].endswith("Albatross 0000_0.jpg")
    assert source.train.image(0).size == (8, 6)


def test_imagenet_a_holds_out_the_same_images_for_every_seed() -> None:
    fetched("imagenet_a")
    tests = {load("imagenet_a", seed=seed).test.names for seed in (0, 7)}
    assert len(tests) == 1


def test_the_domain_of_an_image_can_be_told() -> None:
    fetched("domainnet200")
    images = load("domainnet200").train
    assert isinstance(images, FileImages)
    domains = Counter(path.parts[-3] for path in images.paths)
    assert domains == {"real": 3, "quickdraw": 3, "clipart": 3}


def test_domainnet_in_its_domains() -> None:
    fetched("domainnet")
    stream = cut_up("domainnet", increment="domains", domains=("real", "sketch", "clipart"))
    assert stream.sizes == (3, 3, 3)
    assert [len(data.train) for data in stream.tasks] == [6, 6, 6]
    for domain, data in zip(stream.domains, stream.tasks, strict=True):
        names = (*data.train.names, *data.test.names)
        assert {Path(name).parts[-3] for name in names} == {domain}
    both = cut_up("domainnet", increment="classes+domains", tasks="1+1+1")
    assert both.domains == ("clipart", "infograph", "painting")
    assert len(load("domainnet", increment="domains", images_per_class=1).train) == 18


def test_the_split_with_a_domain_per_class() -> None:
    fetched("domainnet200")
    stream = cut_up("domainnet200", increment="classes+domains", tasks="1+1+1")
    assert stream.domains == ("clipart", "quickdraw", "real")
    with pytest.raises(StreamError, match=r"one domain only.*Type increment=classes\+domains"):
        cut_up("domainnet200", increment="domains", tasks="1+1+1")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("real/zebra/a.jpg zebra\n", r"Line 1 of '.*real_test\.txt' is .* must be a path in real/"),
        ("sketch/zebra/a.jpg 2\n", r"must be a path in real/CLASS/ and a label"),
        ("real/zebra/a.jpg 1\n", r"'real/zebra/a.jpg' has the label 1 .* of 'The_Eiffel_Tower'"),
        ("\udcff", r"real_test\.txt' cannot be read"),
    ],
)
def test_damaged_lists_of_domainnet_are_named(content: str, reason: str) -> None:
    path = fetched("domainnet") / "real_test.txt"
    path.write_text(content, "utf-8", errors="surrogateescape")
    with pytest.raises(StreamError, match=reason):
        load("domainnet")


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("imagenet_r", 24_000, 6_000), ("sdomain", 47_532, 20_450)],
)
def test_the_published_splits(name: str, train: int, test: int) -> None:
    parts = [read_split(f"{name}_{split}") for split in ("train", "val")]
    assert [len(part) for part in parts] == [train, test]
    assert len({*parts[0], *parts[1]}) == train + test
    published = PUBLISHED["imagenet_r" if name == "imagenet_r" else "domainnet200"]
    assert train + test == published.images
    folders = {line.rpartition("/")[0] for part in parts for line in part}
    assert len(folders) == published.classes == 200
    if name == "imagenet_r":
        assert len(set(imagenet.class_names(sorted(folders)))) == 200
        return
    # Every class is shown in one domain.
    assert Counter(folder.partition("/")[0] for folder in folders) == {
        **dict.fromkeys(("real", "sketch", "painting", "quickdraw"), 40),
        **dict.fromkeys(("clipart", "infograph"), 20),
    }
    by_label = {line.rpartition(" ")[2] for line in parts[0]}
    assert by_label == {str(label) for label in range(200)}


def test_a_published_data_set_that_is_not_at_hand_is_not_fetched_by_a_run() -> None:
    with pytest.raises(StreamError) as caught:
        load("imagenet_r")
    assert str(caught.value) == (
        f"ImageNet-R was not found in '{PUBLISHED['imagenet_r'].folder}'. Type: perdure data "
        "fetch imagenet_r (about 2,190 MB), or name the folder of its files with "
        "data=imagenet_r:FOLDER."
    )


def test_files_that_were_unpacked_by_hand_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(fetched("imagenet_a") / "imagenet-a", archives_dir())
    assert not PUBLISHED["imagenet_a"].at_hand
    shutil.move(archives_dir() / "imagenet-a", PUBLISHED["imagenet_a"].folder)
    assert fetch(PUBLISHED["imagenet_a"]) == PUBLISHED["imagenet_a"].folder
