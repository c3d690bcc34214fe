"""REST: predict, teach, undo, edit, evaluate; what the folder holds afterwards."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import numpy as np
from starlette.testclient import TestClient

from perdure.learner import ContinualClassifier
from perdure.serve.limits import Limits
from perdure.serve.served import ServedModel
from perdure.serve.uploads import as_folder
from perdure.streams.decoding import EncodedImage
from tests.serve.conftest import Serve, finished, labelled, names, png, zipped
from tests.serve.test_guard import problem
from tests.tiny import classifier, lesson


def test_predict_is_as_the_command_says(client: TestClient, pets: Path) -> None:
    given = [("a.png", png("a", 7)), ("b.png", png("b", 7)), ("bad.png", b"")]
    files = [("files", one) for one in given]
    answers = client.post("/api/predict?top=2", files=files).json()
    loaded = ContinualClassifier.load(pets)
    images = [EncodedImage(name, content) for name, content in given]
    expected = [one.to_dict() for one in loaded.predict_files(images, top=2)]
    assert answers == json.loads(json.dumps(expected))
    assert answers[0]["class"] == "a"
    assert answers[2] == {"path": "bad.png", "error": "the file is empty"}
    encoded = [
        {"name": name, "data": base64.b64encode(content).decode()} for name, content in given
    ]
    assert client.post("/api/predict?top=2", json={"images": encoded}).json() == answers
    plain = base64.b64encode(given[0][1]).decode()
    one = client.post("/api/predict", json={"images": [f"data:image/png;base64,{plain}"]}).json()
    assert [one[0]["path"], one[0]["class"], len(one[0]["top"])] == ["image 0", "a", 3]


def test_strangers_are_told_as_the_command_tells_them(client: TestClient, pets: Path) -> None:
    model = client.get("/api/model").json()
    assert model["least_reject"] == 1 / 19
    given = [(f"{name}{k}.png", png(name, 9, k)) for name in "abz" for k in range(3)]
    files = [("files", one) for one in given]
    answers = client.post("/api/predict?reject=0.5", files=files).json()
    images = [EncodedImage(name, content) for name, content in given]
    loaded = ContinualClassifier.load(pets)
    expected = [one.to_dict() for one in loaded.predict_files(images, reject=0.5)]
    assert [one["class"] for one in answers] == [one["class"] for one in expected]
    assert np.allclose(
        [one["familiarity"] for one in answers], [one["familiarity"] for one in expected], atol=0.06
    )
    assert None in [one["class"] for one in answers[6:]], "of a class never taught"
    labels = [name.replace("z", "none") for name in "aaabbbzzz"]
    said = client.post("/api/evaluate?reject=0.5", files=files, data={"labels": labels}).json()
    rejected = [one["class"] is None for one in answers]
    assert said["classes"]["none"] == {"images": 3, "correct": sum(rejected[6:])}
    assert client.post("/api/evaluate", files=files, data={"labels": labels}).status_code == 422
    for share in ("0.001", "2"):
        assert client.post(f"/api/predict?reject={share}", files=files).status_code == 422


def test_a_lesson_from_nothing_to_undo(serve: Serve, tmp_path: Path) -> None:
    client = serve(tmp_path / "new", fresh=classifier)
    assert client.get("/healthz").json()["model"] == "empty"
    assert client.post("/api/predict", files=[("files", png("a"))]).status_code == 409
    assert client.delete("/api/lessons/last").status_code == 409
    job = finished(client, client.post("/api/lessons", **labelled("a", "b")))
    assert (job["state"], job["images"], job["lesson"]["new"]) == ("done", 8, ["a", "b"])
    assert job["lesson"]["images"] == {"a": 4, "b": 4}
    finished(client, client.post("/api/lessons", **labelled("c")))
    assert names(client) == ["a", "b", "c"]
    assert ContinualClassifier.load(tmp_path / "new").classes_.tolist() == ["a", "b", "c"]
    told = client.get("/api/lessons").json()
    assert [len(lesson["new"]) for lesson in told["lessons"]] == [2, 1]
    assert [one["text"] for one in told["undoable"]] == ["learned c (4 images)"]
    undone = client.delete("/api/lessons/last").json()
    assert undone["undone"] == "learned c (4 images)"
    assert names(client) == ["a", "b"]
    assert ContinualClassifier.load(tmp_path / "new").classes_.tolist() == ["a", "b"]
    answer = client.delete("/api/lessons/last")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert "nothing to undo" in answer.json()["detail"]


def test_a_lesson_of_base64_zip_and_folder(client: TestClient, serve: Serve, pets: Path) -> None:
    images = [{"data": base64.b64encode(png("d", 0, k)).decode(), "label": "d"} for k in range(2)]
    finished(client, client.post("/api/lessons", json={"images": images}))
    photos = {f"e/{k}.png": png("e", 0, k) for k in range(3)}
    upload = [("files", ("photos.zip", zipped(photos)))]
    job = finished(client, client.post("/api/lessons", files=upload))
    assert (job["state"], job["images"], job["error"]) == ("done", 3, None)
    for name, content in photos.items():
        path = pets.parent / "allowed" / "monday" / name.replace("e/", "f/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert client.post("/api/lessons", json={"folder": "monday"}).status_code == 403
    assert client.post("/api/lessons", json={"folder": "monday"}).json()["status"] == 403
    again = serve(pets, photos=pets.parent / "allowed")
    finished(again, again.post("/api/lessons", json={"folder": "monday"}))
    assert names(again) == [*"abcdef"]
    for outside in ("..", "../pets", "/", "no"):
        assert again.post("/api/lessons", json={"folder": outside}).status_code == 422


def test_classes_are_renamed_merged_and_forgotten(client: TestClient, pets: Path) -> None:
    said = client.post("/api/classes/rename", json={"name": "a", "new": "<b>ä</b>"}).json()
    assert [one["name"] for one in said["classes"]] == ["<b>ä</b>", "b", "c"]
    assert said["classes"][0]["images"] == 6
    client.post("/api/classes/merge", json={"name": "<b>ä</b>", "into": "b"})
    assert names(client) == ["b", "c"]
    told = client.post("/api/classes/forget", json={"name": "c"}).json()
    assert told["forgotten"]["name"] == "c"
    assert names(client) == ["b"]
    assert ContinualClassifier.load(pets).classes_.tolist() == ["b"]
    assert [one["text"] for one in client.get("/api/lessons").json()["undoable"]][-1].endswith("b")
    for action, content in (
        ("rename", {"name": "x", "new": "y"}),
        ("rename", {"name": "b", "new": "b"}),
        ("merge", {"name": "b", "into": "x"}),
        ("forget", {"name": "x"}),
        ("forget", {}),
    ):
        assert client.post(f"/api/classes/{action}", json=content).status_code == 422


def test_evaluate_counts_and_adds_up(client: TestClient, pets: Path) -> None:
    form = labelled("a", "b", count=3, seed=5)
    form["data"]["labels"][0] = "b"  # a picture of a
    form["files"].append(("files", ("bad.png", b"no")))
    form["data"]["labels"].append("c")
    said = client.post("/api/evaluate", **form).json()
    assert (said["images"], said["correct"], said["unreadable"]) == (6, 5, 1)
    assert said["classes"]["b"] == {"images": 4, "correct": 3}
    assert said["confusions"] == [{"class": "b", "answer": "a", "places": [0]}]
    assert [one.get("class") for one in said["answers"]] == ["a", "a", "a", "b", "b", "b", None]
    upload = [("files", ("t.zip", zipped({"a/1.png": png("a", 5), "b/1.png": png("b", 5)})))]
    said = client.post("/api/evaluate", files=upload).json()
    report = ContinualClassifier.load(pets).report([png("a", 5), png("b", 5)], ["a", "b"])
    assert (said["images"], said["correct"]) == (report.overall.images, report.overall.correct)
    stranger = client.post("/api/evaluate", **labelled("z"))
    assert stranger.status_code == 422
    assert "was never learned" in stranger.json()["detail"]


def test_read_only(serve: Serve, pets: Path) -> None:
    client = serve(pets, read_only=True)
    assert client.get("/api/model").json()["can_learn"] is False
    assert client.post("/api/predict", files=[("files", png("a"))]).json()[0]["class"] == "a"
    tried = [
        client.post("/api/lessons", **labelled("z")),
        client.delete("/api/lessons/last"),
        client.post("/api/classes/forget", json={"name": "a"}),
        client.post("/api/classes/rename", json={"name": "a", "new": "b2"}),
    ]
    assert [answer.status_code for answer in tried] == [403] * 4
    assert names(client) == ["a", "b", "c"]


def test_images_are_kept_only_where_asked(serve: Serve, pets: Path, tmp_path: Path) -> None:
    client = serve(pets, keep_images=tmp_path / "kept")
    finished(client, client.post("/api/lessons", **labelled("../z", count=2)))
    upload = [("files", ("t.zip", zipped({"y/1.png": png("y"), "y/2.png": png("y", 1)})))]
    finished(client, client.post("/api/lessons", files=upload))
    kept = {
        path.relative_to(tmp_path / "kept").parts[0] for path in (tmp_path / "kept").rglob("*.png")
    }
    assert kept == {as_folder("../z"), "y"}
    assert len(list((tmp_path / "kept").rglob("*.png"))) == 4
    contents = {path.read_bytes() for path in (tmp_path / "kept" / "y").iterdir()}
    assert contents == {png("y"), png("y", 1)}
    (tmp_path / "file").touch()
    again = serve(pets, keep_images=tmp_path / "file")
    job = finished(again, again.post("/api/lessons", **labelled("w", count=2)))
    assert job["state"] == "done"
    assert "could not be put away" in job["notes"][-1]


def test_another_process_changes_the_model(client: TestClient, pets: Path) -> None:
    ContinualClassifier.load(pets).rename_class("a", "renamed").save(pets)
    assert names(client) == ["a", "b", "c"]
    client.post("/api/classes/rename", json={"name": "b", "new": "bb"})
    assert names(client) == ["bb", "c", "renamed"]


def test_metrics_and_description(client: TestClient) -> None:
    client.post("/api/predict", files=[("files", png("a"))])
    client.get("/nothing")
    text = client.get("/metrics").text
    assert 'perdure_requests_total{route="/api/predict",status="200"} 1.0' in text
    assert "perdure_images_total 1.0" in text
    assert "perdure_classes 3.0" in text
    paths = client.get("/openapi.json").json()["paths"]
    assert {
        "/healthz", "/api/model", "/api/predict", "/api/lessons", "/api/lessons/last",
        "/api/classes/rename", "/api/classes/merge", "/api/classes/forget", "/api/evaluate", "/metrics",
    } <= paths.keys()  # fmt: skip
    assert "multipart/form-data" in paths["/api/predict"]["post"]["requestBody"]["content"]
    assert client.get("/").text.startswith("<!doctype html>")


def test_answers_are_those_of_one_alone(client: TestClient, pets: Path) -> None:
    given = [png(name, seed, 0) for name in "abc" for seed in range(7)]
    together = client.post("/api/predict", files=[("files", one) for one in given]).json()
    alone = [client.post("/api/predict", files=[("files", one)]).json()[0] for one in given]
    for one, other in zip(together, alone, strict=True):
        assert one["class"] == other["class"]
        assert np.isclose(one["probability"], other["probability"], rtol=1e-4, atol=1e-5)
    assert ServedModel(pets).version == 0
    assert Limits().predicted >= len(given)


def test_images_of_a_class_that_was_forgotten_do_not_count(client: TestClient) -> None:
    client.post("/api/classes/forget", json={"name": "a"})
    finished(client, client.post("/api/lessons", **labelled("a", count=5)))
    counts = {one["name"]: one["images"] for one in client.get("/api/model").json()["classes"]}
    assert counts["a"] == 5


def test_a_folder_is_evaluated_whatever_its_size(serve: Serve, pets: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / "test" / name).mkdir(parents=True)
        for place in range(5):
            (tmp_path / "photos" / "test" / name / f"{place}.png").write_bytes(png(name, 5, place))
    (tmp_path / "photos" / "test" / "a" / "cut.png").write_bytes(png("a")[:70])
    limits = Limits(predicted=3, waiting=4)
    client = serve(pets, limits=limits, photos=tmp_path / "photos")
    found = client.post("/api/evaluate", json={"folder": "test"}).json()
    assert (found["images"], found["unreadable"]) == (10, 1)
    assert sorted(one["path"] for one in found["answers"])[0] == "a/0.png"
    told = problem(client.post("/api/evaluate", json={"folder": "test/a"}), 422)
    assert str(tmp_path) not in told


def test_a_damaged_version_is_nothing_to_undo(client: TestClient, pets: Path) -> None:
    (version,) = (pets / "versions").iterdir()
    version.write_bytes(version.read_bytes()[:100])
    lessons = client.get("/api/lessons").json()
    assert (len(lessons["lessons"]), lessons["undoable"]) == (2, [])
    assert "is damaged" in problem(client.delete("/api/lessons/last"), 409)


def test_a_lesson_that_is_done_leaves_the_way_free(client: TestClient) -> None:
    place = client.post("/api/lessons", **labelled("z")).headers["location"]
    while client.get(place).json()["state"] == "learning":
        time.sleep(0.005)
    assert client.get("/api/model").json()["busy"] is False


def test_a_model_that_was_made_meanwhile_is_learned_on(serve: Serve, tmp_path: Path) -> None:
    client = serve(tmp_path / "new", fresh=classifier)
    classifier().learn(lesson("a", "b")).save(tmp_path / "new")
    finished(client, client.post("/api/lessons", **labelled("z")))
    assert names(client) == ["a", "b", "z"]
