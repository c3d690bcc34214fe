"""Weight files of other layouts give the very weights they were written from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from perdure.backbones.convert import (
    clip_state_dict,
    dinov2_state_dict,
    load_state,
    load_weights,
    read_state,
)
from perdure.errors import BackboneError

DIM, DEPTH = 16, 11  # more than ten blocks, so that layer 10 must not be taken for layer 1
State = dict[str, Tensor]


def tiny_vit(seed: int = 0, **changes: Any) -> VisionTransformer:
    """A vision transformer in which every weight is drawn from a normal distribution."""
    shape = {"img_size": 28, "patch_size": 7, "embed_dim": DIM, "depth": 3, "num_heads": 2}
    vit = VisionTransformer(**{**shape, "num_classes": 0, **changes}).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in vit.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw))
    return vit


class Export:
    """Collects the constants and matrix products of an ONNX file with torch's generated names."""

    def __init__(self) -> None:
        self.constants: list[TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []

    def put(self, name: str, value: Tensor | NDArray[Any]) -> str:
        array = value.detach().numpy() if isinstance(value, Tensor) else value
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def product(self, where: str, weight: Tensor) -> None:
        """A float linear layer at ``where`` of weight (out, in)."""
        factor = self.put(f"onnx::MatMul_{900 + len(self.nodes)}", weight.detach().T)
        node = helper.make_node("MatMul", ["x", factor], ["y"], name=f"{where}/MatMul")
        self.nodes.append(node)

    def product_int8(self, where: str, draw: np.random.Generator, out: int, width: int) -> Tensor:
        """An int8 linear layer at ``where``; returns the float weight that it stands for."""
        base = f"onnx::MatMul_{900 + len(self.nodes)}"
        stored = draw.integers(-128, 128, (width, out), dtype=np.int8)
        zero = draw.integers(-128, 128, out, dtype=np.int8)
        scale = np.exp2(draw.integers(-9, -5, out)).astype(np.float32)  # exact products
        self.put(f"{base}_quantized", stored)
        self.put(f"{base}_zero_point", zero)
        self.put(f"{base}_scale", scale)
        factors = ["x", f"{base}_quantized", "x_zero_point", f"{base}_zero_point"]
        node = helper.make_node("MatMulInteger", factors, ["y"], name=f"{where}/MatMul_quant")
        self.nodes.append(node)
        # The literal twin: one entry at a time, in Python's floats.
        rows = [
            [(int(stored[i, o]) - int(zero[o])) * float(scale[o]) for i in range(width)]
            for o in range(out)
        ]
        return torch.tensor(rows, dtype=torch.float32)

    def save(self, path: Path) -> Path:
        # A product of two activations, as attention has them, must not be taken for a layer.
        scores = helper.make_node("MatMul", ["q", "k"], ["s"], name="/attention/MatMul")
        graph = helper.make_graph([scores, *self.nodes], "g", [], [], initializer=self.constants)
        path.write_bytes(helper.make_model(graph).SerializeToString())
        return path


def write_dinov2(path: Path, state: State) -> Path:
    """Write a timm state dict as the ONNX export of a saliency model on DINOv2 would hold it."""
    export = Export()
    emb = "backbone.embeddings"
    export.put(f"{emb}.cls_token", state["cls_token"])
    export.put("onnx::Concat_1957", state["pos_embed"][:, :1])
    export.put("onnx::Reshape_1962", state["pos_embed"][:, 1:])
    export.put("decoder.final_conv.bias", torch.zeros(1))
    for part in ("weight", "bias"):
        projection = f"{emb}.patch_embeddings.projection.{part}"
        export.put(projection, state[f"patch_embed.proj.{part}"])
        export.put(f"backbone.layernorm.{part}", state[f"norm.{part}"])
    for index in range(DEPTH):
        ours, theirs = f"blocks.{index}", f"backbone.encoder.layer.{index}"
        where = f"/{theirs.replace('.', '/').replace('layer/', 'layer.')}"
        fused = zip(
            state[f"{ours}.attn.qkv.weight"].chunk(3),
            state[f"{ours}.attn.qkv.bias"].chunk(3),
            strict=True,
        )
        layers = dict(zip(("query", "key", "value"), fused, strict=True))
        for name in ("key", "value", "query"):  # the order of the export
            weight, bias = layers[name]
            export.product(f"{where}/attention/attention/{name}", weight)
            export.put(f"{theirs}.attention.attention.{name}.bias", bias)
        for our, their in (("attn.proj", "attention/output/dense"), *MLP):
            export.product(f"{where}/{their}", state[f"{ours}.{our}.weight"])
            export.put(f"{theirs}.{their.replace('/', '.')}.bias", state[f"{ours}.{our}.bias"])
        for number in (1, 2):
            for part in ("weight", "bias"):
                export.put(f"{theirs}.norm{number}.{part}", state[f"{ours}.norm{number}.{part}"])
            export.put(f"{theirs}.layer_scale{number}.lambda1", state[f"{ours}.ls{number}.gamma"])
    return export.save(path)


MLP = (("mlp.fc1", "mlp/fc1"), ("mlp.fc2", "mlp/fc2"))


def write_clip(path: Path, state: State) -> State:
    """Write a state dict as an int8 export of CLIP; linear weights are replaced by drawn ones."""
    export, draw, state = Export(), np.random.default_rng(0), dict(state)
    emb, tower = "vision_model.embeddings", "vision_model"
    export.put(f"{emb}.class_embedding", state["cls_token"].flatten())
    export.put(f"{emb}.position_embedding.weight", state["pos_embed"][0])
    export.put(f"{emb}.patch_embedding.weight", state["patch_embed.proj.weight"])
    for part in ("weight", "bias"):
        export.put(f"{tower}.pre_layrnorm.{part}", state[f"norm_pre.{part}"])
        export.put(f"{tower}.post_layernorm.{part}", state[f"norm.{part}"])

    def linear(where: str, like: Tensor) -> Tensor:
        return export.product_int8(where, draw, *like.shape)

    for index in range(DEPTH):
        ours, theirs = f"blocks.{index}", f"{tower}.encoder.layers.{index}"
        where = f"/{tower}/encoder/layers.{index}"
        weights = state[f"{ours}.attn.qkv.weight"].chunk(3)
        drawn = []
        for name, weight, bias in zip(
            "qkv", weights, state[f"{ours}.attn.qkv.bias"].chunk(3), strict=True
        ):
            drawn.append(linear(f"{where}/self_attn/{name}_proj", weight))
            export.put(f"{theirs}.self_attn.{name}_proj.bias", bias)
        state[f"{ours}.attn.qkv.weight"] = torch.cat(drawn)
        for our, their in (("attn.proj", "self_attn/out_proj"), *MLP):
            state[f"{ours}.{our}.weight"] = linear(
                f"{where}/{their}", state[f"{ours}.{our}.weight"]
            )
            export.put(f"{theirs}.{their.replace('/', '.')}.bias", state[f"{ours}.{our}.bias"])
        for number in (1, 2):
            for part in ("weight", "bias"):
                export.put(
                    f"{theirs}.layer_norm{number}.{part}", state[f"{ours}.norm{number}.{part}"]
                )
    state["head.weight"] = linear("/visual_projection", state["head.weight"])
    state["head.bias"] = torch.zeros_like(state["head.bias"])
    export.save(path)
    return state


def assert_same(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == torch.float32, name
        assert torch.equal(found[name], tensor), name


def test_dinov2_state_dict(tmp_path: Path) -> None:
    vit = tiny_vit(depth=DEPTH, init_values=1.0)
    converted = dinov2_state_dict(write_dinov2(tmp_path / "v.onnx", vit.state_dict()))
    assert_same(converted, vit.state_dict())
    tiny_vit(seed=1, depth=DEPTH, init_values=1.0).load_state_dict(converted, strict=True)


def test_clip_state_dict(tmp_path: Path) -> None:
    vit = tiny_vit(depth=DEPTH, pre_norm=True, num_classes=6)
    expected = write_clip(tmp_path / "c.onnx", vit.state_dict())
    converted = clip_state_dict(tmp_path / "c.onnx")
    assert_same(converted, expected)
    vit.load_state_dict(converted, strict=True)


@pytest.mark.parametrize(
    ("read", "lost"),
    [
        (clip_state_dict, "no linear layer '/visual_projection'"),
        (dinov2_state_dict, r"0 constants 'onnx::Concat_\*' of 3 dimensions"),
    ],
)
def test_another_export_is_named(tmp_path: Path, read: Any, lost: str) -> None:
    with pytest.raises(BackboneError, match=rf"other\.onnx has {lost}"):
        read(Export().save(tmp_path / "other.onnx"))


def test_a_missing_constant_is_named(tmp_path: Path) -> None:
    vit = tiny_vit(depth=DEPTH, init_values=1.0)
    path = write_dinov2(tmp_path / "v.onnx", vit.state_dict())
    model = onnx.load(str(path))
    kept = [c for c in model.graph.initializer if c.name != "backbone.layernorm.bias"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BackboneError, match=r"no constant 'backbone\.layernorm\.bias'"):
        dinov2_state_dict(path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"state_dict": {f"module.{name}": t for name, t in state.items()}},
        lambda state: {"model": {f"module._orig_mod.{name}": t for name, t in state.items()}},
    ],
)
def test_wrappers_come_off(tmp_path: Path, wrap: Any) -> None:
    vit, other = tiny_vit(), tiny_vit(seed=1)
    torch.save(wrap(vit.state_dict()), tmp_path / "w.pth")
    load_weights(other, tmp_path / "w.pth")
    assert_same(dict(other.state_dict()), dict(vit.state_dict()))


