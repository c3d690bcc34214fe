"""Weight conversion: files of other layouts to the state dict of a timm model.

Nothing is executed and nothing is unpickled beyond plain tensors: ONNX files are read for their
constants alone, ``.pth`` files with ``weights_only=True``.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from perdure.errors import BackboneError
from perdure.wording import listed

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".ckpt", ".tar")
"""Endings of the weight files that ``load_weights`` takes."""

_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_HEADS = ("head.", "head_dist.", "attn_pool.")
_SHOWN = 5


@dataclass(frozen=True)
class _Names:
    """Names of the parts of a block in one ONNX export."""

    block: str
    query: str
    key: str
    value: str
    output: str
    norms: tuple[str, str]
    scales: tuple[str, str] | None = None


_CLIP = _Names(
    block="/vision_model/encoder/layers.{}",
    query="self_attn/q_proj",
    key="self_attn/k_proj",
    value="self_attn/v_proj",
    output="self_attn/out_proj",
    norms=("layer_norm1", "layer_norm2"),
)
_DINOV2 = _Names(
    block="/backbone/encoder/layer.{}",
    query="attention/attention/query",
    key="attention/attention/key",
    value="attention/attention/value",
    output="attention/output/dense",
    norms=("norm1", "norm2"),
    scales=("layer_scale1", "layer_scale2"),
)


class _Constants:
    """Constants of an ONNX graph, by name and by the matrix product that uses them."""

    def __init__(self, path: Path) -> None:
        import onnx  # only for index wheels, and only the first time

        self.path = path
        self._array = onnx.numpy_helper.to_array
        graph = onnx.load(str(path), load_external_data=False).graph
        self._stored = {constant.name: constant for constant in graph.initializer}
        self._factor = {
            node.name: node.input[1]
            for node in graph.node
            if node.op_type in {"MatMul", "MatMulInteger"} and node.input[1] in self._stored
        }

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def array(self, name: str) -> NDArray[np.float32]:
        if name not in self._stored:
            raise BackboneError(f"{self.path.name} has no constant '{name}'; is it another export?")
        return self._array(self._stored[name]).astype(np.float32)

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.array(name).copy())

    def weight(self, where: str) -> Tensor:
        """Return the weight of the linear layer at ``where``, (out, in), in float32."""
        name = self._factor.get(f"{where}/MatMul_quant") or self._factor.get(f"{where}/MatMul")
        if name is None:
            raise BackboneError(f"{self.path.name} has no linear layer '{where}'; another export?")
        stored = self.array(name)
        if name.endswith("_quantized"):
            base = name.removesuffix("_quantized")
            stored = (stored - self.array(f"{base}_zero_point")) * self.array(f"{base}_scale")
        return torch.from_numpy(np.ascontiguousarray(stored.T))

    def only(self, prefix: str, ndim: int) -> Tensor:
        """Return the one constant of ``ndim`` dimensions whose generated name starts so."""
        matching = [
            name
            for name, constant in self._stored.items()
            if name.startswith(prefix) and len(constant.dims) == ndim
        ]
        if len(matching) != 1:
            raise BackboneError(
                f"{self.path.name} has {len(matching)} constants '{prefix}*' of {ndim} dimensions "
                "where one was expected; is it another export?"
            )
        return self.tensor(matching[0])


def clip_state_dict(onnx_path: Path) -> dict[str, Tensor]:
    """Read the image tower of CLIP from an ONNX export with int8 weights.

    Each weight is (q − zero) · scale per output column, then transposed; nothing else is rounded.
    The visual projection becomes the head, with a bias of zero.

    Args:
        onnx_path: a file whose checksum has been verified; initialisers in Hugging Face's names.

    Returns:
        A float32 state dict that loads strictly into timm's ``vit_base_patch16_clip_quickgelu_224``
        (or its like, where the file holds other dimensions).

    Raises:
        BackboneError: a constant is missing.
    """
    constants = _Constants(onnx_path)
    start, tower = "vision_model.embeddings", "vision_model"
    projection = constants.weight("/visual_projection")
    state = {
        "cls_token": constants.tensor(f"{start}.class_embedding").reshape(1, 1, -1),
        "pos_embed": constants.tensor(f"{start}.position_embedding.weight").unsqueeze(0),
        "patch_embed.proj.weight": constants.tensor(f"{start}.patch_embedding.weight"),
        "head.weight": projection,
        "head.bias": torch.zeros(len(projection)),
    }
    for ours, theirs in (("norm_pre", "pre_layrnorm"), ("norm", "post_layernorm")):
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = constants.tensor(f"{tower}.{theirs}.{part}")
    return state | _blocks(constants, _CLIP)


def dinov2_state_dict(onnx_path: Path) -> dict[str, Tensor]:
    """Read a DINOv2 trunk from a float32 ONNX export of a model built on it.

    Whatever the export adds behind the trunk is left out. The position of the class token and those
    of the patches are stored apart; they are joined.

    Args:
        onnx_path: a file whose checksum has been verified; initialisers in Hugging Face's names.

    Returns:
        A float32 state dict that loads strictly into timm's ``vit_small_patch14_dinov2`` at its
        native size (518 px; or its like, where the file holds other dimensions).

    Raises:
        BackboneError: a constant is missing.
    """
    constants = _Constants(onnx_path)
    start = "backbone.embeddings"
    positions = (constants.only("onnx::Concat_", 3), constants.only("onnx::Reshape_", 3))
    state = {
        "cls_token": constants.tensor(f"{start}.cls_token"),
        "pos_embed": torch.cat(positions, dim=1),
    }
    for part in ("weight", "bias"):
        stored = f"{start}.patch_embeddings.projection.{part}"
        state[f"patch_embed.proj.{part}"] = constants.tensor(stored)
        state[f"norm.{part}"] = constants.tensor(f"backbone.layernorm.{part}")
    return state | _blocks(constants, _DINOV2)


def _blocks(constants: _Constants, names: _Names) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for index in itertools.count():
        block = names.block.format(index)
        dotted = block.strip("/").replace("/", ".")
        if f"{dotted}.{names.norms[0]}.weight" not in constants:
            return state

        def bias(part: str, dotted: str = dotted) -> Tensor:
            return constants.tensor(f"{dotted}.{part.replace('/', '.')}.bias")

        ours = f"blocks.{index}"
        fused = (names.query, names.key, names.value)
        state[f"{ours}.attn.qkv.weight"] = torch.cat(
            [constants.weight(f"{block}/{part}") for part in fused]
        )
        state[f"{ours}.attn.qkv.bias"] = torch.cat([bias(part) for part in fused])
        linears = {"attn.proj": names.output, "mlp.fc1": "mlp/fc1", "mlp.fc2": "mlp/fc2"}
        for ours_part, part in linears.items():
            state[f"{ours}.{ours_part}.weight"] = constants.weight(f"{block}/{part}")
            state[f"{ours}.{ours_part}.bias"] = bias(part)
        for number, norm in enumerate(names.norms, start=1):
            state[f"{ours}.norm{number}.weight"] = constants.tensor(f"{dotted}.{norm}.weight")
            state[f"{ours}.norm{number}.bias"] = bias(norm)
        for number, scale in enumerate(names.scales or (), start=1):
            state[f"{ours}.ls{number}.gamma"] = constants.tensor(f"{dotted}.{scale}.lambda1")
    raise AssertionError("unreachable")


def load_weights(vit: nn.Module, path: Path) -> None:
    """Load a weight file into a timm model, leaving no weight unset.

    Position embeddings of another grid are resampled as timm does. Heads of another size are left
    out; every other missing or left-over weight is an error.

    Args:
        vit: the model to fill, in place.
        path: ``.safetensors``; ``.npz`` in the layout of the original ViT release; ``.pth``,
            ``.pt``, ``.bin``, ``.ckpt`` or ``.tar`` as ``torch.save`` writes them, tensors only.

    Raises:
        BackboneError: the file cannot be read, or does not fit.
    """
    if path.suffix.lower() == ".npz":
        _load_npz(vit, path)
    else:
        load_state(vit, read_state(path), str(path))


def not_finite(state: Mapping[str, Tensor]) -> str:
    """Name the tensors that hold NaN or infinity, at most five; empty where all numbers are finite."""
    names = (
        name
        for name, value in state.items()
        if (value.is_floating_point() or value.is_complex()) and not value.isfinite().all()
    )
    return listed(tuple(names), _SHOWN)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of a ``.safetensors`` or PyTorch file, common wrappers taken off.

    Raises:
        BackboneError: no such file, an ending that is not known, a damaged file, or a pickle that
            holds more than tensors.
    """
    if not path.is_file():
        raise BackboneError(f"There is no weight file {path}.")
    if path.suffix.lower() not in SUFFIXES:
        raise BackboneError(
            f"The weight file {path} ends with '{path.suffix}'. Allowed: {', '.join(SUFFIXES)}."
        )
    try:
        if path.suffix.lower() == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise BackboneError(
            f"The weight file {path} is damaged or holds more than tensors, which perdure does not "
            "unpickle. Save its state dict with safetensors.torch.save_file and give that file."
        ) from problem
    except OSError as problem:
        raise BackboneError(f"The weight file {path} cannot be read: {problem}") from problem
    except Exception as problem:  # a damaged pickle makes torch's reader raise almost anything
        raise BackboneError(
            f"The weight file {path} is damaged or cannot be read: {_told(problem)}. Fetch it again."
        ) from problem
    return _unwrapped(content, path)


