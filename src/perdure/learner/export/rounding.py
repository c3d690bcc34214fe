"""Rounding of exported weights: to half precision, or layers to int8 where answers still agree."""

from __future__ import annotations

import copy
import functools
import importlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args

import numpy as np
import onnx
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from perdure.errors import ConfigError, ExportError
from perdure.learner.export.check import Answered
from perdure.learner.export.formats import Run
from perdure.learner.export.graph import Traced
from perdure.randomness import permutation
from perdure.wording import counted, per_cent

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
LEAST_AGREEMENT = 0.99
"""Share of images that must get the class that the model gives them."""
MOST_DIFFERENCE = 0.02
"""Of logits, where there are no images to count: `Attempt.difference`."""
LEAST_IMAGES = 150
"""For int8: two thirds of them are judged, and below 100 images a share of 99 % means nothing."""
MOST_CALIBRATING = 128
_WEIGHTS = ("MatMul", "Gemm", "Conv")
_LARGEST_HALF = 65504.0
_TINY = 1e-12
_SCALES = (1e-2, 1e2)
"""Bounds on what a column is divided by: one that is always 0 has no size of its own."""
_SMALL = 1024
"""Numbers below which a tensor stays in float32: there is nothing to gain."""


@dataclass(frozen=True)
class Attempt:
    """One way of rounding that was tried.

    Attributes:
        name: what was done.
        agreed: images of the caller's that got the model's own class.
        images: images of the caller's that were asked for, none of them calibrated with.
        difference: norm of the differences of all logits, random images' too, as a share of that of
            the logits less their mean in each image.
        moved: mean absolute difference of how familiar images are; None where that is not measured.
    """

    name: str
    agreed: int
    images: int
    difference: float
    moved: float | None

    @property
    def passes(self) -> bool:
        """Whether enough images agree."""
        return self.agreed >= LEAST_AGREEMENT * self.images

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.agreed} of {counted(self.images, 'image')} agree "
            f"({per_cent(self.agreed / self.images)})"
            if self.images
            else f"{self.name}: logits differ by {per_cent(self.difference)}"
        )


def judged(name: str, run: Run, answered: Sequence[Answered]) -> Attempt:
    """Compare a file's answers with the model's own, class by class."""
    agreed, images, moved = 0, 0, list[Tensor]()
    apart, size = 0.0, 0.0
    for batch in answered:
        theirs = [torch.from_numpy(output) for output in run(batch.images)]
        logits = batch.logits.double()
        apart += float((theirs[0] - logits).square().sum())
        size += float((logits - logits.mean(dim=1, keepdim=True)).square().sum())
        if batch.kind == "your":
            agreed += int((theirs[0].argmax(dim=1) == batch.logits.argmax(dim=1)).sum())
            images += len(batch.images)
        if batch.shares is not None:
            moved.append((theirs[-1] - batch.shares).abs())
    difference = math.sqrt(apart / size) if size else 0.0
    return Attempt(
        name, agreed, images, difference, float(torch.cat(moved).mean()) if moved else None
    )


# --------------------------------------------------------------------------------- half precision


