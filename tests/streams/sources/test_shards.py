"""``data=shards:…``: WebDataset's tars, and Parquet files with images in them."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perdure.engine.config import make_config
from perdure.engine.run import Run
from perdure.errors import ConfigError, PerdureError, StreamError, UnreadableImageError
from perdure.learner.labelled import Side, gather
from perdure.streams import build_stream, load_source
from perdure.streams.config import StreamConfig
from perdure.streams.shards import index as indices
from perdure.streams.shards.tars import members
from perdure.streams.sources.base import Source
from perdure.streams.sources.resolve import is_webdataset, resolve
from tests.cluster.shard_files import CLASSES, parquet, png, samples, tar
from tests.tiny import SMALL

SIDES: tuple[Side, ...] = ("train", "test")
ALL = "all images: nothing says which are for testing"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data" / "shards"


def load(place: Path | str, **keys: Any) -> Source:
    return load_source(StreamConfig(data=f"shards:{place}", **keys))


def rows(count: int = 6, first: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [
        {"image": png(name, place), "label": name, **more}
        for place in range(first, first + count)
        for name in CLASSES
    ]


def content(source: Source) -> list[tuple[str, bytes, str]]:
    """Every image: split, pixels, class."""
    return sorted(
        (split, np.asarray(images.image(at)).tobytes(), source.class_names[label])
        for split, images in (("train", source.train), ("test", source.test))
        for at, label in enumerate(images.labels)
    )


def expected(train: range, test: range) -> list[tuple[str, bytes, str]]:
    import io

    return sorted(
        (split, np.asarray(Image.open(io.BytesIO(png(name, at)))).tobytes(), name)
        for split, places in (("train", train), ("test", test))
        for at in places
        for name in CLASSES
    )


@pytest.mark.parametrize("packed", ["tar", "tar.gz", "parquet"])
def test_shards_of_every_kind_hold_the_same_images(tmp_path: Path, packed: str) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for name, count, first in (("train-0", 4, 0), ("train-1", 2, 4), ("test-0", 2, 6)):
        path = shards / f"{name}.{packed}"
        if packed == "parquet":
            parquet(path, rows(count, first), 5)
        else:
            tar(path, samples(CLASSES, count, first), "w:gz" if packed == "tar.gz" else "w")
    source = load(shards)
    assert source.class_names == CLASSES
    assert content(source) == expected(range(6), range(6, 8))
    assert not source.train.in_memory
    assert "train-0" in source.train.names[0]
    assert pickle.loads(pickle.dumps(source.train)).names[3:5] == source.train.names[3:5]
    assert resolve(str(shards)) == f"shards:{shards}"
    only = load(f"{shards}/train-*.{packed}")
    assert len(only.train) + len(only.test) == 24


def test_classes_are_told_in_several_ways(tmp_path: Path) -> None:
    told = {
        "json.tar": [("1.png", png("a", 0)), ("1.json", b'{"label": 7}')],
        "folder.tar": [("train/7/1.png", png("a", 0))],
        "cls.tar": [("x/1.cls", b"7\n"), ("x/1.png", png("a", 0)), ("x/1.txt", b"a caption")],
    }
    for name, files in told.items():
        found = list(indices.samples(tar(tmp_path / name, files), StreamConfig()))
        assert [(one.label, one.content) for one in found] == [("7", png("a", 0))]
        split = "train" if name == "folder.tar" else ""
        assert found[0].split == split
    named = tar(tmp_path / "own.tar", [("1.png", png("a", 0)), ("1.json", b'{"kind": "fox"}')])
    assert next(iter(indices.samples(named, StreamConfig(label_column="kind")))).label == "fox"


def test_a_share_is_held_out_by_names_alone(tmp_path: Path) -> None:
    one = load(tar(tmp_path / "x.tar", samples()))
    assert (len(one.train), len(one.test)) == (20, 4)
    (tmp_path / "moved").mkdir()
    other = load(tar(tmp_path / "moved" / "x.tar", samples()))
    assert content(one) == content(other)


def test_a_lesson_takes_all_images_where_nothing_says_which_are_for_testing(tmp_path: Path) -> None:
    unsaid, shards = tar(tmp_path / "x.tar", samples(("a",), count=1)), tmp_path / "shards"
    shards.mkdir()
    for side in SIDES:
        found = gather(f"shards:{unsaid}", None, side, StreamConfig(), 0)
        assert (found.counts(), found.part) == ({"a": 1}, ALL)
    tar(shards / "train-0.tar", samples(count=2))
    alone = gather(shards, None, "train", StreamConfig(), 0)
    assert (alone.counts(), alone.part) == (dict.fromkeys(CLASSES, 2), ALL)
    tar(shards / "test-0.tar", samples(count=1, first=2))
    counts = {side: gather(shards, None, side, StreamConfig(), 0).counts() for side in SIDES}
    assert counts == {"train": dict.fromkeys(CLASSES, 2), "test": dict.fromkeys(CLASSES, 1)}
    assert gather(shards, None, "test", StreamConfig(), 0).part == "the test images"


@pytest.mark.parametrize("files", [1, 40])
def test_a_bomb_is_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    path = tmp_path / "bomb.tgz"
    zeros = {f"{k}.jpg": bytes(4_000_000 // files) for k in range(files)}
    tar(path, {**zeros, "0.cls": b"a"}.items(), "w:gz")
    read: list[int] = []
    inside = tarfile.TarFile.extractfile
    monkeypatch.setattr(
        tarfile.TarFile,
        "extractfile",
        lambda tar, member: read.append(member.size) or inside(tar, member),
    )
    assert not is_webdataset(path)
    read.clear()
    with pytest.raises(StreamError, match="unpacks to more than 50 times its size"):
        list(members(str(path)))
    assert sum(read) <= 50 * path.stat().st_size


def test_an_index_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = tar(tmp_path / "x.tar", samples())
    before = content(load(shard))
    monkeypatch.setattr(indices, "samples", lambda *_: pytest.fail("read again"))
    assert content(load(shard)) == before
    monkeypatch.undo()
    tar(shard, samples(count=3))
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "cache"))
    assert len(load(shard).train) == 8, "another shard has another index"


def test_an_index_that_is_damaged_or_of_other_shards_is_refused(
    tmp_path: Path, cache: Path
) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        load(tar(tmp_path / name / "s.tar", samples()))
    one, other = sorted(cache.glob("*-*/index.npz"))
    other.write_bytes(one.read_bytes())
    with pytest.raises(StreamError, match="is of other shards"):
        load(tmp_path / "y" / "s.tar")
    one.write_bytes(one.read_bytes()[:-100])
    with pytest.raises(StreamError, match="is damaged"):
        load(tmp_path / "x" / "s.tar")


def test_a_shard_that_is_cut_short_leaves_no_index(tmp_path: Path, cache: Path) -> None:
    shard = tar(tmp_path / "x.tar", samples())
    whole = shard.read_bytes()
    shard.write_bytes(whole[:5000])
    with pytest.raises(StreamError, match=r"x.tar' is damaged or not whole"):
        load(shard)
    assert [one.name for one in cache.iterdir()] == [".lock"]
    shard.write_bytes(whole)
    source = load(shard)
    shard.write_bytes(whole[:5000])
    with pytest.raises(UnreadableImageError, match="became shorter"):
        [source.train.image(at) for at in range(len(source.train))]


def test_bad_images_are_listed_or_left_out(tmp_path: Path) -> None:
    files = [*samples(), ("x.png", b"no image"), ("x.cls", b"a")]
    cut = png("b", 0)
    files += [("y.png", cut[: len(cut) // 2]), ("y.cls", b"b")]
    shard = tar(tmp_path / "x.tar", files)
    with pytest.raises(UnreadableImageError, match=r"x.tar\[x.png\]"):
        load(shard)
    source = load(shard, skip_unreadable=True)
    assert [one.partition(":")[0][-6:] for one in source.skipped] == ["x.png]", "y.png]"]
    assert len(source.train) + len(source.test) == 24


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([("1.png", png("a", 0))], "1]' has no class"),
        ([("1.png", png("a", 0)), ("1.jpg", png("a", 0)), ("1.cls", b"a")], "has 2 images"),
        ([("1.png", png("a", 0)), ("1.json", b"{}")], "JSON file without a class"),
        ([("1.png", png("a", 0)), ("1.json", b"[")], "JSON file without a class"),
        ([("1.png", png("a", 0)), ("1.cls", b" ")], "an empty name"),
        ([("1.txt", b"")], "holds no image"),
        ([("1.png", png("a", 0)), ("1.cls", b"a")], "has one image"),
    ],
)
def test_samples_that_cannot_be_used_are_refused(
    tmp_path: Path, files: list[tuple[str, bytes]], said: str
) -> None:
    with pytest.raises(StreamError) as error:
        load(tar(tmp_path / "x.tar", files))
    assert said in str(error.value)


def test_places_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "paths.parquet", [{"image": "a.png", "label": "a"}])
    (tmp_path / "none").mkdir()
    told: list[tuple[str, str]] = [
        (f"shards:{tmp_path}/none", "There are no shards"),
        (f"shards:{tmp_path}/train-*.tar", "There are no shards"),
        ("shards", "names no shards"),
        ("shards:s3://bucket/x", "Fetch them first"),
        (f"shards:{tmp_path}/paths.parquet", "Type data=table:"),
    ]
    for data, said in told:
        with pytest.raises(PerdureError) as error:
            load_source(StreamConfig(data=data))
        assert said in str(error.value)
    shard = tar(tmp_path / "train-0.tar", samples())
    tar(tmp_path / "test-0.tar", samples())
    with pytest.raises(ConfigError, match="the shards say which images are for testing"):
        load(f"{tmp_path}/t*-0.tar", test_fraction=0.5)
    tar(tmp_path / "tt-0.tar", samples())
    with pytest.raises(StreamError, match="nothing says that"):
        load(f"{tmp_path}/t*-0.tar")
    assert resolve(str(shard)) == f"shards:{shard}"


def test_a_run_on_shards_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    shard = tar(tmp_path / "x.tar", samples(count=8))
    keys = {key: value for key, value in SMALL.items() if "images" not in key}
    config = make_config({**keys, "data": f"shards:{shard}", "method": "finetune", "tasks": "2+2"})

    class Stop(Exception):
        pass

    def run(folder: str, stop: bool = False) -> Any:
        from perdure.engine.build import make_backbone
        from perdure.engine.events import Event

        steps = 0

        def sink(event: Event) -> None:
            nonlocal steps
            steps += 1
            if stop and steps == 14:
                raise Stop

        stream = build_stream(config.stream, 0)
        return Run(config, stream, make_backbone(config), tmp_path / folder, sink)()

    straight = run("straight").model.state()
    with pytest.raises(Stop):
        run("again", stop=True)
    again = run("again").model.state()
    assert straight.keys() == again.keys()
    assert all(np.array_equal(straight[key], again[key]) for key in straight)
