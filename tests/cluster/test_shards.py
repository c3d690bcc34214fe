"""Shards of sources of images, and what is refused before Ray is asked."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from perdure.cluster import connection, shards
from perdure.cluster.prediction import Actors, Prediction, predict_on_ray
from perdure.errors import CheckpointError, ConfigError, OutputError, StreamError
from perdure.streams.config import StreamConfig
from perdure.streams.images.find_images import Listed
from perdure.streams.shards import tars
from tests.cluster.conftest import Perdure
from tests.cluster.shard_files import folder, parquet, png, samples, tar

CONFIG = StreamConfig()


def images(place: Path | str, rows: int = 1000) -> list[tuple[str, str, bytes]]:
    """Images of all shards of a file: place, fault, content."""
    found = [
        one
        for shard in shards.shards_of([str(place)], rows)
        for one in shards.images_in(shard, CONFIG)
    ]
    return [(str(path), fault, getattr(path, "content", b"")) for path, fault in found]


def test_a_tar_gives_its_images_in_order(tmp_path: Path) -> None:
    files = [*samples(), ("._0.png", b"of a Mac"), ("readme.txt", b"")]
    for name, mode in (("x.tar", "w"), ("x.tar.gz", "w:gz")):
        place = tar(tmp_path / name, files, mode)
        wanted = [(f"{place}[{n}]", "", c) for n, c in samples() if n.endswith("png")]
        assert images(place) == wanted


@pytest.mark.parametrize("kept", [0.3, 0.97])
@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz")])
def test_a_tar_that_is_cut_short_is_refused(
    tmp_path: Path, name: str, mode: str, kept: float
) -> None:
    place = tar(tmp_path / name, samples(), mode)
    whole = place.read_bytes()
    cut = int(kept * len(whole)) if kept < 0.9 else len(whole.rstrip(b"\0")) - 1
    place.write_bytes(whole[:cut])
    with pytest.raises(StreamError, match=f"{name}' is damaged or not whole"):
        list(tars.members(str(place)))


def test_a_tar_without_its_end_is_refused(tmp_path: Path) -> None:
    """Cut between two files, where Python's tarfile finds nothing wrong."""
    place = tar(tmp_path / "x.tar", samples())
    last = list(tars.members(str(place)))[-1]
    place.write_bytes(place.read_bytes()[: last.offset - 512])
    with pytest.raises(StreamError, match="its end is missing"):
        list(tars.members(str(place)))


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_tar_whose_images_are_links_is_refused(tmp_path: Path, kind: bytes) -> None:
    """Left out, they would be missing from the answers without a word."""
    place = tar(tmp_path / "x.tar", [("a.png", png("a", 0))])
    with tarfile.open(place, "a") as packed:
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = kind, "a.png"
        packed.addfile(link)
    with pytest.raises(StreamError, match=r"b.png' is a link or sparse: pack with --dereference"):
        list(tars.members(str(place)))


@pytest.mark.parametrize("group", [3, 5, 24, 1000])
@pytest.mark.parametrize("rows", [1, 4, 7, 1000])
def test_rows_are_cut_anywhere(tmp_path: Path, group: int, rows: int) -> None:
    cells = [{"image": c, "label": n} for n, c in samples() if n.endswith("png")]
    place = parquet(tmp_path / "x.parquet", cells, group)
    found = images(place, rows)
    assert [content for *_, content in found] == [cell["image"] for cell in cells]
    assert [name for name, *_ in found] == [f"{place}[{row}]" for row in range(len(cells))]
    lengths = [
        shard.end - shard.first for shard in shards.shards_of([str(place)], rows) if shard.end
    ]
    assert all(length % rows == 0 for length in lengths[:-1])


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    place = parquet(tmp_path / "x.parquet", [{"image": b"x"}])
    place.write_bytes(place.read_bytes()[:-9])
    with pytest.raises(StreamError, match="not whole, or no Parquet file"):
        images(place)


def test_cells_may_name_files_and_be_wrong(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png("a", 0))
    url = f"file://{tmp_path}/0.png"
    cells: list[dict[str, Any]] = [{"image": one} for one in ("0.png", "none.png", "", url)]
    place = parquet(tmp_path / "x.parquet", cells)
    found = images(place)
    assert [name for name, *_ in found[:2]] == [str(tmp_path / "0.png"), str(tmp_path / "none.png")]
    assert "There is no file in row 2" in found[2][1]
    assert found[3][2] == png("a", 0)


