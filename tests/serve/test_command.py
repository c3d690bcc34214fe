"""``perdure serve`` in a process of its own: it says where it is, answers, and ends with Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from perdure.cli.main import main


def started(*words: object, **environment: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "perdure.cli", "serve", *map(str, words), "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )
    assert process.stdout is not None
    lines = ""
    while not lines.endswith("}\n"):
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        lines += line
    return process, json.loads(lines)


def ended(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    return told


def test_it_answers_and_ends(pets: Path) -> None:
    process, said = started(pets)
    try:
        assert said["url"].startswith("http://127.0.0.1:")
        assert said["token"] is None
        with urllib.request.urlopen(said["url"] + "api/model", timeout=30) as answer:
            assert [one["name"] for one in json.load(answer)["classes"]] == ["a", "b", "c"]
    finally:
        told = ended(process)
    assert told.strip() == "interrupted."


@pytest.mark.slow  # the token itself is tested without a process
def test_another_address_gets_a_token(pets: Path) -> None:
    process, said = started(pets, "--host", "0.0.0.0")
    try:
        port, token = said["url"].rpartition(":")[2].partition("/")[0], said["token"]
        assert said["url"].endswith(f"#token={token}")
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/api/model")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(asked, timeout=30)
        asked.add_header("authorization", f"Bearer {token}")
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert json.load(answer)["read_only"] is False
    finally:
        ended(process)


def test_what_cannot_be_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").touch()
    new = str(tmp_path / "new")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, code, told in (
            ([str(tmp_path / "other")], 1, "not empty and holds no model"),
            ([new, "--port", port], 1, f"port {port} (Address already in use)"),
            ([new, "--port", "70000"], 2, "is no port"),
            ([new, "--photos", "nowhere"], 2, "there is no such folder"),
            ([new, "lr=x"], 2, "lr"),
        ):
            assert main(["serve", *words]) == code
            assert told in capsys.readouterr().err


def test_keys_of_a_model_that_is_there_are_refused(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(pets), "epochs=8"]) == 2
    assert "epochs: " in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    pets.rename(tmp_path / "run" / "model")
    assert main(["serve", str(tmp_path / "run")]) == 1
    assert "is a finished run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_name_from_elsewhere_asks_for_a_token(pets: Path) -> None:
    process, said = started(pets, "--allow-host", "pets.example.org", PYTHONUNBUFFERED="")
    try:
        assert said["token"]
    finally:
        ended(process)


@pytest.mark.slow
def test_a_token_of_any_letters_is_in_the_address(pets: Path) -> None:
    process, said = started(pets, PERDURE_TOKEN="a+b/c=")
    try:
        assert said["url"].endswith("#token=a%2Bb%2Fc%3D")
    finally:
        ended(process)