def _told(problem: Exception) -> str:
    """The first line of a problem, after its kind: alone, a message such as '7' says nothing."""
    return f"{type(problem).__name__}: {str(problem).partition(chr(10))[0]}".rstrip(" :.")


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    state: dict[str, Tensor] = {}
    for name, value in content.items() if isinstance(content, dict) else ():
        if isinstance(name, str) and isinstance(value, Tensor):
            state[functools.reduce(str.removeprefix, _PREFIXES, name)] = value
    if not state:
        raise BackboneError(
            f"The weight file {path} holds no named tensors. A state dict is expected, bare or "
            "under 'state_dict' or 'model'."
        )
    return state


def load_state(vit: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load named tensors into a timm model, strictly but for heads of another size.

    Args:
        vit: the model to fill, in place.
        state: tensors in timm's layout or one that timm's own filter knows.
        source: where they come from, for errors.

    Raises:
        BackboneError: weights are missing, left over, or of another shape.
    """
    patch = "patch_embed.proj.weight"
    try:
        loaded = _filter_of(vit)(dict(state), vit)
    except Exception as problem:  # whatever tensors of unexpected shapes and types lead to
        raise BackboneError(
            f"The weights of {source} do not fit the model: {_told(problem)}"
        ) from problem
    own = vit.state_dict()
    if patch in state and patch in own and state[patch].ndim == own[patch].ndim:
        loaded[patch] = state[patch]  # timm resamples it; a patch of another size is another model
    for name in [name for name in loaded if name.startswith(_heads(vit))]:
        if name not in own or own[name].shape != loaded[name].shape:
            del loaded[name]
    problems = {
        "missing": [name for name in own if name not in loaded],
        "unexpected": [name for name in loaded if name not in own],
        "of another shape": [
            f"{name} {tuple(loaded[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in loaded and own[name].shape != loaded[name].shape
        ],
    }
    _refuse(problems, source)
    _refuse_not_finite(loaded, source)
    try:
        vit.load_state_dict(loaded, strict=True)
    except RuntimeError as problem:  # tensors without content, or of a kind that cannot be copied
        raise BackboneError(
            f"The weights of {source} do not fit the model: {_told(problem)}"
        ) from problem


def _filter_of(model: nn.Module) -> Callable[..., dict[str, Tensor]]:
    """The function by which timm turns published layouts into its own, and resamples positions."""
    if isinstance(model, VisionTransformer):
        # The resampling that each release was published with; timm hides it in its model builders.
        config: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
        flexible = str(config.get("architecture")).startswith("flexivit")
        how: dict[str, Any] = {"interpolation": "bilinear", "antialias": False} if flexible else {}
        return functools.partial(checkpoint_filter_fn, **how)
    own: Callable[..., dict[str, Tensor]] | None = getattr(
        sys.modules[type(model).__module__], "checkpoint_filter_fn", None
    )
    return own or (lambda state, model: state)


def _heads(model: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names of weights behind the features."""
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    classifiers = (named,) if isinstance(named, str) else named
    return (*_HEADS, *(f"{name}." for name in classifiers))


def _refuse(problems: Mapping[str, list[str]], source: str) -> None:
    mismatches = [
        f"{len(names)} {kind}: {listed(names, _SHOWN)}" for kind, names in problems.items() if names
    ]
    if mismatches:
        raise BackboneError(
            f"The weights of {source} do not fit the model ({'; '.join(mismatches)}). "
            "Give the name of the architecture that they were saved from."
        )


def _refuse_not_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that would make every feature NaN, in silence."""
    try:
        broken = not_finite(state)
    except RuntimeError as problem:
        raise BackboneError(
            f"The weights of {source} cannot be used: {_told(problem)}"
        ) from problem
    if broken:
        raise BackboneError(
            f"The weights of {source} hold NaN or infinity in {broken}: the file is damaged. Fetch "
            "it again."
        )


def _load_npz(vit: nn.Module, path: Path) -> None:
    if not isinstance(vit, VisionTransformer):
        raise BackboneError(f"{type(vit).__name__} is not a timm VisionTransformer.")
    if not path.is_file():
        raise BackboneError(f"There is no weight file {path}.")
    with torch.no_grad():
        # timm's reader skips what the file lacks: whatever is still NaN afterwards was not set.
        for weight in vit.parameters():
            weight.fill_(torch.nan)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                blocks = {part for key in stored for part in key.split("/") if "block_" in part}
            vit.load_pretrained(str(path))
        except (OSError, LookupError, RuntimeError, TypeError, ValueError, EOFError) as problem:
            raise BackboneError(
                f"The weights of {path} do not fit the model: {problem}"
            ) from problem
        except zipfile.BadZipFile as problem:
            raise BackboneError(f"The weight file {path} is damaged: {problem}") from problem
    _refuse(
        {
            "missing": [name for name, weight in vit.named_parameters() if weight.isnan().any()],
            "unexpected": sorted(blocks)[len(vit.blocks) :],
        },
        str(path),
    )
    _refuse_not_finite(dict(vit.named_parameters()), str(path))