@pytest.fixture
def bucket() -> Iterator[str]:
    """A place that only fsspec reaches."""
    system = fsspec.filesystem("memory")
    for name in ("b/1.png", "a/0.png", "a/.hidden.png", "notes.txt"):
        system.pipe(f"/bucket/{name}", png("a", 0))
    yield "memory://bucket"
    system.rm("/bucket", recursive=True)


def test_urls_are_read_through_fsspec(bucket: str, tmp_path: Path) -> None:
    found = list(shards.images_at(bucket))
    assert [url.partition("bucket/")[2] for url in found] == ["a/0.png", "b/1.png"]
    listing = tmp_path / shards.LISTING
    gone = found[0].replace("0.png", "gone.png")
    shards.write_listing([(found[0], ""), (gone, ""), ("x", "why")], listing, 2)
    one, two, three = images(listing, 2)
    assert one == (found[0], "", png("a", 0))
    assert two == (gone, "No such file or directory", b"")
    assert three == ("x", "why", b"")
    fsspec.filesystem("memory").pipe(
        "/bucket/sub/x.tar", tar(tmp_path / "x.tar", samples()).read_bytes()
    )
    assert shards.containers(f"{bucket}/sub") == [f"{bucket}/sub/x.tar"]
    assert len(images(f"{bucket}/sub/x.tar")) == 24


def test_tables_behind_urls_name_images_beside_them(bucket: str, tmp_path: Path) -> None:
    names = ("../a/0.png", "./../b/1.png", "c.png", "memory://bucket/a/0.png")
    table = parquet(tmp_path / "x.parquet", [{"image": name} for name in names])
    system = fsspec.filesystem("memory")
    system.pipe_file("/bucket/tables/x.parquet", table.read_bytes())
    system.pipe_file("/bucket/tables/c.png", png("c", 2))
    contents = [content for *_, content in images(f"{bucket}/tables/x.parquet")]
    assert contents == [png("a", 0), png("a", 0), png("c", 2), png("a", 0)]


