"""Export of a classifier: as one file that predicts without perdure and PyTorch, once it agrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from perdure.atomic import atomic_write, check_file
from perdure.errors import ConfigError, ExportError, OutputError
from perdure.learner.classifier import ContinualClassifier
from perdure.learner.export import graph
from perdure.learner.export.check import Agreement, answers, check_agreement
from perdure.learner.export.formats import format_of
from perdure.learner.export.graph import OPSET, check_exportable
from perdure.learner.export.rounding import (
    MOST_DIFFERENCE,
    PRECISIONS,
    Attempt,
    Precision,
    halved,
    judged,
    quantized,
    split,
)
from perdure.learner.pictures import Picture, open_picture


@dataclass(frozen=True)
class Exported:
    """An exported file and the result of its check.

    Attributes:
        path: the file; an OpenVINO file has another beside it, with the same name and ``.bin``.
        bytes: size of all.
        runtime: what the file is for, and was checked in.
        opset: version of ONNX's operators.
        precision: of its weights.
        head: head whose scores it gives.
        inputs: type and shape by name; ``batch`` is any number of images.
        outputs: type and shape by name.
        about: metadata of the file.
        agreement: the check against perdure's own answers, of the graph in float32.
        attempts: ways of rounding that were tried, the last of them written; none in fp32.
    """

    path: Path
    bytes: int
    runtime: str
    opset: int
    precision: Precision
    head: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    about: dict[str, str]
    agreement: Agreement
    attempts: tuple[Attempt, ...]


def export_model(
    classifier: ContinualClassifier,
    path: Path | str,
    head: str | None = None,
    pictures: Sequence[Picture] = (),
    precision: Precision = "fp32",
) -> Exported:
    """Write the classifier as a file, once the runtime that it is for gives the same answers with it.

    The input ``images`` is uint8 (batch, 3, side, side); the outputs ``logits`` and
    ``probabilities`` are float32 (batch, classes), and ``familiarity``, where lessons have measured
    it, float32 (batch): reject what is below the share of known images to give up. In fp32
    everything is computed in float32, whatever the precision of the run, and the Gaussian head in
    float64, as here. Prompts that are the same for every image are in the file as the keys and values
    that they make.

    In fp16 weights are stored in half precision, and computed with in float32. In int8 the backbone's
    layers compute in 8 bits, see `rounding.LADDER`; the head stays as it is.

    Args:
        classifier: on the CPU.
        path: where to; a file of that name is replaced. ``.onnx`` is ONNX, ``.xml`` OpenVINO's
            intermediate representation.
        head: one of the evaluated heads; the last one named in the configuration by default.
        pictures: files, PIL images or arrays to check the file with, beside random pixels.
        precision: ``fp32``, ``fp16``, or ``int8``, which needs at least 150 pictures.

    Raises:
        ConfigError: another ending, no such head or precision, too few pictures, or a missing package.
        ExportError: what cannot be exported, or does not agree; nothing is written.
        OutputError: the file cannot be written.
        UnreadableImageError: a picture that cannot be decoded.
    """
    path, state = Path(path), classifier.state_
    check_target(path)
    check_precision(precision, len(pictures))
    head, transform = state.head_name(head), state.transform
    check_exportable(state.model)
    real = [transform(open_picture(picture)) for picture in pictures]
    calibrating, left = split(len(real)) if precision == "int8" else ([], list(range(len(real))))
    target, traced = format_of(path), graph.trace(state, head)
    answered = answers(state, head, [real[place] for place in left])
    files = target.pack(traced.proto)
    run = target.runner(files)
    agreement = check_agreement(run, answered, state, head, target.in_float64)

    def attempt(name: str, proto: onnx.ModelProto) -> Attempt:
        nonlocal files
        files = target.pack(proto)
        return judged(name, target.runner(files), answered)

    attempts: list[Attempt] = []
    if precision == "int8":
        attempts = quantized(traced, [real[place] for place in calibrating], attempt)
    elif precision == "fp16":
        attempts = [attempt("weights in half precision", halved(traced.proto))]
        if not attempts[-1].passes or attempts[-1].difference > MOST_DIFFERENCE:
            raise ExportError(
                f"No fp16 file was written: it does not agree with the model. {attempts[-1]}. Take "
                "fp32."
            )
    _write({path.with_suffix(suffix): content for suffix, content in files.items()})
    return Exported(
        path=path,
        bytes=sum(map(len, files.values())),
        runtime=target.runtime,
        opset=OPSET,
        precision=precision,
        head=head,
        inputs={value.name: _type(value) for value in traced.proto.graph.input},
        outputs={value.name: _type(value) for value in traced.proto.graph.output},
        about={entry.key: entry.value for entry in traced.proto.metadata_props},
        agreement=agreement,
        attempts=tuple(attempts),
    )


def check_target(path: Path) -> None:
    """Check that a file can be written there, and that the packages for it are installed.

    Raises:
        ConfigError: its ending is of no format, or a package is missing.
        OutputError: its folder is not there or cannot be written.
    """
    target = format_of(path)
    check_file(path)
    target.check_packages()


def check_precision(precision: Any, pictures: int) -> None:
    """Check that a file can be written in this precision, given so many pictures.

    Raises:
        ConfigError: it cannot.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision={precision!r}: allowed are {', '.join(PRECISIONS)}.")
    if precision == "int8":
        split(pictures)


def _write(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together; where one cannot be written, those of before are back.

    An earlier graph never stands beside new weights, whenever this is killed: it goes first.
    """
    aside = {path: path.with_name(f".{path.name}.before") for path in files if len(files) > 1}
    for path, hidden in aside.items():
        if path.is_dir():
            raise OutputError(f"'{path}' is a folder. Choose another name.")
        hidden.unlink(missing_ok=True)  # of an export that was killed
    try:
        for path, hidden in reversed(aside.items()):
            if path.exists():
                path.replace(hidden)
        for path, content in files.items():
            atomic_write(path, content)
    except BaseException:
        for path, hidden in aside.items():
            path.unlink(missing_ok=True)
            if hidden.exists():
                hidden.replace(path)
        raise
    for hidden in aside.values():
        hidden.unlink(missing_ok=True)


def _type(value: Any) -> str:
    """Type and shape of an input or output, as ``uint8 (batch, 3, 32, 32)``."""
    tensor = value.type.tensor_type
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    sides = (side.dim_param or str(side.dim_value) for side in tensor.shape.dim)
    return f"{kind} ({', '.join(sides)})"