def test_safetensors_in_half_precision(tmp_path: Path) -> None:
    vit, other = tiny_vit(), tiny_vit(seed=1)
    half = {name: tensor.half() for name, tensor in vit.state_dict().items()}
    safetensors.torch.save_file(half, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert_same(dict(other.state_dict()), {name: t.float() for name, t in half.items()})


def test_heads_of_another_size_are_left_out() -> None:
    state = tiny_vit(num_classes=10).state_dict()
    load_state(tiny_vit(seed=1), state, "x")  # the model has no head
    with pytest.raises(BackboneError, match=r"2 missing: head\.weight, head\.bias\)"):
        load_state(tiny_vit(seed=1, num_classes=6), state, "x")


def test_positions_of_another_grid_are_resampled() -> None:
    vit, smaller = tiny_vit(), tiny_vit(seed=1, img_size=14)
    load_state(smaller, vit.state_dict(), "x")
    assert smaller.pos_embed.shape == (1, 5, DIM)
    assert torch.equal(smaller.pos_embed[:, 0], vit.pos_embed[:, 0])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"depth": 4}, r"\(12 missing: blocks\.3\.norm1\.weight, .* and 7 more\)"),
        ({"depth": 2}, r"\(12 unexpected: blocks\.2\.norm1\.weight, .* and 7 more\)"),
        (
            {"mlp_ratio": 2},
            r"of another shape: blocks\.0\.mlp\.fc1\.weight \(64, 16\) for \(32, 16\)",
        ),
        ({"patch_size": 14}, r"patch_embed\.proj\.weight \(16, 3, 7, 7\) for \(16, 3, 14, 14\)"),
        ({"init_values": 1.0}, r"6 missing: blocks\.0\.ls1\.gamma, "),
    ],
)
def test_weights_of_another_model_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BackboneError, match=told) as caught:
        load_state(tiny_vit(**changes), tiny_vit().state_dict(), "'spam'")
    assert str(caught.value).startswith("The weights of 'spam' do not fit the model")


