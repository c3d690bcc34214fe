"""ONNX export: a classifier as one file that predicts without perdure and PyTorch."""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from perdure.atomic import atomic_write, check_place
from perdure.backbones.additions import Additions
from perdure.engine.model import Model
from perdure.errors import ConfigError, ExportError, OutputError
from perdure.learner.classifier import ContinualClassifier
from perdure.learner.export.check import Agreement, check_agreement
from perdure.learner.pictures import Picture, open_picture
from perdure.learner.state import LearnerState
from perdure.streams import build_transform

OPSET = 18
"""Of ONNX's operators: old enough for the runtimes in use."""
MOST_BYTES = 2**31 - 2**20
"""A protocol buffer ends at 2 GiB; the graph itself needs less than the rest."""
PIXELS = "uint8 RGB, batch x 3 x side x side, 0 to 255; normalised inside the graph"


@dataclass(frozen=True)
class Exported:
    """An exported file and the result of its check.

    Attributes:
        path: the file.
        bytes: its size.
        opset: version of ONNX's operators.
        head: head whose scores it gives.
        inputs: type and shape by name; ``batch`` is any number of images.
        outputs: type and shape by name.
        about: metadata of the file.
        agreement: the check against perdure's own answers.
    """

    path: Path
    bytes: int
    opset: int
    head: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    about: dict[str, str]
    agreement: Agreement


def export_onnx(
    classifier: ContinualClassifier,
    path: Path | str,
    head: str | None = None,
    pictures: Sequence[Picture] = (),
) -> Exported:
    """Write the classifier as one ONNX file, once ONNX Runtime gives the same answers with it.

    The input ``images`` is uint8 (batch, 3, side, side); the outputs ``logits`` and
    ``probabilities`` are float32 (batch, classes), and ``familiarity``, where lessons have measured
    it, float32 (batch): reject what is below the share of known images to give up. Everything is
    computed in float32, whatever the precision of the run, and the Gaussian head in float64, as
    here. Prompts that are the same for every image are in the file as the keys and values that they
    make.

    Args:
        classifier: on the CPU.
        path: where to; a file of that name is replaced.
        head: one of the evaluated heads; the last one named in the configuration by default.
        pictures: files, PIL images or arrays to check the file with, beside random pixels.

    Raises:
        ConfigError: a name that does not end in ``.onnx``, no such head, or a missing package.
        ExportError: what cannot be exported, or does not agree; nothing is written.
        OutputError: the file cannot be written.
        UnreadableImageError: a picture that cannot be decoded.
    """
    path, state = Path(path), classifier.state_
    check_target(path)
    head, transform = state.head_name(head), state.transform
    check_exportable(state.model)
    real = [transform(open_picture(picture)) for picture in pictures]
    proto = _graph(state, head)
    about = _about(state, head)
    for key, value in about.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto, full_check=True)
    data = proto.SerializeToString()
    agreement = check_agreement(data, state, head, real)
    atomic_write(path, data)
    return Exported(
        path=path,
        bytes=len(data),
        opset=OPSET,
        head=head,
        inputs={value.name: _type(value) for value in proto.graph.input},
        outputs={value.name: _type(value) for value in proto.graph.output},
        about=about,
        agreement=agreement,
    )


def check_target(path: Path) -> None:
    """Check that an ONNX file can be written there, and that the packages for it are installed.

    Raises:
        ConfigError: it does not end in ``.onnx``, or a package is missing.
        OutputError: its folder is not there or cannot be written.
    """
    if path.suffix != ".onnx":
        raise ConfigError(f"OUT '{path}': the name must end in .onnx, as {path.stem}.onnx.")
    if not path.parent.is_dir():
        raise OutputError(
            f"There is no folder '{path.parent}' to write '{path.name}' to. Create it with: "
            f"mkdir -p '{path.parent}'"
        )
    for package in ("onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"Exporting needs {package}. Type: pip install 'perdure[export]'"
            ) from error
    check_place(path.parent)


def check_exportable(model: Model) -> None:
    """Check that a fixed graph can stand for the model.

    Raises:
        ExportError: it cannot, with the reason.
    """
    name = model.config.training.method
    if not model.tasks:
        raise ExportError(f"This model of '{name}' has learned nothing yet: there is no class.")
    if model.method.votes(model.config.method):
        raise ExportError(
            f"Method '{name}' with vote='batch' cannot be exported: what it answers for an "
            "image depends on the other images of the batch. Train with vote=image."
        )
    if model.backbone.device.type != "cpu":
        raise ExportError(
            f"This model is on {model.backbone.device}; it is exported from the CPU. Load it with "
            "ContinualClassifier.load(folder, device='cpu')."
        )


