"""Requests share forwards, each under the state it began with; one change at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from perdure.learner import ContinualClassifier
from perdure.learner.state import LearnerState
from perdure.serve.batches import MicroBatches
from tests.serve.conftest import finished, labelled, names, png
from tests.serve.test_guard import problem
from tests.tiny import classifier, lesson, pictures


def pixels(name: str, count: int) -> list[torch.Tensor]:
    return [torch.from_numpy(one).permute(2, 0, 1) for one in pictures(name, count)]


@pytest.fixture(scope="module")
def states() -> tuple[LearnerState, LearnerState]:
    """A state, and the one after a further lesson."""
    learner = classifier().learn(lesson("a", "b"))
    before = learner.state_
    return before, learner.learn(lesson("c")).state_


def test_images_that_arrive_together_share_a_forward(
    states: tuple[LearnerState, LearnerState],
) -> None:
    sizes: list[int] = []
    batches = MicroBatches(most=8, wait=0.3, on_batch=lambda images, _: sizes.append(images))
    with batches._changed:  # none is taken before all are there
        futures = [batches.submit(states[0], "gaussian", pixels(name, 3)) for name in "abab"]
    scores = [torch.stack([future.result(30)[0] for future in request]) for request in futures]
    batches.close()
    assert sizes == [8, 4]
    for name, found in zip("abab", scores, strict=True):
        alone = states[0].scores([torch.stack(pixels(name, 3))], ["gaussian"])["gaussian"]
        assert torch.allclose(found, alone, rtol=1e-5, atol=1e-5 * float(alone.abs().max()))


def test_one_alone_waits_no_longer_than_said(states: tuple[LearnerState, LearnerState]) -> None:
    batches = MicroBatches(wait=0.02)
    batches.submit(states[0], "gaussian", pixels("a", 1))[0].result(30)
    began = time.monotonic()
    batches.submit(states[0], "gaussian", pixels("a", 1))[0].result(30)
    assert time.monotonic() - began < 2
    batches.close()


def test_states_are_never_mixed(states: tuple[LearnerState, LearnerState]) -> None:
    sizes: list[int] = []
    batches = MicroBatches(most=8, wait=0.3, on_batch=lambda images, _: sizes.append(images))
    with batches._changed:
        old, new, last = (
            batches.submit(state, "gaussian", pixels("c", 2)) for state in (*states, states[0])
        )
    assert [len(one[0].result(30)[0]) for one in (old, new, last)] == [2, 3, 2]
    batches.close()
    assert sizes == [4, 2], "those of one state join, past those of another"


def test_a_failure_is_told_to_each_and_those_gone_are_left_out(
    states: tuple[LearnerState, LearnerState],
) -> None:
    sizes: list[int] = []
    batches = MicroBatches(wait=0.2, on_batch=lambda images, _: sizes.append(images))
    futures = batches.submit(states[0], "no such head", pixels("a", 2))
    for future in futures:
        with pytest.raises(KeyError):
            future.result(30)
    with batches._changed:
        gone, kept = batches.submit(states[0], "gaussian", pixels("a", 2))
        assert gone.cancel()
    assert len(kept.result(30)[0]) == 2
    batches.close()
    assert sizes == [2, 1]


def test_predictions_go_on_while_a_lesson_is_learned(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    learn = ContinualClassifier.learn

    def slow(self: ContinualClassifier, *args: Any, **more: Any) -> ContinualClassifier:
        begun.set()
        assert go_on.wait(30)
        return learn(self, *args, **more)

    monkeypatch.setattr(ContinualClassifier, "learn", slow)
    accepted = client.post("/api/lessons", **labelled("z"))
    assert begun.wait(30)
    ask = {"files": [("files", ("z.png", png("z", 5)))]}
    tops = [{one["class"] for one in client.post("/api/predict", **ask).json()[0]["top"]}]
    assert client.get("/api/model").json()["busy"] is True
    assert client.get("/api/lessons").json()["job"]["state"] == "learning"
    for answer in (
        client.post("/api/lessons", **labelled("y")),
        client.delete("/api/lessons/last"),
        client.post("/api/classes/forget", json={"name": "a"}),
    ):
        assert "in progress" in problem(answer, 409)
        assert answer.headers["retry-after"] == "2"
    go_on.set()
    assert finished(client, accepted)["state"] == "done"
    tops.append({one["class"] for one in client.post("/api/predict", **ask).json()[0]["top"]})
    assert tops == [{"a", "b", "c"}, {"a", "b", "c", "z"}]


def test_many_ask_while_the_model_changes(client: TestClient, pets: Path) -> None:
    """Every answer is of the model before or after a change: its classes are of one of them."""
    seen: list[frozenset[str]] = []
    faults: list[str] = []
    end = threading.Event()

    def ask() -> None:
        while not end.is_set():
            files = [("files", (f"{k}.png", png("a", k))) for k in range(3)]
            answer = client.post("/api/predict", files=files)
            if answer.status_code != 200:
                faults.append(answer.text)
                return
            found = {frozenset(one["class"] for one in row["top"]) for row in answer.json()}
            seen.extend(found)
            if len(found) != 1:
                faults.append(f"a mixture: {found}")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    finished(client, client.post("/api/lessons", **labelled("z")))
    client.post("/api/classes/rename", json={"name": "z", "new": "y"})
    client.delete("/api/lessons/last")
    client.delete("/api/lessons/last")
    end.set()
    for thread in threads:
        thread.join()
    assert faults == []
    three = frozenset("abc")
    assert set(seen) <= {three, three | {"z"}, three | {"y"}}
    assert names(client) == ["a", "b", "c"]
    assert ContinualClassifier.load(pets).classes_.tolist() == ["a", "b", "c"]
