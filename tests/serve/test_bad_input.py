"""Bad input: each a clear answer as problem JSON, and nothing half-done."""

from __future__ import annotations

import errno
import io
import os
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from starlette.testclient import TestClient

from perdure.atomic import LOCK
from perdure.serve.limits import Limits
from perdure.serve.uploads import as_folder
from tests.serve.conftest import Serve, finished, labelled, names, png, zipped
from tests.serve.test_guard import problem


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    }


def huge(side: int) -> bytes:
    """A PNG that claims this many pixels on a side."""

    def part(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = part(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + data + part(b"IEND", b"")


def upload(content: bytes, name: str = "a.png") -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (name, content))]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"not an image", "no image of a known format"),
        (png("a")[:60], ""),
        (huge(30_000), "decompression bomb"),
        (huge(8_500), "allowed are 64 million"),
        (b"0" * 2_000_000, "the file has 2 MB; allowed are 1 MB"),
    ],
    ids=["empty", "text", "cut", "30000", "72 MP", "large"],
)
def test_images_that_are_none(serve: Serve, pets: Path, content: bytes, told: str) -> None:
    client, before = serve(pets, limits=Limits(image_bytes=10**6)), files_of(pets)
    sound = ("files", ("ok.png", png("b")))
    first, second = client.post("/api/predict", files=[*upload(content), sound]).json()
    assert told in first["error"]
    assert second["class"] == "b"
    form = {"files": [*upload(content), sound], "data": {"labels": "z"}}
    answer = client.post("/api/lessons", **form)
    detail = answer.json()["error"] if answer.status_code == 202 else problem(answer, 422)
    if answer.status_code == 202:  # its header is sound: only decoding tells
        detail = finished(client, answer)["error"]
    assert "a.png" in detail
    assert told in detail
    assert files_of(pets) == before
    assert names(client) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("form", "status", "told"),
    [
        ({"data": {"labels": "z"}, "files": []}, 415, "multipart"),
        ({"files": upload(png("z"))}, 422, "1 image comes with 0 labels"),
        ({"files": upload(png("z")) * 3, "data": {"labels": ["z", "y"]}}, 422, "3 images came with 2"),
        ({"files": upload(png("z")), "data": {"labels": " \u200b"}}, 422, "an empty name"),
        ({"files": upload(png("z")), "data": {"labels": "z" * 10_000}}, 422, "has 10,000 characters"),
        ({"files": upload(png("z")), "data": {"labels": "a\x1b[31mb"}}, 422, "control characters"),
        ({"files": upload(png("z")) * 6, "data": {"labels": "z"}}, 413, "may have 5 images"),
        ({"files": upload(b"PK\5\6" + b"\0" * 18, "a.zip")}, 202, "'photos' holds no class"),
        ({"files": upload(zipped({"z/1.png": b"no"}), "a.zip")}, 202, "no image of a known"),
        ({"files": upload(zipped({"../../z/1.png": png("z")}), "a.zip")}, 422, "outside its folder"),
        ({"files": upload(zipped({f"z/{k}": b"" for k in range(9)}), "a.zip")}, 413, "9 files"),
        ({"files": upload(zipped({"z/1.png": b"0" * 900_000}), "a.zip")}, 422, "may be a bomb"),
        ({"files": upload(zipped({"z/1.png": b"0" * 2_000_000}), "a.zip")}, 413, "Allowed are"),
        ({"files": upload(zipped({"z/1.png": png("z")})[:-30], "a.zip")}, 422, "1 image comes with 0"),
        ({"files": upload(zipped({"x.tar.gz": b"?"}), "a.zip")}, 422, "Shards and saved data sets"),
        ({"files": upload(zipped({"state.json": b"{}"}), "a.zip")}, 422, "Shards and saved data"),
        ({"json": {"images": [{"label": "z"}]}}, 422, "is no base64"),
        ({"json": {"images": "z"}}, 422, "no list images"),
        ({"json": []}, 400, "no JSON object"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "no JSON object"),
        ({"content": b"?", "headers": {"content-type": "text/plain"}}, 415, "'text/plain'"),
        ({"content": b"?", "headers": {"content-type": "multipart/form-data"}}, 400, "form"),
    ],
)  # fmt: skip
def test_lessons_that_are_none(
    serve: Serve, pets: Path, form: dict[str, Any], status: int, told: str
) -> None:
    client = serve(pets, limits=Limits(taught=5, unpacked_bytes=10**6))
    before = files_of(pets)
    answer = client.post("/api/lessons", **form)
    if status == 202:
        assert told in finished(client, answer)["error"]
    else:
        assert told in problem(answer, status)
    assert files_of(pets) == before
    assert names(client) == ["a", "b", "c"]
    assert client.post("/api/predict", files=upload(png("a"))).json()[0]["class"] == "a"


