from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock, Timeout
from PIL import Image

from perdure.atomic import LOCK
from perdure.cli.main import main
from perdure.learner import ContinualClassifier
from tests.cli.command import Perdure

TINY = ("--backbone", "test_vit", "weights=random", "img_size=32")


def draw(folder: Path, *names: str, count: int = 3) -> Path:
    """A folder per class of pictures that differ by class."""
    for name in names:
        random = np.random.default_rng([ord(letter) for letter in name])
        base = random.integers(0, 256, (4, 4, 3))
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(base + random.integers(-30, 30, (4, 4, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).resize((40, 36)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was taught two classes; not to be changed."""
    place = tmp_path_factory.mktemp("taught")
    draw(place / "photos", "cat", "dog")
    words = ["learn", str(place / "pets"), str(place / "photos"), "--method", "lda", *TINY, "-q"]
    assert main(words) == 0
    return place / "pets"


@pytest.fixture
def pets(taught: Path, tmp_path: Path) -> Path:
    """A copy of that model."""
    return Path(shutil.copytree(taught, tmp_path / "pets"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.is_file() and file.name != ".lock"
    }


@pytest.mark.long
def test_a_model_grows_lesson_by_lesson(perdure: Perdure, pets: Path, tmp_path: Path) -> None:
    photos = draw(tmp_path / "tuesday", "owl", "cat")
    said = perdure("learn", pets, photos, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["classes"] == ["cat", "dog", "owl"]
    assert found["lesson"]["new"] == ["owl"]
    assert found["lesson"]["images"] == {"cat": 3, "owl": 3}
    assert found["bytes"]["learning"] > 0

    scored = json.loads(perdure("eval", pets, photos, "--json").out)
    assert scored["overall"]["images"] == 6
    assert scored["classes"]["owl"]["images"] == 3
    assert perdure("predict", pets, photos / "owl" / "0.png").code == 0


def test_show_tells_what_a_model_has_been_through(perdure: Perdure, pets: Path) -> None:
    item = json.loads(perdure("show", pets, "--json").out)[0]
    assert (item["kind"], item["method"], item["classes"]) == ("model", "lda", ["cat", "dog"])
    assert item["can_learn_on"]
    assert item["lessons"][0]["images"] == {"cat": 3, "dog": 3}
    said = perdure("show", pets).out
    assert "2: cat, dog" in said
    assert "lesson  new classes" in said


def test_show_of_a_folder_without_a_model(perdure: Perdure, photos: Path) -> None:
    said = perdure("show", photos)
    assert said.code == 2
    assert "is a folder without a saved model. To see its images as a stream" in said.err
    assert said.err.endswith(f"perdure show {photos} --plot\n")


def test_show_finds_the_model_of_a_run(perdure: Perdure, finished: Path) -> None:
    item = json.loads(perdure("show", finished, "--json").out)[0]
    assert item["name"] == str(finished / "model")


def test_summary_names_classes_and_images(perdure: Perdure, pets: Path, tmp_path: Path) -> None:
    said = perdure(
        "learn", pets, draw(tmp_path / "more", "eel", count=10), "calibration_fraction=0.2"
    )
    assert "learned   1 new class (eel): 10 images\n" in said.out
    assert "% of images left out in turn, among" in said.out
    assert "among all classes so far (gaussian; calibration error" in said.out
    assert "accuracy on images left out in turn: gaussian" in said.err
    assert f"perdure predict {pets} IMAGE…" in said.out


def test_what_fails_leaves_the_old_model(perdure: Perdure, pets: Path, tmp_path: Path) -> None:
    before = contents(pets)
    photos = draw(tmp_path / "bad", "owl", "emu")
    (photos / "emu" / "0.png").write_bytes(b"no image")
    said = perdure("learn", pets, photos)
    assert (said.code, "emu/0.png" in said.err) == (1, True)
    assert "skip_unreadable=true" in said.err
    assert contents(pets) == before
    assert perdure("learn", pets, photos, "--skip-unreadable", "-q").code == 0


def test_interrupted_lesson_leaves_the_old_model(
    perdure: Perdure, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(pets)
    photos = draw(tmp_path / "photos", "owl")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ContinualClassifier, "learn", interrupt)
    said = perdure("learn", pets, photos)
    assert said.code == 130
    assert "Go on with: perdure learn" in said.err
    assert contents(pets) == before


def test_a_failed_first_lesson_leaves_no_folder(perdure: Perdure, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = perdure("learn", tmp_path / "new", tmp_path / "empty", *TINY)
    assert said.code == 1
    assert "holds no class folder" in said.err
    assert not (tmp_path / "new").exists()


def test_inference_only_cannot_learn_on(perdure: Perdure, pets: Path, tmp_path: Path) -> None:
    assert perdure("save", pets, tmp_path / "small", "--inference-only").code == 0
    assert "no, it was saved for inference only" in perdure("show", tmp_path / "small").out
    said = perdure("learn", tmp_path / "small", draw(tmp_path / "more", "owl"))
    assert said.code == 1
    assert "saved for inference only" in said.err


def test_another_process_is_kept_out(
    perdure: Perdure, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = draw(tmp_path / "photos", "owl")
    with FileLock(pets / LOCK):
        said = perdure("learn", pets, photos)
    assert said.code == 1
    assert "Another process is saving a model" in said.err

    new = tmp_path / "new"
    new.mkdir()
    with FileLock(new / LOCK):  # another first lesson
        said = perdure("learn", new, photos)
    assert said.code == 1
    assert "Another process is saving a model" in said.err

    def learn(self: ContinualClassifier, *_: object, **__: object) -> None:
        with pytest.raises(Timeout), FileLock(pets / LOCK, timeout=0):
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(ContinualClassifier, "learn", learn)
    assert perdure("learn", pets, photos).code == 130


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--method", "nsp"], 2, "nsp2"),
        (["epochs"], 2, "'epochs' is not of the form key=value"),
        (["method=nsp2", "--method", "lda"], 2, "method is named twice"),
        (["tasks=B0-Inc2"], 2, "tasks"),
        (["calibration_fraction=2"], 2, "calibration_fraction=2"),
        (["eporchs=2"], 2, "Did you mean 'epochs'?"),
    ],
)
def test_nonsense_is_refused(
    perdure: Perdure, tmp_path: Path, words: list[str], code: int, text: str
) -> None:
    photos = draw(tmp_path / "photos", "cat", "dog")
    said = perdure("learn", tmp_path / "new", photos, *TINY, *words)
    assert said.code == code, said.err
    assert text in said.err
    assert not (tmp_path / "new").exists()


def test_what_is_fixed_cannot_change(perdure: Perdure, pets: Path, tmp_path: Path) -> None:
    said = perdure("learn", pets, draw(tmp_path / "photos", "owl"), "--method", "nsp2")
    assert said.code == 2
    assert "this classifier has learned under method='lda'" in said.err


def test_folders_of_something_else_are_refused(
    perdure: Perdure, finished: Path, photos: Path, tmp_path: Path
) -> None:
    said = perdure("learn", finished, photos)
    assert (said.code, f"perdure save {finished} MODEL" in said.err) == (1, True)
    said = perdure("learn", photos, photos)
    assert (said.code, "is not empty and holds no model" in said.err) == (1, True)
    said = perdure("learn", photos / "cat" / "0.png", photos)
    assert (said.code, "is a file, not a folder" in said.err) == (1, True)


def test_eval_refuses_an_unknown_class(perdure: Perdure, pets: Path, tmp_path: Path) -> None:
    said = perdure("eval", pets, draw(tmp_path / "photos", "cat", "dgo"))
    assert said.code == 1
    assert "'dgo' was never learned. Did you mean 'dog'?" in said.err


@pytest.mark.long
def test_what_is_left_out_of_a_lesson_is_no_rule_for_the_next(
    perdure: Perdure, pets: Path, tmp_path: Path
) -> None:
    photos = draw(tmp_path / "monday", "owl", count=4)
    (photos / "owl" / "0.png").write_bytes((photos / "owl" / "0.png").read_bytes()[:60])
    words = ("learn", pets, photos, "--device", "cpu")
    assert perdure(*words, "--skip-unreadable", "-q").code == 0
    said = perdure(*words)
    assert said.code == 1
    assert "skip" in said.err
    assert perdure("eval", pets, photos).code == 1
    (photos / "owl" / "0.png").unlink()
    assert perdure(*words, "-q").code == 0
