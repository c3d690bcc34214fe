"""A tiny model that is served, and pictures to send to it."""

from __future__ import annotations

import io
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from perdure.learner import ContinualClassifier
from perdure.serve.application import Server, make_application
from perdure.serve.limits import Limits
from perdure.serve.served import ServedModel
from tests.tiny import classifier, lesson, pictures

HERE = Path(__file__).parent
LOCAL = "http://127.0.0.1:8000"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.serve)


def png(name: str, seed: int = 0, place: int = 0) -> bytes:
    """A picture of a class as a file."""
    out = io.BytesIO()
    Image.fromarray(pictures(name, place + 1, seed)[place]).save(out, "PNG")
    return out.getvalue()


def labelled(*names: str, count: int = 4, seed: int = 0) -> dict[str, Any]:
    """A form with pictures of some classes and their labels."""
    files = [
        ("files", (f"{name}-{k}.png", png(name, seed, k))) for name in names for k in range(count)
    ]
    return {"files": files, "data": {"labels": [name for name in names for _ in range(count)]}}


def zipped(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two lessons; not to be changed."""
    folder = tmp_path_factory.mktemp("served") / "pets"
    classifier().learn(lesson("a", "b")).save(folder)
    ContinualClassifier.load(folder).learn(lesson("c")).save(folder)
    return folder


@pytest.fixture
def pets(taught: Path, tmp_path: Path) -> Path:
    """A copy of that model."""
    return Path(shutil.copytree(taught, tmp_path / "pets"))


Serve = Callable[..., TestClient]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a folder; the client speaks to it without a network."""
    clients = []

    def start(folder: Path, **more: Any) -> TestClient:
        limits = more.pop("limits", None) or Limits()
        guard = {key: more.pop(key) for key in ("host", "token", "names") if key in more}
        shared = {key: more.pop(key) for key in ("photos", "keep_images") if key in more}
        server = Server(ServedModel(folder, **more), limits, **shared)
        client = TestClient(
            make_application(server, **guard), base_url=LOCAL, raise_server_exceptions=False
        )
        client.__enter__()
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.__exit__()


@pytest.fixture
def client(serve: Serve, pets: Path) -> TestClient:
    """The model of two lessons, served."""
    return serve(pets)


def finished(client: TestClient, answer: Any) -> dict[str, Any]:
    """The end of a lesson that was accepted."""
    assert answer.status_code == 202, answer.text
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        job: dict[str, Any] = client.get(answer.headers["location"]).json()
        if job["state"] != "learning" and not client.get("/api/model").json()["busy"]:
            return job
        time.sleep(0.02)
    raise AssertionError(f"the lesson does not end: {job}")


def names(client: TestClient) -> list[str]:
    """Classes that are known."""
    return [one["name"] for one in client.get("/api/model").json()["classes"]]
