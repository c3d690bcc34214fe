from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from perdure.errors import ConfigError, StreamError
from perdure.streams import load_source
from perdure.streams.sources import fashion
from tests.streams.made import asked, load
from tests.streams.published import offer, serving, write_fashion_mnist


def idx(array: NDArray[np.uint8]) -> bytes:
    return (
        b"\0\0\x08"
        + bytes([array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + (array.tobytes())
    )


def write_files(folder: Path, suffix: str = "") -> Path:
    folder.mkdir(parents=True)
    for (images_file, labels_file), count in zip(fashion.FILES.values(), (30, 20), strict=True):
        pixels = np.arange(count * 28 * 28, dtype=np.int64).reshape(count, 28, 28) % 251
        labels = np.arange(count, dtype=np.uint8) % 10
        for name, array in ((images_file, pixels.astype(np.uint8)), (labels_file, labels)):
            content = idx(array)
            (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer(monkeypatch, "fashion_mnist", elsewhere=(tmp_path / "debian",))
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("place", ["path", "debian", "home/data/fashion_mnist"])
def test_files_are_found(tmp_path: Path, suffix: str, place: str) -> None:
    folder = write_files(tmp_path / place, suffix)
    source = load("fashion_mnist", folder if place == "path" else None)
    assert (len(source.train), len(source.test)) == (30, 20)
    assert source.class_names[0] == "T-shirt/top"
    assert source.class_names[9] == "Ankle boot"
    assert source.train.labels.tolist() == [*range(10)] * 3
    image = source.train.image(2)
    assert (image.mode, image.size) == ("RGB", (28, 28))
    assert np.asarray(image)[0, :3, 1].tolist() == [(2 * 784 + k) % 251 for k in range(3)]
    assert source.test.names[3] == "fashion_mnist/test[3]"


def test_caps_apply(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "path")
    source = load("fashion_mnist", folder, images_per_class=2, test_images_per_class=1)
    assert np.bincount(source.train.labels).tolist() == [2] * 10
    assert np.bincount(source.test.labels).tolist() == [1] * 10


def test_absent_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(StreamError) as caught:
        load("fashion_mnist")
    for part in (
        "Connection refused",
        "train-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        str(tmp_path / "home" / "data" / "archives"),
        "sudo apt install dataset-fashion-mnist",
        "Then type: perdure data fetch fashion_mnist",
    ):
        assert part in str(caught.value)


def test_absent_files_are_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "offered")
    with serving(tmp_path / "offered") as (_, url):
        offer(monkeypatch, "fashion_mnist", url)
        source = load("fashion_mnist")
    assert (len(source.train), len(source.test)) == (20, 10)
    assert len(load("fashion_mnist").train) == 20


def test_a_folder_that_is_named_must_hold_them(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "path")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(StreamError, match=r"not found in '.*path': it does not hold 't10k-labels"):
        load("fashion_mnist", folder)
    with pytest.raises(ConfigError, match="no use for test_fraction"):
        load("fashion_mnist", folder, test_fraction=0.5)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no idx file"),
        (b"PK\x03\x04", "is no idx file"),
        (b"\0\0\x0d\x01\0\0\0\0", "is no idx file"),
        (b"\0\0\x08\x03\0\0", "ends within its header"),
        (idx(np.zeros((5, 4, 4), np.uint8))[:-1], "79 bytes of data where its header announces 80"),
        (idx(np.zeros((5, 4, 4), np.uint8)) + b"!", "81 bytes of data"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_idx_files_are_named(
    tmp_path: Path, content: bytes, reason: str, suffix: str
) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(StreamError, match=reason) as caught:
        fashion.read_idx(path)
    assert str(path) in str(caught.value)


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((50, 4, 4), np.uint8)))[:-9])
    with pytest.raises(StreamError, match=r"Cannot read '.*file.gz'"):
        fashion.read_idx(path)


def test_images_and_labels_must_match(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "path")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(19, np.uint8)))
    with pytest.raises(StreamError, match=r"\(20, 28, 28\) and '.*' \(19,\)"):
        load("fashion_mnist", folder)


def test_blank_images_stand_in_where_nothing_may_be_fetched(tmp_path: Path) -> None:
    config = asked("fashion_mnist", images_per_class=3)
    source = load_source(config, fetch=False)
    assert (len(source.train), len(source.test)) == (30, 10_000)
    assert np.bincount(source.test.labels).tolist() == [1000] * 10
    assert source.train.image(0).size == (1, 1)
    write_files(tmp_path / "debian")
    assert load_source(config, fetch=False).train.image(0).size == (28, 28)
