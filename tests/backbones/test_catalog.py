"""Names, sizes and sources of backbones; everything here works without network and real weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from perdure.backbones import catalog
from perdure.backbones.catalog import (
    create_backbone,
    describe,
    resolve_device,
    resolve_precision,
)
from perdure.backbones.listing import SIZES, USES, entries
from perdure.backbones.sizes import options_for
from perdure.backbones.sources import WHEELS
from perdure.errors import BackboneError, ConfigError, UnknownNameError


def hub_cache(folder: Path, repository: str, content: bytes) -> Path:
    """Lay out a cached weight file as the hub's client does."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    root = folder / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(revision)
    (snapshot / "model.safetensors").write_bytes(content)
    return folder


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a hub that cannot be reached."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "home"))
    return tmp_path / "hub"


def test_the_papers_backbone_is_normalised_to_half() -> None:
    described = describe("vit_base_patch16_224.augreg_in21k")
    assert described.mean == described.std == (0.5, 0.5, 0.5)
    assert described.repository == "timm/vit_base_patch16_224.augreg_in21k"
    assert (described.img_size, described.projection) == (224, 0)


@pytest.mark.parametrize(
    "name",
    [
        "timm/vit_base_patch16_224.augreg_in21k",
        "hf-hub:timm/vit_base_patch16_224.augreg_in21k",
        "vit_base_patch16_224_in21k",  # timm's old name, which many papers print
    ],
)
def test_other_spellings_mean_the_same(name: str) -> None:
    assert describe(name) == describe("vit_base_patch16_224.augreg_in21k")


def test_a_name_without_tag_means_timms_default() -> None:
    assert describe("test_vit").name == "test_vit.r160_in1k"


@pytest.mark.parametrize(
    ("name", "projection"),
    [
        ("vit_base_patch16_clip_quickgelu_224.openai", 512),
        ("vit_large_patch14_clip_224.laion2b", 768),
        ("vit_base_patch16_clip_224.openai_ft_in1k", 0),
        ("vit_base_patch16_clip_224.laion2b_ft_in12k_in1k", 0),
        ("vit_small_patch14_dinov2.lvd142m", 0),
        ("deit_base_patch16_224", 0),
        ("clip_vit_base_patch16", 512),
        ("vit_pe_core_base_patch16_224", 1024),
        ("eva02_base_patch16_clip_224", 512),
        ("resnet50", 0),
        ("dinov2_vit_small_patch14_saliency", 0),
    ],
)
def test_only_the_projection_of_clip_is_kept(name: str, projection: int) -> None:
    assert describe(name).projection == projection


def test_wheels_are_what_timm_knows_by_their_architecture() -> None:
    for wheel in WHEELS.values():
        tag = {"clip": "openai", "dinov2": "lvd142m"}[wheel.export]
        config = timm.get_pretrained_cfg(f"{wheel.architecture}.{tag}")
        assert config is not None
        assert (wheel.img_size, wheel.mean, wheel.std) == (
            config.input_size[-1],
            config.mean,
            config.std,
        )
        assert wheel.projection == config.num_classes


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("clip_vit_base_patch_16", "Did you mean 'clip_vit_base_patch16'?"),
        ("vit_base_patch16_24", "Did you mean 'vit_base_patch16_224'?"),
        ("vit_base_patch16_224.augreg_in21", "Did you mean 'augreg_in21k'? Known: augreg2_in21k_"),
        ("resnet_50", "Did you mean 'resnet50'?"),
        ("qqq", "Unknown backbone 'qqq'. Known: clip_vit_base_patch16, dinov2_vit_small"),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest(name: str, told: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        create_backbone(name)
    assert told in str(caught.value)
    assert all(f"'{part}'" in str(caught.value) for part in name.split("."))
    assert len(str(caught.value)) < 700


def test_random_weights_depend_on_the_seed_alone() -> None:
    state = torch.get_rng_state()
    first = create_backbone("test_vit", weights="random", precision="fp32")
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    again = create_backbone("test_vit", weights="random", precision="fp32")
    other = create_backbone("test_vit", weights="random", precision="fp32", seed=1)
    assert first.digest() == again.digest() != other.digest()


def test_a_fixed_size_in_place_of_a_dynamic_one() -> None:
    native = create_backbone("test_vit", weights="random")
    assert (native.name, native.img_size) == ("test_vit.r160_in1k", 160)
    assert native.spec.patches == 100
    small = create_backbone("test_vit", weights="random", img_size=32, precision="fp32")
    assert (small.img_size, small.spec.patches, small.spec.projection) == (32, 4, None)
    cls = small.forward(small.normalise(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))).cls
    assert cls is not None
    assert cls.shape == (2, 64)


@pytest.mark.parametrize(
    ("size", "nearest"),
    [(100, "96 and 112"), (8, "16 and 32"), (0, "16 and 32"), (-64, "16 and 32")],
)
def test_a_size_that_the_patch_does_not_divide(size: int, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"img_size={size} is .* 16 px.* fit: {nearest}\."):
        create_backbone("test_vit", weights="random", img_size=size)