def test_ten_thousand_files(client: TestClient, pets: Path) -> None:
    form = {"files": upload(b"") * 10_000, "data": {"labels": "z"}}
    assert "may have 5,000 images" in problem(client.post("/api/lessons", **form), 413)
    assert "may have 256 images" in problem(client.post("/api/predict", **form), 413)


def test_classes_that_would_share_a_folder_are_kept_apart() -> None:
    kept = [as_folder(name) for name in ("a/b", "a_b", "a\\b", ".x", "_x", "z" * 300, "z" * 301)]
    assert len(set(kept)) == len(kept)
    assert kept[1] == "a_b"
    assert all(len(name.encode()) <= 255 for name in kept)


@pytest.mark.parametrize("name", ["../../etc/passwd", "<script>alert(1)</script>", "=1+1", "a/b"])
def test_names_that_mean_something_elsewhere(client: TestClient, pets: Path, name: str) -> None:
    form = labelled("z", count=2)
    form["data"]["labels"] = [name, name]
    finished(client, client.post("/api/lessons", **form))
    assert name in names(client)
    assert not list(pets.parent.parent.glob("etc"))
    assert client.post("/api/predict", files=upload(png("z"), name)).json()[0]["path"] == name
    assert client.get("/api/model").headers["content-type"] == "application/json"


def test_a_model_that_is_removed_while_served(client: TestClient, pets: Path) -> None:
    shutil.rmtree(pets)
    assert client.get("/healthz").json()["model"] == "removed"
    assert client.post("/api/predict", files=upload(png("a"))).json()[0]["class"] == "a"
    for answer in (
        client.post("/api/lessons", **labelled("z")),
        client.post("/api/classes/rename", json={"name": "a", "new": "z"}),
        client.delete("/api/lessons/last"),
    ):
        assert "was removed while it was served" in problem(answer, 409)
    assert client.get("/api/lessons").json()["undoable"] == []
    assert client.get("/api/model").json()["gone"] is True
    assert not pets.exists()


def test_a_full_disk(client: TestClient, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_of(pets)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        job = finished(client, client.post("/api/lessons", **labelled("z")))
        assert job["state"] == "failed"
        assert "disk is full" in job["error"]
        answer = client.post("/api/classes/rename", json={"name": "a", "new": "z"})
        assert "disk is full" in problem(answer, 507)
    assert names(client) == ["a", "b", "c"]
    assert files_of(pets) == before
    finished(client, client.post("/api/lessons", **labelled("z")))
    assert "z" in names(client)


def test_another_writer(client: TestClient, pets: Path) -> None:
    with FileLock(pets / LOCK):
        answer = client.post("/api/classes/rename", json={"name": "a", "new": "z"})
        assert "Another process" in problem(answer, 409)
        job = finished(client, client.post("/api/lessons", **labelled("z")))
        assert "Another process" in job["error"]
    assert client.get("/api/lessons/99").status_code == 404
    assert zipfile.is_zipfile(io.BytesIO(zipped({"a": b""})))


def test_a_zip_may_hold_no_more_than_a_form(serve: Serve, pets: Path) -> None:
    limits = Limits(image_bytes=1_000_000)
    client = serve(pets, limits=limits)
    for files, told in (
        ({"z/a.png": huge(8_500)}, "allowed are 64 million"),
        ({"z/a.png": png("a") + os.urandom(2_000_000)}, "allowed are 1 MB"),
        ({"z\nq/a.png": png("a")}, "control characters"),
    ):
        answer = client.post("/api/lessons", files=upload(zipped(files), "z.zip"))
        assert told in problem(answer, 422)
    assert names(client) == ["a", "b", "c"]
