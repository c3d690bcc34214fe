"""What a saved model gives back, what it refuses, and that every earlier format loads."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.backbones.catalog import create_backbone
from perdure.engine.config import make_config
from perdure.errors import CheckpointError
from perdure.learner import ContinualClassifier
from perdure.learner.history import History
from perdure.learner.saved.contents import Sizes, is_model, read_contents
from perdure.learner.saved.format import FORMAT, encode
from perdure.types import Task
from tests.learner.models import (
    FILES,
    MODELS,
    OLD,
    copy,
    load,
    names,
    new_classifier,
    old_classifier,
    same,
)
from tests.learner.portable import portable_pictures

VOUCHED = sorted(FILES - {"README.md"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the model of the present format."""
    return copy(MODELS / f"format-{FORMAT}", tmp_path / "model")


def sealed(values: Mapping[str, Any]) -> bytes:
    """``config.json`` with a checksum that holds, written as the page of the format says."""
    blank = "0" * 64
    text = encode({**values, "sha256": blank})
    return text.replace(blank.encode(), hashlib.sha256(text).hexdigest().encode())


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_bytes(sealed({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_every_format_loads_and_scores_as_stored(number: int) -> None:
    folder = MODELS / f"format-{number}"
    assert is_model(folder)
    loaded = load(folder)
    assert loaded.model.label_names == tuple(f"pattern_{k}" for k in range(4))
    assert [task.classes for task in loaded.model.tasks] == [(0, 1), (2, 3)]
    assert loaded.history_ == (History() if number == 1 else OLD)
    assert loaded.model.config.stream.data == "synthetic"  # `stream` when they were written
    for head, stored in json.loads((MODELS / "scores.json").read_text()).items():
        scores = loaded.logits(portable_pictures(), head)
        known = [label for label in range(4) if label not in loaded.history_.forgotten]
        assert torch.allclose(scores, torch.tensor(stored)[:, known], rtol=1e-4, atol=1e-5)
    counted = 516 if number == 1 else 548  # of 4 classes in the head ncm, 8 bytes each
    assert read_contents(folder).sizes == Sizes(prediction=3096, learning=counted)


def test_a_fixture_for_every_format() -> None:
    assert {path.name for path in MODELS.glob("format-*")} == {
        f"format-{number}" for number in range(1, FORMAT + 1)
    }


def test_round_trip(tmp_path: Path) -> None:
    for field in dataclasses.fields(History):
        if field.name in ("numbered", "separations", "spread_losses"):
            continue  # its classes are texts; test_familiarity has a round trip; and below
        assert getattr(OLD, field.name) != getattr(History(), field.name), "nothing untested"
    learned = new_classifier()
    history = dataclasses.replace(learned.history_, spread_losses={"linear": (2.5, 0.5)})
    new = ContinualClassifier.from_model(learned.model, history)
    found = new.save(tmp_path)
    assert same(load(tmp_path), new)
    assert names(tmp_path) == FILES
    assert found == read_contents(tmp_path).sizes
    state = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert found.prediction + found.learning == sum(t.nbytes for t in state.values())
    classes = json.loads((tmp_path / "classes.json").read_text())
    assert classes == {
        "classes": [*(f"pattern_{k}" for k in range(4)), "käfer", "|x|"],
        "tasks": [[0, 1], [2, 3], [4, 5]],
        "forgotten": [],
    }
    old_classifier().save(tmp_path)
    assert json.loads((tmp_path / "classes.json").read_text())["forgotten"] == [1]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    old_classifier().save(tmp_path)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before


def test_names_of_classes_that_are_no_text(tmp_path: Path) -> None:
    classifier = old_classifier()
    odd = ("\udcff", 'a"b\\n\n')
    classifier.model.start_task(Task(2, (4, 5), odd, 6))
    classifier.save(tmp_path)
    assert load(tmp_path).model.label_names[4:] == odd


def test_format_1_becomes_the_present_one(tmp_path: Path) -> None:
    folder = copy(MODELS / "format-1", tmp_path / "model")
    old_classifier().save(folder)
    assert names(folder) == FILES
    assert same(load(folder), old_classifier())


def test_the_card_may_be_edited_or_missing(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    assert same(load(folder), old_classifier())
    (folder / "README.md").unlink()
    assert same(load(folder), old_classifier())


# ----------------------------------------------------------------------------------- bad folders


@pytest.mark.long
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(VOUCHED), place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255)
)
def test_one_byte_changed(folder: Path, name: str, place: float, flip: int) -> None:
    path = folder / name
    whole = path.read_bytes()
    data = bytearray(whole)
    data[int(place * len(data))] ^= flip
    path.write_bytes(data)
    try:
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            read_contents(folder)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", VOUCHED)
def test_a_file_missing_or_cut(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"{name}' is damaged.*(backup|save the model)"):
        load(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"{name}' is missing\. Copy the model's folder"):
        load(folder)
    path.mkdir()
    with pytest.raises(CheckpointError, match=rf"{name}' cannot be read \(Is a directory\)"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("number", [1, FORMAT])
def test_no_json_object(tmp_path: Path, number: int, content: bytes) -> None:
    folder = copy(MODELS / f"format-{number}", tmp_path / "model")
    path = folder / ("model.json" if number == 1 else "config.json")
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"'{path}' is damaged"):
        load(folder)


@pytest.mark.parametrize(
    "change", [{"backbone_sha256": 0.5}, {"weights_sha256": []}, {"config": {"backbone": None}}]
)
def test_fields_of_another_kind_in_format_1(tmp_path: Path, change: dict[str, object]) -> None:
    path = copy(MODELS / "format-1", tmp_path / "model") / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=rf"{path.name}' holds what this version"):
        load(path.parent)


def test_the_description_of_something_else(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(CheckpointError, match=r"is not of a model of perdure: it names no format"):
        load(folder)


@pytest.mark.parametrize("number", [1, FORMAT])
def test_a_newer_format(tmp_path: Path, number: int) -> None:
    folder = copy(MODELS / f"format-{number}", tmp_path / "model")
    path = folder / ("model.json" if number == 1 else "config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": FORMAT + 1}))
    said = rf"{path.name}' is of format 3; this version .* reads formats 1 to 2\. Type: pip install"
    with pytest.raises(CheckpointError, match=said):
        load(folder)


