"""The exported file alone: what it answers, what it says, and what is never written."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from perdure.backbones.vit import FrozenViT
from perdure.engine.model import Model
from perdure.errors import ConfigError, ExportError, OutputError
from perdure.heads import HEADS
from perdure.learner import ContinualClassifier
from perdure.learner.export import graph
from perdure.learner.export.exported import Exported, export_model
from perdure.learner.export.graph import Traced
from perdure.learner.state import LearnerState
from perdure.methods import METHODS
from perdure.randomness import generator
from perdure.streams import TRANSFORMS, build_transform
from perdure.testing.trial import Trial, evaluation_pictures, make_trial
from tests.reference.small_vits import SIDE, built, lively

pytestmark = pytest.mark.long

BLOCKS = 2
PAGE = Path(__file__).parents[3] / "docs" / "export.md"


@dataclasses.dataclass(frozen=True)
class Case:
    """A classifier, its file and pictures of its classes."""

    classifier: ContinualClassifier
    made: Exported
    pictures: list[Image.Image]


def small(trial: Trial, blocks: int = BLOCKS) -> Trial:
    """The same on fewer blocks: to trace one takes a second."""
    return dataclasses.replace(trial, backbone=FrozenViT(lively(built(depth=blocks)), name="small"))


def exported(trial: Trial, path: Path, head: str | None = None) -> Case:
    classifier, pictures = (
        ContinualClassifier.from_model(trial.run().model),
        evaluation_pictures(trial),
    )
    return Case(classifier, export_model(classifier, path, head, pictures[:3]), pictures)


def assert_same_logits(found: np.ndarray, wanted: torch.Tensor, rtol: float = 1e-4) -> None:
    """A small logit may be what large terms have left of each other, as rounded by this processor."""
    cancelled = 1e-6 * float(wanted.abs().max())
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=1e-4 + cancelled)


def check(case: Case, head: str | None = None, rtol: float = 1e-4) -> None:
    """Compare with the classifier's own answers, alone and together."""
    session = onnxruntime.InferenceSession(case.made.path)
    test = build_transform("plain", SIDE).test
    pixels = torch.stack([test(picture) for picture in case.pictures]).numpy()
    wanted = case.classifier.logits(case.pictures, head)
    logits, probabilities = session.run(None, {"images": pixels})
    assert_same_logits(logits, wanted, rtol)
    assert (logits.argmax(1) == wanted.argmax(1).numpy()).all()
    alone, _ = session.run(None, {"images": pixels[:1]})
    assert_same_logits(alone, torch.from_numpy(logits[:1]), rtol)
    told = [best.probability for (best,) in case.classifier.top(case.pictures, 1, head)]
    np.testing.assert_allclose(probabilities.max(axis=1), told, rtol=1e-3)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    trial = small(make_trial("nsp2", sizes=(2, 2), images=4, heads=("linear", "gaussian")))
    return exported(trial, tmp_path_factory.mktemp("onnx") / "digits.onnx")


def test_answers_are_those_of_the_classifier(case: Case) -> None:
    check(case)
    assert (case.made.head, case.made.opset) == ("gaussian", 18)
    assert case.made.inputs == {"images": "uint8 (batch, 3, 32, 32)"}
    kind = "float32 (batch, 4)"
    assert case.made.outputs == {"logits": kind, "probabilities": kind}
    assert case.made.bytes == case.made.path.stat().st_size
    compared = case.made.agreement
    assert (compared.random, compared.real) == (4, 3)
    assert 0 < compared.largest_difference < 0.1


def test_prompts_are_constants(case: Case) -> None:
    """No norm or product but the backbone's own and the head's."""
    drawn = onnx.load(case.made.path).graph
    operators = [node.op_type for node in drawn.node]
    assert operators.count("LayerNormalization") == 2 * BLOCKS + 1
    # Four linear layers and two products of attention; in the last block one more, because only
    # the class row has a query there; and the head.
    assert operators.count("MatMul") + operators.count("Gemm") == 6 * BLOCKS + 1 + 1
    assert not [held.name for held in drawn.initializer if "prompts" in held.name]


def test_what_the_file_says_of_itself(case: Case) -> None:
    about = onnxruntime.InferenceSession(case.made.path).get_modelmeta().custom_metadata_map
    assert about == case.made.about
    assert json.loads(about["classes"]) == list(case.classifier.classes_)
    assert (about["method"], about["head"], about["img_size"]) == ("nsp2", "gaussian", "32")
    assert about["backbone"] == "small"
    assert about["pixels"].startswith("uint8 RGB")
    assert b".py" not in case.made.path.read_bytes()  # no stack traces, no paths of this machine


@pytest.mark.parametrize(
    ("transform", "size"),
    [*((name, (47, 33)) for name in TRANSFORMS), ("plain", (20, 65)), ("plain", (37, 37))],
)
def test_page_shows_how_to_use_it(
    case: Case,
    transform: str,
    size: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = onnx.load(case.made.path)
    for entry in model.metadata_props:
        if entry.key == "preprocessing":
            entry.value = json.dumps(graph.preprocessing(transform, SIDE))
    onnx.save(model, tmp_path / "digits.onnx")
    drawn = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(drawn).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(code, PAGE.name, "exec"), found)
    ours = build_transform(transform, SIDE).test(Image.fromarray(drawn))
    np.testing.assert_array_equal(found["pixels"][0], ours.numpy())
    if transform == "plain":
        wanted = case.classifier.logits([tmp_path / "image.png"])
        assert_same_logits(found["logits"], wanted)
        assert case.classifier.predict([tmp_path / "image.png"])[0] in capsys.readouterr().out