class Surprise:
    """Something that only an unsafe pickle would bring to life."""


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    torch.save({"weights": Surprise()}, tmp_path / "surprise.pth")
    torch.save({"epoch": 3}, tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "half.safetensors").write_bytes(
        safetensors.torch.save(tiny_vit().state_dict())[:99]
    )
    (tmp_path / "graph.onnx").write_bytes(b"")
    for name, told in {
        "surprise.pth": "holds more than tensors",
        "nothing.pth": "holds no named tensors",
        "text.pth": "damaged or holds more than tensors",
        "half.safetensors": "cannot be read",
        "graph.onnx": r"ends with '\.onnx'\. Allowed: \.safetensors, \.npz",
        "absent.pth": "There is no weight file",
        "absent.npz": "There is no weight file",
    }.items():
        with pytest.raises(BackboneError, match=told) as caught:
            load_weights(tiny_vit(), tmp_path / name)
        assert name in str(caught.value)
        if name.endswith("pth"):
            with pytest.raises(BackboneError):
                read_state(tmp_path / name)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_damaged_pickle_is_refused_or_loaded(tmp_path: Path, as_zip: bool) -> None:
    vit, path = tiny_vit(depth=1), tmp_path / "weights.pth"
    torch.save(vit.state_dict(), path, _use_new_zipfile_serialization=as_zip)
    whole, draw = path.read_bytes(), np.random.default_rng(0)
    start = whole.index(b"cls_token") - 100  # the pickle, which names and numbers are damaged in
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[start + draw.integers(1500)] = draw.integers(256)
        path.write_bytes(damaged[: draw.integers(len(whole))] if draw.random() < 0.1 else damaged)
        try:
            load_weights(vit, path)
        except BackboneError as error:
            refused += "weights.pth" in str(error)
    assert refused > 30


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    vit = tiny_vit()
    with torch.no_grad():
        vit.blocks[1].mlp.fc1.weight[0, 0] = value
    told = r"hold NaN or infinity in blocks\.1\.mlp\.fc1\.weight: the file is damaged"
    with pytest.raises(BackboneError, match=told):
        load_state(tiny_vit(), vit.state_dict(), "here")