def test_weights_from_a_file(tmp_path: Path) -> None:
    made = timm.create_model("test_vit", num_classes=1000)
    torch.save({"state_dict": made.state_dict()}, tmp_path / "w.pth")
    loaded = create_backbone("test_vit", weights=tmp_path / "w.pth", precision="fp32")
    images = torch.rand(2, 3, 160, 160)
    cls = loaded.forward(images).cls
    assert cls is not None
    torch.testing.assert_close(cls, made.eval().forward_features(images)[:, 0])
    with pytest.raises(BackboneError, match=r"w\.pth do not fit .*of another shape: cls_token"):
        create_backbone("vit_tiny_patch16_224", weights=str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("radnom", r"weights='radnom' is neither .* Did you mean 'random'\?"),
        (
            "/no/such/file.pth",
            "weights='/no/such/file.pth' is neither 'auto' nor 'random' nor a file",
        ),
    ],
)
def test_weights_that_are_not_there(weights: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        create_backbone("test_vit", weights=weights)


def test_the_hubs_own_cache_is_used(offline: Path) -> None:
    made = timm.create_model("test_vit", num_classes=1000)
    content = safetensors.torch.save(made.state_dict())
    hub_cache(offline, "timm/test_vit.r160_in1k", content)
    backbone = create_backbone("timm/test_vit.r160_in1k", img_size=64, precision="fp32")
    key = made.blocks[2].attn.qkv.weight[64:128].sum().item()
    assert backbone.img_size == 64
    assert float(backbone.spec.key_weight[2].sum()) == pytest.approx(key)
    assert [one.name for one in entries() if one.at_hand] == ["test_vit.r160_in1k"]


def test_a_hub_that_cannot_be_reached(offline: Path) -> None:
    told: list[str] = []
    with pytest.raises(BackboneError) as caught:
        create_backbone("vit_tiny_patch16_224.augreg_in21k", img_size=32, on_progress=told.append)
    for part in (
        "Wanted: model.safetensors of timm/vit_tiny_patch16_224.augreg_in21k.",
        str(offline),
        "set HF_HUB_CACHE",
        "weights=PATH",
        "package index only: clip_vit_base_patch16, dinov2_vit_small_patch14_saliency.",
    ):
        assert part in str(caught.value)
    assert told == [
        "Weights of vit_tiny_patch16_224.augreg_in21k from the model hub, unless cached"
    ]


def test_a_damaged_hub_file_is_named(offline: Path) -> None:
    hub_cache(offline, "timm/test_vit.r160_in1k", b"\0" * 100)
    with pytest.raises(BackboneError, match=r"model\.safetensors .*cannot be read"):
        create_backbone("test_vit")


def test_a_model_without_published_weights() -> None:
    name = "vit_huge_patch14_gap_224.in1k_ijepa"  # published, but not on the hub
    described = describe(name)
    with pytest.raises(BackboneError, match=f"has no weights for '{name}'.* weights=PATH; or "):
        catalog._hub_weights(described, None)


def test_entries(offline: Path) -> None:
    listed = entries()
    assert len({entry.name for entry in listed}) == len(listed) == len(WHEELS) + 15
    assert [*dict.fromkeys(entry.use for entry in listed)] == list(USES)
    assert {entry.architecture for entry in listed} == set(SIZES)
    assert not any(entry.at_hand for entry in listed)
    assert not offline.parent.joinpath("home").exists()
    for entry in listed:
        described = describe(entry.name)
        assert described.name == entry.name
        assert (described.architecture, described.img_size) == (entry.architecture, entry.img_size)
        assert (described.wheel is not None) == (entry.source == "package index")


@pytest.mark.parametrize("architecture", list(SIZES))
def test_sizes_are_what_timm_builds(architecture: str) -> None:
    config = timm.get_pretrained_cfg(architecture)
    assert config is not None
    side = config.input_size[-1]
    with torch.device("meta"):
        options = options_for(architecture, architecture, side, side)
        model = timm.create_model(architecture, num_classes=0, **options).eval()
        model.requires_grad_(requires_grad=False)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.forward_head(model.forward_features(torch.zeros(1, 3, side, side)), True)
    parameters = sum(weight.numel() for weight in model.parameters())
    assert SIZES[architecture] == (
        pytest.approx(parameters / 1e6, rel=0.02),
        pytest.approx(counter.get_total_flops() / 1e9, rel=0.02),
    )


def test_listing_does_not_wait_for_torch() -> None:
    lines = """if True:
        import sys
        from perdure.backbones.listing import entries
        entries()
        sys.exit("torch" in sys.modules or "timm" in sys.modules)
    """
    root = str(Path(catalog.__file__).parents[2])
    subprocess.run(
        [sys.executable, "-c", lines], env={**os.environ, "PYTHONPATH": root}, check=True
    )


def test_resolve_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ConfigError, match="'cuda' was asked for, and 0 CUDA devices are visible"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("auto") == "cuda"
    assert resolve_device("cuda:0") == "cuda:0"
    with pytest.raises(ConfigError, match="'cuda:1' was asked for, and 1 CUDA devices"):
        resolve_device("cuda:1")
    with pytest.raises(ConfigError, match="Unknown device 'gpu'"):
        resolve_device("gpu")


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ({"avx2": True, "avx512_f": True}, "fp32"),
    ],
)
def test_resolve_precision(
    able: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("bf16", "cpu") == "bf16"
    assert resolve_precision("fp32", "cpu") == "fp32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bool(able.get("amx_bf16")))
    assert resolve_precision("auto", "cuda:0") == ("bf16" if able.get("amx_bf16") else "fp32")
    with pytest.raises(ConfigError, match=r"Unknown precision 'fp16'\. Did you mean '(bf16|fp32)'"):
        resolve_precision("fp16", "cpu")
