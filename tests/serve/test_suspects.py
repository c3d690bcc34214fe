"""Suspects of a lesson by REST: told when it is done, corrected as if they had never been taught so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from perdure.cli.new_model import new_model
from perdure.learner import ContinualClassifier
from tests.serve.conftest import Serve, finished, labelled, names, png, zipped
from tests.serve.test_guard import problem
from tests.tiny import MODEL, classifier


def with_a_stranger(label: str = "z", place: int = 2) -> dict[str, Any]:
    """Pictures of z, and one of a among them."""
    form = labelled("z", count=6)
    form["files"][place] = ("files", ("odd.png", png("a", 9)))
    form["data"]["labels"][place] = label
    return form


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold equal tensors and classes."""
    ours, theirs = (ContinualClassifier.load(folder) for folder in (one, other))
    tensors, expected = ours.model.state(), theirs.model.state()
    return (
        ours.classes_.tolist() == theirs.classes_.tolist()
        and tensors.keys() == expected.keys()
        and all(torch.equal(tensors[key], expected[key]) for key in tensors)
    )


def test_a_picture_of_another_class_is_told(client: TestClient) -> None:
    job = finished(client, client.post("/api/lessons", **with_a_stranger()))
    (suspect,) = job["suspects"]
    assert suspect.pop("probability") > 0.5
    assert suspect == {"place": 2, "image": "odd.png", "label": "z", "answer": "a"}
    upload = {f"y/{k}.png": png("y", 0, k) for k in range(5)}
    upload["y/odd.png"] = png("b", 9)
    job = finished(
        client, client.post("/api/lessons", files=[("files", ("y.zip", zipped(upload)))])
    )
    assert [(one["image"], one["answer"]) for one in job["suspects"]] == [("odd.png", "b")]


def test_a_corrected_lesson_is_as_if_it_had_been_taught_so(
    client: TestClient, serve: Serve, pets: Path, taught: Path, tmp_path: Path
) -> None:
    job = finished(client, client.post("/api/lessons", **with_a_stranger()))
    url = f"/api/lessons?instead_of={job['number']}"
    again = finished(client, client.post(url, **with_a_stranger("a")))
    assert (again["state"], again["suspects"]) == ("done", [])
    literal = ContinualClassifier.load(taught)
    form = with_a_stranger("a")
    (tmp_path / "photos").mkdir()
    paths = []
    for name, content in (entry for _, entry in form["files"]):
        (tmp_path / "photos" / name).write_bytes(content)
        paths.append(tmp_path / "photos" / name)
    literal.learn(paths, form["data"]["labels"]).save(tmp_path / "literal")
    assert same(pets, tmp_path / "literal")
    undoable = client.get("/api/lessons").json()["undoable"]
    assert [one["text"] for one in undoable] == [
        "learned c (6 images)",
        "learned z and more of a (6 images)",
    ]
    client.delete("/api/lessons/last")
    assert names(client) == ["a", "b", "c"]
    assert same(pets, taught)


def _as_the_command_makes_it() -> ContinualClassifier:
    return new_model({**MODEL, "device": "cpu"})


@pytest.mark.parametrize("fresh", [classifier, _as_the_command_makes_it])
def test_the_first_lesson_is_corrected_too(
    serve: Serve, tmp_path: Path, fresh: Callable[[], ContinualClassifier]
) -> None:
    client = serve(tmp_path / "new", fresh=fresh)
    form = labelled("a", "b", count=6)
    form["data"]["labels"][0] = "b"
    job = finished(client, client.post("/api/lessons", **form))
    assert [(one["place"], one["answer"]) for one in job["suspects"]] == [(0, "a")]
    url = f"/api/lessons?instead_of={job['number']}"
    finished(client, client.post(url, **labelled("a", "b", count=6)))
    fresh().learn(*_arrays("a", "b", count=6)).save(tmp_path / "literal")
    assert same(tmp_path / "new", tmp_path / "literal")
    assert client.get("/api/lessons").json()["undoable"] == []
    told = problem(client.delete("/api/lessons/last"), 409)
    assert "the first lesson made the model" in told


def _arrays(*classes: str, count: int) -> tuple[list[Any], list[str]]:
    from tests.tiny import lesson

    return lesson(*classes, count=count)


def test_only_the_last_change_can_be_replaced(client: TestClient, pets: Path) -> None:
    for number in (0, 7):
        answer = client.post(f"/api/lessons?instead_of={number}", **labelled("z"))
        assert f"Lesson {number} is not the last change" in problem(answer, 409)
    job = finished(client, client.post("/api/lessons", **labelled("z")))
    client.post("/api/classes/rename", json={"name": "z", "new": "y"})
    url = f"/api/lessons?instead_of={job['number']}"
    assert "is not the last change" in problem(client.post(url, **labelled("z")), 409)
    job = finished(client, client.post("/api/lessons", **labelled("x")))
    ContinualClassifier.load(pets).rename_class("x", "w").save(pets)  # by another process
    url = f"/api/lessons?instead_of={job['number']}"
    assert "is not the last change" in problem(client.post(url, **labelled("z")), 409)


def test_a_correction_that_fails_changes_nothing(client: TestClient, pets: Path) -> None:
    job = finished(client, client.post("/api/lessons", **labelled("z")))
    form = labelled("z", count=2)
    form["files"][0] = ("files", ("cut.png", png("z")[:80]))
    answer = client.post(f"/api/lessons?instead_of={job['number']}", **form)
    failed = finished(client, answer) if answer.status_code == 202 else {"state": "failed"}
    assert failed["state"] == "failed"
    assert names(client) == ["a", "b", "c", "z"]
    again = client.post(f"/api/lessons?instead_of={job['number']}", **labelled("y"))
    finished(client, again)
    assert names(client) == ["a", "b", "c", "y"]


def test_trained_prompts_tell_none(serve: Serve, tmp_path: Path) -> None:
    client = serve(tmp_path / "new", fresh=lambda: classifier("nsp2"))
    job = finished(client, client.post("/api/lessons", **labelled("a", "b")))
    assert (job["state"], job["suspects"]) == ("done", [])