def write_npz(path: Path, vit: VisionTransformer, heads: int = 2) -> Path:
    """Write weights in the layout of the original ViT release, bar its head."""
    state = {name: tensor.detach() for name, tensor in vit.state_dict().items()}
    arrays: dict[str, Tensor] = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
    }
    for index in range(len(vit.blocks)):
        ours, theirs = f"blocks.{index}", f"Transformer/encoderblock_{index}"
        attention = f"{theirs}/MultiHeadDotProductAttention_1"
        fused = (state[f"{ours}.attn.qkv.weight"], state[f"{ours}.attn.qkv.bias"])
        parts = zip(("query", "key", "value"), fused[0].chunk(3), fused[1].chunk(3), strict=True)
        for name, weight, bias in parts:
            arrays[f"{attention}/{name}/kernel"] = weight.T.unflatten(1, (heads, -1))
            arrays[f"{attention}/{name}/bias"] = bias.unflatten(0, (heads, -1))
        output = state[f"{ours}.attn.proj.weight"].T.unflatten(0, (heads, -1))
        arrays[f"{attention}/out/kernel"] = output
        arrays[f"{attention}/out/bias"] = state[f"{ours}.attn.proj.bias"]
        for number, norm in ((1, 0), (2, 2)):
            arrays[f"{theirs}/LayerNorm_{norm}/scale"] = state[f"{ours}.norm{number}.weight"]
            arrays[f"{theirs}/LayerNorm_{norm}/bias"] = state[f"{ours}.norm{number}.bias"]
            dense = f"{theirs}/MlpBlock_3/Dense_{number - 1}"
            arrays[f"{dense}/kernel"] = state[f"{ours}.mlp.fc{number}.weight"].T
            arrays[f"{dense}/bias"] = state[f"{ours}.mlp.fc{number}.bias"]
    np.savez(path, **{name: tensor.numpy() for name, tensor in arrays.items()})
    return path


def test_npz_of_the_original_release(tmp_path: Path) -> None:
    vit, other = tiny_vit(), tiny_vit(seed=1)
    load_weights(other, write_npz(tmp_path / "w.npz", vit))
    assert_same(dict(other.state_dict()), dict(vit.state_dict()))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"depth": 4}, r"encoderblock_3"),
        ({"depth": 2}, r"1 unexpected: encoderblock_2\)"),
        ({"init_values": 1.0}, r"6 missing: blocks\.0\.ls1\.gamma, "),
        ({"embed_dim": 32}, "do not fit the model"),
    ],
)
def test_npz_of_another_model_is_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    path = write_npz(tmp_path / "w.npz", tiny_vit())
    with pytest.raises(BackboneError, match=told):
        load_weights(tiny_vit(**changes), path)


def test_a_damaged_npz_is_named(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "w.npz", tiny_vit())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BackboneError, match=r"w\.npz"):
        load_weights(tiny_vit(), path)
