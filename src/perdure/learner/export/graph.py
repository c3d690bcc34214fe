"""Graph of a classifier, traced: from pixels to the scores of one head, as ONNX."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import warnings
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from perdure.backbones.additions import Additions
from perdure.engine.config import votes
from perdure.engine.model import Model
from perdure.errors import ExportError
from perdure.learner.state import LearnerState
from perdure.streams import build_transform

OPSET = 18
"""Of ONNX's operators: old enough for the runtimes in use."""
MOST_BYTES = 2**31 - 2**20
"""A protocol buffer ends at 2 GiB; the graph itself needs less than the rest."""
READOUT = "readout"
PIXELS = "uint8 RGB, batch x 3 x side x side, 0 to 255; normalised inside the graph"


@dataclass(frozen=True)
class Traced:
    """A traced network.

    Attributes:
        proto: the graph, with its metadata.
        backbone: names of the nodes that lead to the readout; the head's are the others.
    """

    proto: onnx.ModelProto
    backbone: frozenset[str]


def check_exportable(model: Model) -> None:
    """Check that a fixed graph can stand for the model.

    Raises:
        ExportError: it cannot, with the reason.
    """
    name = model.config.training.method
    if not model.tasks:
        raise ExportError(f"This model of '{name}' has learned nothing yet: there is no class.")
    if votes(model.config.flat()):
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
        """Return readout, logits and probabilities, and familiarity where it was measured."""
        model = self._state.model
        readout = model.forward(images, float32=True, additions=self._constant)[0]
        logits, shares = self._state.judged(readout, self._name)
        probabilities = (logits / self._state.temperature(self._name)).softmax(dim=1)
        found = (readout, logits, probabilities)
        return found if shares is None else (*found, shares.float())


@torch.no_grad()
def trace(state: LearnerState, head: str) -> Traced:
    """Trace the classifier for batches of any size.

    Raises:
        ExportError: no graph can stand for it, or it is too large for one file.
    """
    model = state.model
    check_exportable(model)
    side = model.backbone.img_size
    # Two images, because a batch of one would be taken for a size that never changes.
    images = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    sizes = {"images": {0: torch.export.Dim("batch")}}
    outputs = [READOUT, "logits", "probabilities"]
    outputs += [] if state.separation(head) is None else ["familiarity"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's remarks on its own parts
            traced = torch.export.export(Network(state, head), (images,), dynamic_shapes=sizes)
            program = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=outputs,
                dynamic_shapes=sizes,
                verbose=False,
            )
    # The tracer raises almost anything on what it cannot follow.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"Method '{model.config.training.method}' on '{model.backbone.name}' cannot be "
            f"exported: {reason}"
        ) from error
    assert program is not None
    held = program.model.graph.initializers.values()
    check_size(sum(value.const_value.nbytes for value in held if value.const_value is not None))
    proto = _stripped(program.model_proto)
    del proto.graph.output[0]  # it has told which nodes lead to it
    for key, value in _about(state, head).items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto, full_check=True)
    return Traced(proto, _leading_to(proto, READOUT))


def _leading_to(proto: onnx.ModelProto, tensor: str) -> frozenset[str]:
    """Names of the nodes that a tensor is computed by."""
    maker = {name: node for node in proto.graph.node for name in node.output}
    found, waiting = set[str](), [tensor]
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting.extend(node.input)
    return frozenset(found)


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