def halved(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its weights in float16, each cast to float32 where the graph begins.

    It computes in float32, as before; runtimes cast once, when they load it. What float16 cannot
    hold stays as it is.
    """
    made, casts = copy.deepcopy(proto), []
    for tensor in made.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < _SMALL or np.abs(values).max() > _LARGEST_HALF:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(
            onnx.helper.make_node(
                "Cast", [tensor.name], [name], f"cast_{name}", to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *made.graph.node]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


# ------------------------------------------------------------------------------------------- int8


@dataclass(frozen=True)
class Rung:
    """A way to int8; what it leaves out stays in float32.

    Attributes:
        name: what it adds to the one before.
        per_channel: whether every column of weights has a scale of its own.
        reduce_range: whether weights take 7 bits: two products of 8 bits may not fit into 16, and
            some processors cut them off.
        smooth: whether weights take over the largest scales of activations, see `smoothed`.
        left_out: kinds of layers, see `layers`.
        worst: share of the linear layers that is left out too: those whose inputs are rounded worst.
    """

    name: str
    per_channel: bool = True
    reduce_range: bool = True
    smooth: bool = True
    left_out: tuple[str, ...] = ()
    worst: float = 0.0


LADDER = (
    Rung("static calibration", per_channel=False, reduce_range=False, smooth=False),
    Rung("weights per channel", reduce_range=False, smooth=False),
    Rung("activations smoothed", reduce_range=False),
    Rung("weights of 7 bits"),
    Rung("without attention products", left_out=("products",)),
    Rung("without the patch embedding", left_out=("products", "patches")),
    Rung("without a tenth of the layers", left_out=("products", "patches"), worst=0.1),
    Rung("without a fifth of the layers", left_out=("products", "patches"), worst=0.2),
)


def layers(traced: Traced) -> dict[str, list[str]]:
    """Nodes that may be rounded, by kind: ``weights``, ``patches`` and ``products`` of attention.

    The head is not among them: it is small, and its scores are what is compared.
    """
    graph = traced.proto.graph
    constant = {tensor.name for tensor in graph.initializer}
    found: dict[str, list[str]] = {"weights": [], "patches": [], "products": []}
    for node in graph.node:
        if node.op_type in _WEIGHTS and node.name in traced.backbone:
            kind = "patches" if node.op_type == "Conv" else "weights"
            found[kind if node.input[1] in constant else "products"].append(node.name)
    return found


def split(count: int) -> tuple[list[int], list[int]]:
    """Places of images to calibrate with, drawn, and of those to judge by: none is among both.

    Raises:
        ConfigError: too few.
    """
    if count < LEAST_IMAGES:
        given = counted(count, "image") if count else "none"
        raise ConfigError(
            f"precision=int8 needs at least {LEAST_IMAGES} photographs to calibrate with and to be "
            f"checked on, and {'there is ' if count < 2 else 'there are '}{given}. Hand them in, as "  # noqa: PLR2004
            "--check photos; they need no labels."
        )
    order = permutation(count, 0, "int8")
    calibrating = min(MOST_CALIBRATING, count // 3)
    return sorted(order[:calibrating]), sorted(order[calibrating:])


def quantized(
    traced: Traced,
    calibrating: Sequence[UInt8[Tensor, "3 s s"]],
    attempt: Callable[[str, onnx.ModelProto], Attempt],
) -> list[Attempt]:
    """Try the graph in int8, rung by rung of `LADDER`; return the attempts, whose last one agrees.

    Args:
        traced: the graph in float32.
        calibrating: transformed images that ranges of activations are measured on.
        attempt: judges a graph.

    Raises:
        ExportError: none agrees; says what each reached.
    """
    attempts, kinds = list[Attempt](), layers(traced)
    smooth = functools.cache(lambda: smoothed(traced.proto, kinds["weights"], calibrating))
    with tempfile.TemporaryDirectory() as place:
        for rung in LADDER:
            given = smooth() if rung.smooth else Smoothed(traced.proto, [])
            proto = _rounded(given, kinds, rung, calibrating, Path(place))
            attempts.append(attempt(rung.name, proto))
            if attempts[-1].passes:
                return attempts
    tried = "; ".join(map(str, attempts))
    raise ExportError(
        f"No int8 file was written: none gives {100 * LEAST_AGREEMENT:.0f} % of the images the class "
        f"that the model gives them. {tried}. Take fp16, half the size of fp32."
    )


@dataclass(frozen=True)
class Smoothed:
    """A graph whose linear layers have smooth inputs.

    Attributes:
        proto: the graph.
        worst: names of these layers, those whose inputs 8 bits round worst first.
    """

    proto: onnx.ModelProto
    worst: list[str]


def smoothed(
    proto: onnx.ModelProto, nodes: Sequence[str], calibrating: Sequence[UInt8[Tensor, "3 s s"]]
) -> Smoothed:
    """The same graph with inputs of linear layers divided column by column, and weights multiplied.

    An input has few columns of large numbers, and one scale for all of them rounds the others away.
    Column j is divided by s_j = √(max |x_j| / max |w_j|), so that both share the burden (Xiao et al.
    2023, SmoothQuant, eq. 4 with α = 0.5); the product stays what it was.

    Args:
        proto: in float32.
        nodes: names of the layers; of these, products with constant weights.
        calibrating: transformed images that inputs are measured on.
    """
    made = copy.deepcopy(proto)
    weights = {tensor.name: tensor for tensor in made.graph.initializer}
    chosen = [n for n in made.graph.node if n.name in set(nodes) and n.op_type == "MatMul"]
    columns = _columns(proto, sorted({node.input[0] for node in chosen}), calibrating)
    noise = {}
    for node in chosen:
        weight = onnx.numpy_helper.to_array(weights[node.input[1]])
        inputs = columns[node.input[0]]
        rows = np.abs(weight).max(axis=1).astype(np.float64)
        scale = np.sqrt(np.maximum(inputs.size, _TINY) / np.maximum(rows, _TINY))
        scale = np.clip(scale, *_SCALES).astype(np.float32)
        noise[node.name] = inputs.noise(scale)
        divided, factor = f"{node.name}_smoothed", f"{node.name}_smoothing"
        made.graph.initializer.extend(
            [
                onnx.numpy_helper.from_array(1 / scale, factor),
                onnx.numpy_helper.from_array(weight * scale[:, None], f"{node.name}_weight"),
            ]
        )
        place = next(k for k, one in enumerate(made.graph.node) if one.name == node.name)
        mul = onnx.helper.make_node("Mul", [node.input[0], factor], [divided], f"{node.name}_mul")
        node.input[0], node.input[1] = divided, f"{node.name}_weight"
        made.graph.node.insert(place, mul)
    read = {name for node in made.graph.node for name in node.input}
    left = [tensor for tensor in made.graph.initializer if tensor.name in read]
    del made.graph.initializer[:]
    made.graph.initializer.extend(left)
    return Smoothed(made, sorted(noise, key=lambda name: -noise[name]))


@dataclass
class _Columns:
    """Smallest and largest number, and mean square, of every column of a tensor."""

    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    square: NDArray[np.float64]

    @property
    def size(self) -> NDArray[np.float64]:
        return np.maximum(-self.lowest, self.highest)

    def noise(self, scale: NDArray[np.float32]) -> float:
        """Variance of what 8 bits round away of the columns, divided by these scales, to their own."""
        step = ((self.highest / scale).max() - (self.lowest / scale).min()) / 255
        return float(step**2 / 12 / max((self.square / scale**2).mean(), _TINY))


def _columns(
    proto: onnx.ModelProto, names: Sequence[str], images: Sequence[UInt8[Tensor, "3 s s"]]
) -> dict[str, _Columns]:
    watched = copy.deepcopy(proto)
    for name in names:
        watched.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(
        watched.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: dict[str, _Columns] = {}
    for image in images:
        values = session.run(list(names), {"images": image[None].numpy()})
        for name, value in zip(names, values, strict=True):
            rows = value.reshape(-1, value.shape[-1]).astype(np.float64)
            square = (rows**2).mean(axis=0) / len(images)
            one = found.setdefault(
                name, _Columns(np.zeros(rows.shape[1]), np.zeros(rows.shape[1]), 0 * square)
            )
            one.lowest = np.minimum(one.lowest, rows.min(axis=0))
            one.highest = np.maximum(one.highest, rows.max(axis=0))
            one.square = one.square + square
    return found


def _rounded(
    smooth: Smoothed,
    kinds: dict[str, list[str]],
    rung: Rung,
    calibrating: Sequence[UInt8[Tensor, "3 s s"]],
    place: Path,
) -> onnx.ModelProto:
    library: Any = importlib.import_module("onnxruntime.quantization")
    given, path = copy.deepcopy(smooth.proto), place / "rounded.onnx"
    batches = iter([{"images": image[None].numpy()} for image in calibrating])
    worst = set(smooth.worst[: round(rung.worst * len(smooth.worst))])
    # Shapes are known already; without this the library warns that they may not be.
    given.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    library.quantize_static(
        given,
        path,
        SimpleNamespace(get_next=lambda: next(batches, None)),
        op_types_to_quantize=list(_WEIGHTS),
        nodes_to_quantize=[
            name
            for kind, nodes in kinds.items()
            if kind not in rung.left_out
            for name in nodes
            if name not in worst
        ],
        per_channel=rung.per_channel,
        reduce_range=rung.reduce_range,
        activation_type=library.QuantType.QUInt8,
        weight_type=library.QuantType.QInt8,
        calibration_cache_path=place / f"ranges-{rung.smooth}.json",
        # Sums and norms follow: they take products as they are.
        extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
    )
    made = onnx.load(path)
    del made.metadata_props[:]
    made.metadata_props.extend(smooth.proto.metadata_props)
    return made