@pytest.mark.parametrize("name", ["photo [1].png", "what?.png", "*.png"])
def test_names_behind_urls_are_no_patterns(bucket: str, name: str, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file(f"/bucket/c/{name}", png("b", 1))
    listing = tmp_path / shards.LISTING
    found = [url for url in shards.images_at(bucket) if "/c/" in url]
    shards.write_listing([(url, "") for url in [*found, f"{bucket}/c/[2].png"]], listing, 2)
    one, two = images(listing)
    assert one == (f"memory:///bucket/c/{name}", "", png("b", 1))
    assert two[1] == "No such file or directory"


def test_a_folder_that_cannot_be_listed_is_told(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsspec would leave out its images."""
    system = fsspec.filesystem("memory")
    listed = type(system).ls

    def ls(self: Any, path: str, *args: Any, **options: Any) -> Any:
        if path.rstrip("/").endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return listed(self, path, *args, **options)

    monkeypatch.setattr(type(system), "ls", ls)
    with pytest.raises(StreamError, match="cannot be read: Permission denied"):
        list(shards.images_at(bucket))


@pytest.mark.parametrize(
    ("url", "why"),
    [("nonsense://x", "Protocol not known"), ("memory://nothing", "No such file or directory")],
)
def test_a_url_that_leads_nowhere_is_told(url: str, why: str) -> None:
    with pytest.raises((ConfigError, StreamError), match=f"'{url}' cannot be read: {why}"):
        list(shards.images_at(url))


def test_a_listing_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def images() -> Iterator[tuple[str, str]]:
        yield "a.png", ""
        raise StreamError("gone")

    with pytest.raises(StreamError, match="gone"):
        shards.write_listing(images(), tmp_path / shards.LISTING, 2)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="could not be written"):
        shards.write_listing([("a.png", "")], Path("/dev/full/x"), 2)


def test_shards_and_images_in_one_folder_are_refused(tmp_path: Path) -> None:
    tar(tmp_path / "x.tar", samples())
    assert shards.containers(str(tmp_path)) == [f"{tmp_path}/x.tar"]
    (tmp_path / "0.png").touch()
    with pytest.raises(StreamError, match=r"holds shards .* and images"):
        shards.containers(str(tmp_path))
    (tmp_path / "0.png").unlink()
    (tmp_path / "tuesday").mkdir()
    with pytest.raises(StreamError, match=r"holds shards .* and folders \('tuesday'\)"):
        shards.containers(str(tmp_path))


def test_a_listing_is_pinned_and_other_answers_are_refused(model: Path, tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos")
    asked = Prediction(str(model), "gaussian", 5, 64, None)

    def loose(paths: Any) -> Iterator[Listed]:
        return (Listed(path) for path in sorted(photos.rglob("*.png")))

    def predict(asked: Prediction, *sources: str) -> None:
        predict_on_ray(asked, sources, loose, tmp_path / "out", "127.0.0.1:1", Actors())

    with pytest.raises(OutputError, match="nobody answers there"):
        predict(asked, str(photos))
    job = tmp_path / "out" / "job.json"
    assert json.loads(job.read_text())["batch_size"] == 64
    for other, what in ((Prediction(str(model), "gaussian", 3, 64, None), "top"),):
        with pytest.raises(CheckpointError, match=f"of another {what}"):
            predict(other, str(photos))
    shard = tar(tmp_path / "x.tar", samples())
    with pytest.raises(CheckpointError, match="of another shards and sources"):
        predict(asked, str(photos), str(shard))
    job.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        predict(asked, str(photos))


def test_a_refused_command_leaves_no_images_to_the_next(model: Path, tmp_path: Path) -> None:
    """Else the next would predict its images, and call them those that it was asked for."""
    asked = Prediction(str(model), "gaussian", 5, 64, None)
    wrong, right = (folder(tmp_path / name, 1) for name in ("wrong", "right"))
    (tmp_path / "x.parquet").write_bytes(b"none")

    def loose(paths: Any) -> Iterator[Listed]:
        return (Listed(path) for one in paths for path in sorted(Path(one).rglob("*.png")))

    def predict(*sources: Path) -> None:
        names = [str(one) for one in sources]
        predict_on_ray(asked, names, loose, tmp_path / "out", "127.0.0.1:1", Actors())

    with pytest.raises(StreamError, match="no Parquet file"):
        predict(wrong, tmp_path / "x.parquet")
    with pytest.raises(OutputError, match="nobody answers there"):
        predict(right)
    listed = [place for place, *_ in images(tmp_path / "out" / shards.LISTING)]
    assert listed == [str(one) for one in sorted(right.rglob("*.png"))]


def test_an_empty_source_is_refused(perdure: Perdure, model: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    code, _, err = perdure("predict", model, "none", "--ray", "--out", "out")
    assert (code, "holds no image" in err) == (2, True)
    parquet(tmp_path / "x.parquet", [{"image": b"x"}], empty=True)
    code, _, err = perdure("predict", model, "x.parquet", "--ray", "--out", "out")
    assert (code, "there is no image" in err) == (1, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["photos", "--out", "x"], "--out has no use without --ray"),
        (["photos", "--ray"], "Add --out DIR"),
        (["photos", "--ray", "--out", "x", "--format", "csv"], "--format csv has no use"),
        (["-", "--ray", "--out", "x"], "'-' has no use"),
        (["photos", "--ray", "--out", "x", "--actors", "0"], "not a whole number of 1 or more"),
        (["photos", "--ray", "nonsense", "--out", "x"], "this is no address"),
        (["photos", "--ray", "host:99999", "--out", "x"], "this is no address"),
        (["photos", "--ray", "--out", "x", "--head", "none"], "no head 'none'"),
        (["photo", "--ray", "--out", "x"], "Did you mean 'photos'"),
    ],
)
def test_a_command_that_cannot_be_right_is_refused(
    perdure: Perdure, model: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    folder(tmp_path / "photos", 1)
    code, _, err = perdure("predict", model, *words)
    assert (code, said in err) == (2, True), err


def test_without_ray_it_is_said_what_to_install(
    perdure: Perdure, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path / "photos", 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = perdure("predict", model, "photos", "--ray", "--out", "x")
    assert (code, "pip install 'perdure[ray]'" in err) == (2, True)


def test_an_address_is_asked_before_ray_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "import_ray", lambda: None)
    with (
        pytest.raises(OutputError, match="nobody answers"),
        connection.connected("ray://127.0.0.1:1"),
    ):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(OutputError, match="nobody answers"), connection.connected(""):
        pass


def test_nothing_of_a_shard_is_kept(tmp_path: Path) -> None:
    """A tar's record of its files does not grow with them, ."""
    place = tar(tmp_path / "x.tar", samples(count=30))
    walk = tars.members(str(place))
    next(walk)
    frame = walk.gi_frame
    for _ in walk:
        assert len(frame.f_locals["tar"].members) <= 1
