"""Formats of exported files: ONNX, and OpenVINO's intermediate representation."""

from __future__ import annotations

import abc
import importlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import onnx
from jaxtyping import UInt8
from torch import Tensor

from perdure.errors import ConfigError

Run = Callable[[UInt8[Tensor, "b 3 s s"]], Sequence[Any]]
"""Answers of a file to images: its outputs as arrays, in order."""


class Format(abc.ABC):
    """What a graph is written as."""

    name: ClassVar[str]
    runtime: ClassVar[str]
    suffix: ClassVar[str]
    """Of the file that is named; others lie beside it."""
    extra: ClassVar[str]
    """Of the package, which brings ``packages``."""
    packages: ClassVar[tuple[str, ...]]
    in_float64: ClassVar[bool] = True
    """Whether the runtime computes in float64 what the graph has in it, as the Gaussian head."""

    @abc.abstractmethod
    def pack(self, proto: onnx.ModelProto) -> dict[str, bytes]:
        """Contents of the files by suffix; the named one last."""

    @abc.abstractmethod
    def runner(self, files: Mapping[str, bytes]) -> Run:
        """Let the runtime that the format is for run the files, on the CPU, in float32."""

    def check_packages(self) -> None:
        """Check that the packages are installed.

        Raises:
            ConfigError: one is not.
        """
        for package in self.packages:
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise ConfigError(
                    f"Exporting to {self.name} needs {package}. Type: pip install "
                    f"'perdure[{self.extra}]'"
                ) from error


class Onnx(Format):
    """One file for ONNX Runtime."""

    name, runtime, suffix, extra = "ONNX", "ONNX Runtime", ".onnx", "export"
    packages = ("onnxscript", "onnxruntime")

    def pack(self, proto: onnx.ModelProto) -> dict[str, bytes]:
        """The graph as it is."""
        return {self.suffix: proto.SerializeToString()}

    def runner(self, files: Mapping[str, bytes]) -> Run:
        """A session of ONNX Runtime."""
        runtime = importlib.import_module("onnxruntime")
        session = runtime.InferenceSession(files[self.suffix], providers=["CPUExecutionProvider"])
        return lambda images: session.run(None, {"images": images.numpy()})


class OpenVino(Format):
    """A graph and, beside it, its weights, for OpenVINO."""

    name, runtime, suffix, extra = "OpenVINO", "OpenVINO", ".xml", "openvino"
    packages = ("onnxscript", "onnxruntime", "openvino")
    in_float64 = False

    def pack(self, proto: onnx.ModelProto) -> dict[str, bytes]:
        """Weights and graph; metadata stand in ``rt_info`` under ``perdure``."""
        openvino = importlib.import_module("openvino")
        model = openvino.Core().read_model(proto.SerializeToString())
        for entry in proto.metadata_props:
            model.set_rt_info(entry.value, ["perdure", entry.key])
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "model.xml"
            openvino.save_model(model, path, compress_to_fp16=False)
            return {ending: path.with_suffix(ending).read_bytes() for ending in (".bin", ".xml")}

    def runner(self, files: Mapping[str, bytes]) -> Run:
        """A compiled model of OpenVINO."""
        core = importlib.import_module("openvino").Core()
        model = core.read_model(files[".xml"], files[".bin"])
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(images: UInt8[Tensor, "b 3 s s"]) -> list[Any]:
            outputs = compiled(images.numpy())
            return [outputs[place].copy() for place in range(len(compiled.outputs))]

        return run


FORMATS: dict[str, Format] = {kind.suffix: kind() for kind in (Onnx, OpenVino)}
"""By the suffix of the file that is named."""


def format_of(path: Path) -> Format:
    """The format that a file's name stands for.

    Raises:
        ConfigError: none.
    """
    if path.suffix not in FORMATS:
        endings = " or ".join(f"{suffix} ({kind.name})" for suffix, kind in FORMATS.items())
        raise ConfigError(f"OUT '{path}': the name must end in {endings}, as {path.stem}.onnx.")
    return FORMATS[path.suffix]
