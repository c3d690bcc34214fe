"""Small files: halves of numbers, and int8 only where answers agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from perdure.errors import ConfigError, ExportError
from perdure.learner.export import exported as exporting
from perdure.learner.export import graph, rounding
from perdure.learner.export.exported import export_model
from perdure.learner.export.graph import Traced, trace
from perdure.learner.export.rounding import LADDER, LEAST_IMAGES, halved, layers, smoothed, split
from perdure.testing.trial import evaluation_pictures, make_trial
from tests.learner.export.test_exported import BLOCKS, Case, exported, small

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A classifier, its file in fp32, and pictures enough for int8."""
    trial = small(make_trial("lda", sizes=(2, 2), images=4))
    made = exported(trial, tmp_path_factory.mktemp("fp32") / "a.onnx")
    random = np.random.default_rng(0)
    drawn = [np.asarray(picture) for picture in evaluation_pictures(trial)]
    noisy = [
        Image.fromarray(np.clip(one + random.normal(0, 6, one.shape), 0, 255).astype(np.uint8))
        for one in (drawn * LEAST_IMAGES)[:LEAST_IMAGES]
    ]
    return Case(made.classifier, made.made, noisy)


@pytest.fixture(scope="module")
def traced(case: Case) -> Traced:
    return trace(case.classifier.state_, "gaussian")


@pytest.fixture
def at_hand(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace once: it takes longer than all else here."""
    monkeypatch.setattr(graph, "trace", lambda state, head: traced)


def test_images_to_calibrate_with_and_to_judge_by_are_apart() -> None:
    calibrating, left = split(LEAST_IMAGES)
    assert (len(calibrating), len(left)) == (50, 100)
    assert sorted(calibrating + left) == list(range(LEAST_IMAGES))
    assert len(split(1000)[0]) == 128
    with pytest.raises(ConfigError, match=r"there are 149 images.*--check photos"):
        split(LEAST_IMAGES - 1)
    with pytest.raises(ConfigError, match="there is none"):
        split(0)


def test_layers_of_the_backbone_alone_are_rounded(traced: Traced) -> None:
    kinds = layers(traced)
    assert {kind: len(nodes) for kind, nodes in kinds.items()} == {
        "weights": 4 * BLOCKS + 1,  # in the last block one more: only the class row has a query
        "products": 2 * BLOCKS,
        "patches": 1,
    }


@pytest.mark.usefixtures("at_hand")
def test_half_the_weights_and_the_same_answers(case: Case, tmp_path: Path) -> None:
    made = export_model(
        case.classifier, tmp_path / "a.onnx", pictures=case.pictures[:20], precision="fp16"
    )
    (attempt,) = made.attempts
    assert (attempt.agreed, attempt.images) == (20, 20)
    assert 0 < attempt.difference < 0.01
    assert "20 of 20 images agree (100.0 %)" in str(attempt)
    drawn = onnx.load(made.path).graph
    held = {tensor.data_type for tensor in drawn.initializer if np.prod(tensor.dims) >= 1024}
    assert held == {onnx.TensorProto.FLOAT16}
    assert made.bytes < 0.8 * case.made.bytes
    (alone,) = export_model(case.classifier, tmp_path / "b.onnx", precision="fp16").attempts
    assert str(alone).startswith("weights in half precision: logits differ by 0.")


def test_what_half_precision_cannot_hold_stays() -> None:
    kept = onnx.numpy_helper.from_array(np.full((40, 40), 7e4, np.float32), "large")
    small_one = onnx.numpy_helper.from_array(np.ones((40, 40), np.float32), "small")
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [40, 40])
    node = onnx.helper.make_node("Add", ["large", "small"], ["y"], "sum")
    sums = onnx.helper.make_graph([node], "g", [], [value], [kept, small_one])
    versions = {"opset_imports": [onnx.helper.make_opsetid("", 18)], "ir_version": 10}
    made = halved(onnx.helper.make_model(sums, **versions))
    assert [tensor.name for tensor in made.graph.initializer] == ["large", "small_half"]
    session = onnxruntime.InferenceSession(made.SerializeToString())
    assert (session.run(None, {})[0] == 70001).all()


@pytest.mark.usefixtures("at_hand")
def test_int8_is_written_where_answers_agree(case: Case, tmp_path: Path) -> None:
    made = export_model(
        case.classifier, tmp_path / "a.onnx", pictures=case.pictures, precision="int8"
    )
    assert [one.name for one in made.attempts] == [r.name for r in LADDER[: len(made.attempts)]]
    assert made.attempts[-1].passes
    assert made.attempts[-1].images == 100
    model = onnx.load(made.path)
    assert {entry.key: entry.value for entry in model.metadata_props} == made.about
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    assert not list(tmp_path.glob("*.data"))
    session = onnxruntime.InferenceSession(made.path)
    transform = case.classifier.state_.transform
    pixels = np.stack([transform(picture).numpy() for picture in case.pictures])
    named = session.run(None, {"images": pixels})[0].argmax(axis=1)
    agree = named == case.classifier.logits(case.pictures).argmax(dim=1).numpy()
    assert agree.mean() >= 0.98


@pytest.mark.usefixtures("at_hand")
def test_nothing_is_written_where_none_agrees(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounding, "LEAST_AGREEMENT", 1.01)
    with pytest.raises(ExportError) as caught:
        export_model(case.classifier, tmp_path / "a.onnx", pictures=case.pictures, precision="int8")
    for rung in LADDER:
        assert f"{rung.name}: " in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_precisions_that_are_none() -> None:
    with pytest.raises(ConfigError, match="allowed are fp32, fp16, int8"):
        exporting.check_precision("int4", 0)


def test_smoothing_leaves_products_as_they_are(case: Case, traced: Traced) -> None:
    nodes = layers(traced)["weights"]
    pixels = [case.classifier.state_.transform(picture) for picture in case.pictures[:8]]
    found = smoothed(traced.proto, nodes, pixels)
    assert sorted(found.worst) == sorted(nodes)
    made = found.proto
    onnx.checker.check_model(made)
    assert sum(node.op_type == "Mul" for node in made.graph.node) == len(nodes) + sum(
        node.op_type == "Mul" for node in traced.proto.graph.node
    )
    plain, smooth = (
        onnxruntime.InferenceSession(proto.SerializeToString()).run(
            None, {"images": np.stack([one.numpy() for one in pixels])}
        )[0]
        for proto in (traced.proto, made)
    )
    np.testing.assert_allclose(smooth, plain, rtol=1e-3, atol=1e-2 + 1e-5 * np.abs(plain).max())