class Network(nn.Module):
    """From pixels to the scores of one head; additions that no image changes are constants."""

    def __init__(self, state: LearnerState, head: str) -> None:
        super().__init__()
        model = state.model
        # What the tracer is to know as parameters.
        self.method, self.head = model.method, model.heads[head]
        self._state, self._name = state, head
        self._constant: Additions | None = None
        if not model.method.traits.needs_query:
            self._constant = model.backbone.float32.folded(model.method.additions(None, None))
        state.separation(head)  # what the head makes once is made here, not in the graph

    def forward(self, images: UInt8[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """Return logits and probabilities, and familiarity where it was measured."""
        logits, shares = self._state.familiarity(
            [images], self._name, float32=True, additions=self._constant
        )
        probabilities = (logits / self._state.temperature(self._name)).softmax(dim=1)
        return (
            (logits, probabilities) if shares is None else (logits, probabilities, shares.float())
        )


def outputs_of(state: LearnerState, head: str) -> tuple[str, ...]:
    """Names of a file's outputs."""
    measured = state.separation(head) is not None
    return ("logits", "probabilities", *(["familiarity"] if measured else []))


@torch.no_grad()
def _graph(state: LearnerState, head: str) -> onnx.ModelProto:
    """Trace the classifier for batches of any size."""
    model = state.model
    side = model.backbone.img_size
    # Two images, because a batch of one would be taken for a size that never changes.
    images = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    sizes = {"images": {0: torch.export.Dim("batch")}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's remarks on its own parts
            traced = torch.export.export(Network(state, head), (images,), dynamic_shapes=sizes)
            program = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=list(outputs_of(state, head)),
                dynamic_shapes=sizes,
                verbose=False,
            )
    # The tracer raises almost anything on what it cannot follow.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"Method '{model.config.training.method}' on '{model.backbone.name}' cannot be "
            "exported: "
            f"{reason}"
        ) from error
    assert program is not None
    held = program.model.graph.initializers.values()
    check_size(sum(value.const_value.nbytes for value in held if value.const_value is not None))
    return _stripped(program.model_proto)


def check_size(count: int) -> None:
    """Refuse more bytes of weights than one ONNX file holds.

    Raises:
        ExportError: they are too many.
    """
    if count > MOST_BYTES:
        raise ExportError(
            f"The weights are {count / 2**30:.1f} GiB, and one ONNX file holds less than 2 GiB. "
            "Take a smaller backbone, as vit_base_patch16_224.augreg_in21k."
        )


def _stripped(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without the exporter's notes, which name files of this machine."""
    graph = proto.graph
    lists = (graph.node, graph.initializer, graph.value_info, graph.input, graph.output)
    for part in (proto, graph, *proto.functions, *itertools.chain.from_iterable(lists)):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return proto


def _about(state: LearnerState, head: str) -> dict[str, str]:
    """The file's metadata."""
    model = state.model
    training = model.config.training
    return {
        "classes": json.dumps(state.columns.names, ensure_ascii=False),
        "pixels": PIXELS,
        "img_size": str(model.backbone.img_size),
        "preprocessing": json.dumps(preprocessing(training.transform, model.backbone.img_size)),
        "transform": training.transform,
        "method": training.method,
        "head": head,
        "backbone": model.backbone.name,
        "perdure_version": importlib.metadata.version("perdure"),
    }


def preprocessing(transform: str, img_size: int) -> dict[str, Any]:
    """Say how images are brought to the size of the input.

    Returns:
        ``resize`` and ``interpolation``: to a square of that side, or with ``keep_shape`` the shorter
        side to that many pixels; then ``crop``: the side of the square cut from the centre.

    Raises:
        ExportError: the test transform does something else.

    Examples:
        >>> preprocessing("flip_crop", 224)
        {'resize': 256, 'keep_shape': True, 'interpolation': 'bicubic', 'crop': 224}
    """
    steps = getattr(build_transform(transform, img_size).test, "transforms", [])
    names = [type(step).__name__ for step in steps]
    if names not in (["Resize", "PILToTensor"], ["Resize", "CenterCrop", "PILToTensor"]):
        raise ExportError(
            f"transform='{transform}' does {names} at test time; an exported file can only say how "
            "to resize and to cut out the centre."
        )
    sides = list(steps[0].size)
    return {
        "resize": sides[0],
        "keep_shape": len(sides) == 1,
        "interpolation": steps[0].interpolation.value,
        "crop": img_size,
    }


def _type(value: Any) -> str:
    """Type and shape of an input or output, as ``uint8 (batch, 3, 32, 32)``."""
    tensor = value.type.tensor_type
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    sides = (side.dim_param or str(side.dim_value) for side in tensor.shape.dim)
    return f"{kind} ({', '.join(sides)})"