@pytest.mark.parametrize("method", list(METHODS))
def test_what_is_traced_is_the_model(method: str) -> None:
    """Before tracing, which takes seconds and happens for all methods in the slow test below."""
    trial = make_trial(method, sizes=(2,), images=4)
    model = Model(trial.backbone, trial.config)
    model.start_task(trial.stream.tasks[0].task)
    head = model.config.head_names[-1]
    images = torch.randint(0, 256, (3, 3, SIDE, SIDE), generator=generator(0, "images"))
    network = graph.Network(LearnerState(model), head)
    _, logits, probabilities = network(images.to(torch.uint8))
    wanted = model.logits(images.to(torch.uint8))[head]
    torch.testing.assert_close(logits, wanted)
    torch.testing.assert_close(probabilities, wanted.softmax(1))


def _all_methods_and_heads() -> Iterator[tuple[str, str]]:
    for name in METHODS:
        traits = METHODS[name].traits
        yield from ((name, head) for head in traits.heads)
    for head, kind in ((name, HEADS[name]) for name in HEADS):
        if kind.closed_form and not kind.needs_projection:  # that needs a CLIP
            yield "nsp2", head


@pytest.mark.slow
@pytest.mark.parametrize(("method", "head"), sorted(set(_all_methods_and_heads())))
def test_every_method_and_head(method: str, head: str, tmp_path: Path) -> None:
    trial = make_trial(method, sizes=(2, 2), images=4, heads=(head,))
    check(exported(trial, tmp_path / "model.onnx", head), head)


def test_a_graph_that_disagrees_is_not_written(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(state: LearnerState, head: str) -> Traced:
        proto = onnx.load(case.made.path)
        (bias,) = (held for held in proto.graph.initializer if held.name == "head.bias")
        moved = onnx.numpy_helper.to_array(bias) + 0.1 * np.arange(4)
        bias.CopyFrom(onnx.numpy_helper.from_array(moved, "head.bias"))
        return Traced(proto, frozenset())

    monkeypatch.setattr(graph, "trace", changed)
    with pytest.raises(ExportError, match=r"on random images its logits differ by up to 0\.3"):
        export_model(case.classifier, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_names_and_folders(case: Case, tmp_path: Path) -> None:
    for path, head, kind, text in (
        (tmp_path / "a.pt", None, ConfigError, r"must end in \.onnx .ONNX. or \.xml .Open"),
        (tmp_path / "a.onnx", "linea", ConfigError, "no head 'linea'. It has: linear, gaussian"),
        (case.made.path / "a.onnx", None, OutputError, "mkdir -p '"),
    ):
        with pytest.raises(kind, match=text):
            export_model(case.classifier, path, head)


@pytest.mark.parametrize(
    ("package", "file", "extra"),
    [("onnxscript", "a.onnx", "export"), ("onnxruntime", "a.onnx", "export"),
     ("openvino", "a.xml", "openvino")],
)  # fmt: skip
def test_missing_packages(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, file: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    told = rf"needs {package}\. Type: pip install 'perdure\[{extra}\]'"
    with pytest.raises(ConfigError, match=told):
        export_model(case.classifier, tmp_path / file)


def test_models_that_no_graph_can_stand_for(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = small(make_trial("l2p", sizes=(2,), images=4, vote="batch"))
    model = Model(trial.backbone, trial.config)
    with pytest.raises(ExportError, match="'l2p' has learned nothing yet"):
        export_model(ContinualClassifier.from_model(model), tmp_path / "a.onnx")
    model.start_task(trial.stream.tasks[0].task)
    with pytest.raises(ExportError, match=r"'l2p' with vote='batch' cannot be exported"):
        export_model(ContinualClassifier.from_model(model), tmp_path / "a.onnx")
    with pytest.raises(ExportError, match=r"The weights are 2\.0 GiB"):
        graph.check_size(2**31)
    monkeypatch.setattr(case.classifier.model.backbone, "device", torch.device("meta"))
    with pytest.raises(ExportError, match=r"on meta; .* .*load\(folder, device='cpu'\)"):
        export_model(case.classifier, tmp_path / "a.onnx")


def test_what_the_tracer_cannot_follow(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def depends(images: torch.Tensor) -> torch.Tensor:
        return images.float() if int(images.sum()) > 0 else -images.float()

    monkeypatch.setattr(case.classifier.model.backbone, "normalise", depends)
    with pytest.raises(ExportError, match="Method 'nsp2' on 'small' cannot be exported: "):
        export_model(case.classifier, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_transforms_that_cannot_be_described(monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(build_transform("plain", SIDE), test=lambda image: torch.zeros(1))
    monkeypatch.setattr(graph, "build_transform", lambda name, size: other)
    with pytest.raises(ExportError, match=r"transform='odd' does \[\] at test time"):
        graph.preprocessing("odd", SIDE)