def test_keys_and_files_that_are_not_known(folder: Path) -> None:
    change(folder, shape="round")
    with pytest.raises(CheckpointError, match=r"config\.json' holds what .* not know \(shape: "):
        load(folder)
    copy(MODELS / f"format-{FORMAT}", folder)
    history = json.loads((folder / "config.json").read_text())["history"]
    change(folder, history={**history, "mood": "good"})
    with pytest.raises(CheckpointError, match=r"not know \(history\.mood: "):
        load(folder)
    change(folder, history=history, files={"../weights.safetensors": "0"})
    with pytest.raises(CheckpointError, match=r"describes other files than classes\.json and weig"):
        load(folder)


def test_a_configuration_that_cannot_be_used(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())["config"]
    change(folder, config={**config, "method": "finetuna"})
    with pytest.raises(CheckpointError, match=r"Did you mean 'finetune'.* must be imported before"):
        load(folder)


def test_files_that_vouch_for_nonsense(folder: Path) -> None:
    digests = json.loads((folder / "config.json").read_text())["files"]
    (folder / "weights.safetensors").write_bytes(b"nonsense")
    nonsense = hashlib.sha256(b"nonsense").hexdigest()
    change(folder, files={**digests, "weights.safetensors": nonsense})
    with pytest.raises(CheckpointError, match=r"weights\.safetensors' is no safetensors file"):
        load(folder)
    content = b'{"classes": ["a"], "tasks": [[0, 1]], "forgotten": []}'
    (folder / "classes.json").write_bytes(content)
    digests["classes.json"] = hashlib.sha256(content).hexdigest()
    copied = copy(MODELS / f"format-{FORMAT}", folder)
    (copied / "classes.json").write_bytes(content)
    change(copied, files=digests)
    with pytest.raises(CheckpointError, match=r"classes\.json' names labels in task 0 that have"):
        load(copied)


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_tensors_that_are_not_finite(folder: Path, value: float) -> None:
    tensors = safetensors.torch.load((folder / "weights.safetensors").read_bytes())
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[-1] = value
    content = safetensors.torch.save(tensors)
    (folder / "weights.safetensors").write_bytes(content)
    digests = json.loads((folder / "config.json").read_text())["files"]
    change(folder, files={**digests, "weights.safetensors": hashlib.sha256(content).hexdigest()})
    with pytest.raises(CheckpointError, match=f"holds NaN or infinity in {re.escape(name)}: "):
        load(folder)


def test_another_backbone(folder: Path) -> None:
    other = create_backbone("test_vit", weights="random", img_size=32, seed=1, precision="fp32")
    said = r"weights of 'test_vit\.r160_in1k' with sha256 9108ceefa98a…, .* found here have "
    with pytest.raises(CheckpointError, match=said + r"[0-9a-f]{12}…\. Give the same"):
        load(folder, other)
    with pytest.raises(CheckpointError, match=said):
        ContinualClassifier.load(folder)


def test_no_folder(tmp_path: Path) -> None:
    assert not is_model(tmp_path)
    with pytest.raises(CheckpointError, match=r"There is no folder '.*/models'\. Name the folder"):
        load(tmp_path / "models")
    with pytest.raises(CheckpointError, match=r"config\.json' is missing"):
        load(tmp_path)


# -------------------------------------------------------------------------------- inference only


def test_inference_only(tmp_path: Path) -> None:
    old = old_classifier()
    assert old.save(tmp_path, inference_only=True) == Sizes(3096, 0)
    assert read_contents(tmp_path).sizes == Sizes(3096, 0)
    assert "heads.linear.images" not in safetensors.torch.load_file(
        tmp_path / "weights.safetensors"
    )
    loaded = load(tmp_path)
    for head in ("linear", "ncm"):
        pictures = portable_pictures()
        assert torch.equal(loaded.logits(pictures, head), old.logits(pictures, head))
    assert loaded.model.inference_only
    with pytest.raises(CheckpointError, match=r"saved for inference only: .* complete model"):
        loaded.model.start_task(Task(2, (4,), ("more",), 5))
    assert len(loaded.model.label_names) == 4
    assert loaded.save(tmp_path / "again") == Sizes(3096, 0)
    assert same(load(tmp_path / "again"), loaded)
    assert load(tmp_path / "again").model.inference_only


def test_a_complete_state_is_no_reduced_one() -> None:
    old = old_classifier().model
    other = load(MODELS / "format-1").model
    with pytest.raises(CheckpointError, match=r"\d saved tensors belong to nothing here"):
        other.load(old.state(), inference_only=True)
    reduced = {k: v for k, v in old.state().items() if k not in old.learning_only}
    with pytest.raises(CheckpointError, match=r"Missing key.*feature_sum"):
        other.load(reduced)


def test_where_the_images_lay_is_not_told(tmp_path: Path) -> None:
    model = old_classifier().model
    model.config = make_config({**model.config.flat(), "data": "folder:/home/me/photos"})
    ContinualClassifier.from_model(model).save(tmp_path)
    assert not [p for p in tmp_path.iterdir() if b"photos" in p.read_bytes()]
    assert same(load(tmp_path), ContinualClassifier.from_model(model))
