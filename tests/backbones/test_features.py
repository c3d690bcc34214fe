"""Features of any model of timm: what its own classifier sees, at sizes that it takes."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from perdure.backbones.additions import Additions
from perdure.backbones.catalog import create_backbone, describe
from perdure.backbones.families import freeze
from perdure.backbones.frozen import FrozenFeatures
from perdure.backbones.sizes import resize
from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.errors import BackboneError, ConfigError

SMALL = {
    "test_byobnet": 64,
    "test_convnext": 64,
    "test_efficientnet": 64,
    "test_mambaout": 64,
    "test_nfnet": 64,
    "test_resnet": 64,
    "efficientvit_m0": 96,
    "mobilenetv4_conv_small_050": 64,
    "repvit_m0_9": 64,
    "swin_s3_tiny_224": 64,
    "test_eva": 64,
}
"""Of many families the smallest model, and a side that is not its own."""
HUGE = 120_000_000  # weights


def small(name: str, side: int | None = None) -> FrozenFeatures:
    """Random weights, in float32."""
    made = create_backbone(name, weights="random", precision="fp32", img_size=side)
    assert isinstance(made, FrozenFeatures)
    return made


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in SMALL if timm.is_model(name)])
@torch.no_grad()
def test_features_are_what_timms_classifier_sees(name: str) -> None:
    backbone = create_backbone(name, weights="random", precision="fp32", img_size=SMALL[name])
    images = torch.randn(2, 3, SMALL[name], SMALL[name])
    vit = backbone._model
    theirs = vit.forward_head(vit.forward_features(images), pre_logits=True)
    ours = backbone(images).cls
    assert ours is not None
    if isinstance(backbone, FrozenFeatures):
        assert torch.equal(ours, theirs)
    assert ours.shape == (2, backbone.spec.dim)
    config = timm.get_pretrained_cfg(describe(name).name)
    assert config is not None
    assert (backbone.mean, backbone.std) == (config.mean, config.std)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_family_of_timm_gives_features() -> None:
    """The smallest model of every module, at its own size."""
    failed, began = [], time.monotonic()
    for module in timm.list_modules():
        names = sorted(timm.list_models(module=module), key=len)[:4]
        with torch.device("meta"):
            sizes = {n: sum(p.numel() for p in timm.create_model(n).parameters()) for n in names}
        name = min(sizes, key=lambda one: sizes[one])
        if sizes[name] > HUGE:
            continue
        try:
            backbone = create_backbone(name, weights="random", precision="fp32")
            with torch.no_grad():
                cls = backbone(torch.zeros(1, 3, backbone.img_size, backbone.img_size)).cls
            assert cls is not None
            assert cls.shape == (1, backbone.spec.dim)
        except BackboneError as error:
            assert "gives no feature vector" in str(error)  # noqa: PT017
        except Exception as error:
            failed.append(f"{module} {name}: {type(error).__name__}: {error}")
    assert not failed, "\n".join([*failed, f"{time.monotonic() - began:.0f} s"])


def test_prompts_are_refused_by_the_capability_that_lacks() -> None:
    backbone = small("test_resnet", 64)
    images = torch.zeros(1, 3, 64, 64)
    with pytest.raises(
        BackboneError, match=r"'test_resnet\S*' lacks key_value_prompts \(prompts as"
    ):
        backbone(images, Additions(tokens={0: torch.zeros(1, 2, backbone.spec.dim)}))
    with pytest.raises(BackboneError, match="lacks tokens"):
        backbone(images, read="all")
    with pytest.raises(BackboneError, match="has no blocks to begin at: perdure runs a ResNet as"):
        backbone.advance(images, 1)
    with pytest.raises(BackboneError) as caught:
        Model(backbone, make_config({"method": "nsp2"}))
    text = str(caught.value)
    assert "Method 'nsp2' needs key_value_prompts, prompts as keys and values" in text
    assert re.search(
        r"Backbones that have it: vit_base_patch16_224, .*eva02_base_patch14_224\.", text
    )
    assert re.search(r"Methods that run on 'test_resnet\S*': linear, ncm, lda\.", text)
    Model(backbone, make_config({"method": "lda"}))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "side", "told"),
    [
        (
            "test_convnext",
            3,
            "img_size=3 cannot be taken by 'test_convnext.*fit: 64 and 128 and 160",
        ),
        (
            "swin_tiny_patch4_window7_224",
            100,
            "img_size=100 cannot be taken .*fit: 64 and 128 and 224",
        ),
        ("hiera_tiny_224", 96, r"img_size=96 cannot be taken .*fit: 224\."),
        ("test_resnet", 0, "img_size=0 cannot be taken"),
        (
            "vit_small_patch16_dinov3",
            100,
            "img_size=100 is not a multiple of the patch.*96 and 112",
        ),
    ],
)
def test_a_size_that_the_family_cannot_take(
    name: str, side: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.backbones.catalog._build", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(ConfigError, match=told):
        create_backbone(name, weights="random", img_size=side)


@pytest.mark.long
def test_windows_keep_their_share_of_the_image() -> None:
    backbone = create_backbone("swin_s3_tiny_224", weights="random", img_size=64, precision="fp32")
    for part in backbone._model.modules():
        if hasattr(part, "window_size") and hasattr(part, "input_resolution"):
            grid, window = part.input_resolution, part.window_size
            assert grid[0] % window[0] == 0


def test_windows_that_do_not_divide_the_image_are_refused() -> None:
    with torch.device("meta"):
        model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0)
    with pytest.raises(ConfigError, match=r"windows of 3 x 3 do not divide 28 x 28 tokens"):
        resize(model, 112)


def test_a_model_without_a_feature_vector() -> None:
    with pytest.raises(
        BackboneError, match="'plain' is a Sequential, which gives no feature vector"
    ):
        freeze(nn.Sequential(nn.Flatten()), name="plain")


def test_weights_of_another_family_are_refused(tmp_path: Path) -> None:
    vit = timm.create_model("test_vit", num_classes=0)
    safetensors.torch.save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(BackboneError, match=r"vit\.safetensors do not fit the model .*missing: "):
        create_backbone("test_resnet", weights=tmp_path / "vit.safetensors")


def test_weights_from_a_file_with_the_classifier_left_out(tmp_path: Path) -> None:
    made = timm.create_model("test_resnet", num_classes=10)
    safetensors.torch.save_file(made.state_dict(), tmp_path / "w.safetensors")
    ours = create_backbone("test_resnet", weights=tmp_path / "w.safetensors", precision="fp32")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        theirs = made.eval().forward_head(made.forward_features(images), pre_logits=True)
    assert torch.equal(ours(images).cls, theirs)  # type: ignore[arg-type]


def test_a_whole_model_in_bf16_and_its_float32_twin() -> None:
    narrow = create_backbone("test_resnet", weights="random", precision="bf16", img_size=64)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        low, high = narrow(images).cls, narrow.float32(images).cls
    assert low is not None
    assert high is not None
    assert low.dtype == high.dtype == torch.float32
    assert 0 < float((low - high).norm() / high.norm()) < 0.05
    assert narrow.digest() == small("test_resnet", 64).digest()
