"""Who may ask: Host, Origin, token; what may be sent: size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from perdure.serve.application import Server, make_application
from perdure.serve.guard import is_loopback
from perdure.serve.limits import Limits
from perdure.serve.served import ServedModel
from tests.serve.conftest import Serve, labelled, names, png


def problem(answer: Any, status: int) -> str:
    """The detail of a refusal of this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert (content["status"], content["type"]) == (status, "about:blank")
    return str(content["detail"])


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost", "localhost:9", "[::1]:8000", "LOCALHOST:8000"]
)
def test_own_names(client: TestClient, host: str) -> None:
    assert client.get("/api/model", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "10.0.0.5", "127.0.0.1.evil.example", "", "[", "a b"]
)
def test_foreign_names(client: TestClient, host: str) -> None:
    for path in ("/", "/healthz", "/api/model", "/page/page.css"):
        assert "--allow-host" in problem(client.get(path, headers={"host": host}), 403)


def test_foreign_pages(client: TestClient) -> None:
    own = {"origin": "http://127.0.0.1:8000"}
    assert client.get("/api/model", headers=own).status_code == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9000", "http://["):
        answer = client.post("/api/lessons", **labelled("z"), headers={"origin": origin})
        assert "may not use" in problem(answer, 403)
    assert client.get("/api/model", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert names(client) == ["a", "b", "c"]


def test_other_addresses_need_the_token(serve: Serve, pets: Path) -> None:
    client = serve(pets, host="192.0.2.7", token="secret", names=["pets.example"])
    for host in ("192.0.2.7:8000", "pets.example", "10.1.2.3"):
        headers = {"host": host}
        assert client.get("/healthz", headers=headers).status_code == 200
        assert client.get("/", headers=headers).status_code == 200
        assert "is missing" in problem(client.get("/api/model", headers=headers), 401)
        headers["authorization"] = "Bearer wrong"
        assert "is another one" in problem(client.get("/metrics", headers=headers), 401)
        headers["authorization"] = "Bearer secret"
        assert client.get("/api/model", headers=headers).status_code == 200
    assert client.get("/api/model", headers={"host": "evil.example"}).status_code == 403


def test_headers_of_every_answer(client: TestClient) -> None:
    for path in ("/", "/api/model", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    assert "openapi" in problem(client.get("/nothing"), 404)
    assert client.get("/docs").status_code == 404


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("pets", False)],
)  # fmt: skip
def test_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


def ask(
    folder: Path, parts: Iterable[Message], limits: Limits, **headers: str
) -> tuple[int, bytes]:
    """Post a body piece by piece to the application itself."""
    app = make_application(Server(ServedModel(folder), limits))
    sent: list[Message] = []
    waiting = iter(parts)

    async def receive() -> Message:
        part = next(waiting, None)
        if part is None:
            await asyncio.sleep(3600)
            raise AssertionError
        return part

    async def send(message: Message) -> None:
        sent.append(message)

    known = {"host": "localhost", "content-type": "multipart/form-data; boundary=x", **headers}
    scope = {
        "type": "http", "method": "POST", "path": "/api/predict", "raw_path": b"/api/predict",
        "query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1",
        "headers": [(key.encode(), value.encode()) for key, value in known.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "asgi": {"version": "3.0"},
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], body


def chunk(body: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def test_size_is_counted_whatever_is_announced(taught: Path) -> None:
    limits = Limits(body_bytes=1000)
    head = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a"\r\n\r\n'
    parts = [chunk(head), *(chunk(b"0" * 300) for _ in range(4))]
    status, body = ask(taught, parts, limits)
    assert status == 413
    assert b"A request may have 0 MB" in body
    for length in ("1001", "-1", "many"):
        status, _ = ask(taught, (), limits, **{"content-length": length})
        assert status == 413


def test_an_upload_that_takes_too_long(taught: Path) -> None:
    status, body = ask(taught, [chunk(b"--x\r\n")], Limits(seconds=0.05))
    assert status == 408
    assert b"took more than" in body


def test_a_client_that_goes_away(taught: Path) -> None:
    status, body = ask(taught, [chunk(b"--x\r\n"), {"type": "http.disconnect"}], Limits())
    assert (status, body) == (400, b"")
    assert png("a")
