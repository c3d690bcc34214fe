"""The frozen backbone computes what timm computes, refuses what it cannot take, is never trained."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from torch import Tensor, nn

from perdure.backbones.additions import Additions, TokenResidual
from perdure.backbones.vit import FrozenViT
from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.engine.survey import ImageSurvey
from perdure.errors import BackboneError
from perdure.randomness import generator
from perdure.streams import Stream, StreamConfig, build_stream
from tests.reference.small_vits import (
    KINDS,
    SIDE,
    built,
    error,
    frozen,
    images,
    lively,
    rotary,
    small_vit,
)
from tests.reference.vit_literal import LiteralViT

RTOL = 1e-5
READS = frozenset({"cls", "tokens", "cls_attention"})


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@torch.no_grad()
def test_all_rows_equal_timm_bit_for_bit(kind: str) -> None:
    vit, backbone = small_vit(kind), frozen(kind)
    for block in vit.blocks:
        block.attn.fused_attn = True
    theirs = vit.forward_features(images())
    ours = backbone(images(), read="all")
    assert ours.cls is not None
    assert ours.tokens is not None
    first = backbone.spec.prefix_tokens
    assert torch.equal(ours.cls, theirs[:, 0])
    assert torch.equal(ours.tokens, theirs[:, first:])
    assert ours.tokens.shape[1] == backbone.spec.patches
    assert ours.input is None
    assert ours.cls_attention is None


@torch.no_grad()
def test_class_tokens_of_all_blocks_go_through_the_final_norm(kind: str) -> None:
    vit, backbone = small_vit(kind), frozen(kind)
    rows: list[torch.Tensor] = []
    for block in vit.blocks:
        block.register_forward_hook(lambda _, __, out: rows.append(vit.norm(out)[:, 0]))
    vit.forward_features(images())
    alone = backbone(images(), read=frozenset({"layers"})).layers
    assert alone is not None
    torch.testing.assert_close(alone, torch.stack(rows, dim=1), rtol=RTOL, atol=1e-6)
    both = backbone(images(), read=frozenset({"cls", "layers"}))
    assert both.layers is not None
    assert both.cls is not None
    assert torch.equal(both.layers[:, -1], both.cls)


@torch.no_grad()
def test_class_row_alone_equals_that_of_all_rows(kind: str) -> None:
    backbone = frozen(kind)
    whole, cut = backbone(images(), read="all"), backbone(images())
    assert cut.tokens is None
    assert cut.cls is not None
    assert whole.cls is not None
    assert error(cut.cls, whole.cls) < RTOL


@torch.no_grad()
def test_plain_rows_equal_literal_twin(kind: str) -> None:
    backbone, twin = frozen(kind), LiteralViT(small_vit(kind))
    ours = backbone(images(), read=READS)
    passed = twin.forward(images())
    first = backbone.spec.prefix_tokens
    weights = passed.blocks[-1].weights[:, :, 0, first:].mean(1)
    assert ours.cls is not None
    assert ours.tokens is not None
    assert ours.cls_attention is not None
    assert error(ours.cls, passed.rows[:, 0]) < RTOL
    assert error(ours.tokens, passed.rows[:, first:]) < RTOL
    assert error(ours.cls_attention, weights) < RTOL


@torch.no_grad()
def test_distilled_deit_keeps_both_prefix_tokens() -> None:
    vit = timm.create_model("deit_tiny_distilled_patch16_224", img_size=SIDE, num_classes=0).eval()
    theirs = vit.forward_features(images())
    ours = FrozenViT(vit, name="distilled")(images(), read="all")
    assert ours.cls is not None
    assert torch.equal(ours.cls, theirs[:, 0])
    assert ours.tokens is not None
    assert torch.equal(ours.tokens, theirs[:, 2:])


def test_digest_tells_every_bit() -> None:
    backbone = frozen("test_vit")
    before = backbone.digest()
    assert frozen("test_vit").digest() == before
    assert frozen("test_vit", precision="bf16").digest() == before
    backbone.spec.norm_scale[5][7].mul_(1 + 2**-23)
    assert backbone.digest() != before


def test_spec_describes_the_blocks(kind: str) -> None:
    vit, spec = small_vit(kind), frozen(kind).spec
    assert (spec.dim, spec.blocks, spec.heads) == (
        vit.embed_dim,
        len(vit.blocks),
        vit.blocks[0].attn.num_heads,
    )
    assert spec.patches == (SIDE // vit.patch_embed.patch_size[0]) ** 2
    assert spec.prefix_tokens == 1 + (0 if vit.reg_token is None else vit.reg_token.shape[1])
    nonlinear = {"linear_keys"} if "qk_norm" in kind else set()
    assert set(spec.lacks) == nonlinear | ({"projection"} if kind != "clip" else set())
    if not spec.has("linear_keys"):
        return
    assert spec.norm_eps == vit.blocks[0].norm1.eps
    for block, weight, scale in zip(vit.blocks, spec.key_weight, spec.norm_scale, strict=True):
        keys = (
            block.attn.k_proj.weight
            if block.attn.qkv is None
            else block.attn.qkv.weight.chunk(3)[1]
        )
        assert torch.equal(weight, keys)
        assert torch.equal(scale, block.norm1.weight)
    assert (spec.projection is not None) == (kind == "clip")


def test_images_are_normalised_by_the_backbones_own_moments() -> None:
    backbone = frozen("test_vit", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    pixels = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    for channel in range(3):
        wanted = (pixels[:, channel] / 255 - 0.1 * (channel + 1)) / (0.4 + 0.1 * channel)
        torch.testing.assert_close(backbone.normalise(pixels)[:, channel], wanted)


def test_no_weight_ever_gets_a_gradient() -> None:
    vit = small_vit("test_vit").train()
    backbone = FrozenViT(vit, name="test_vit")
    prompts = torch.randn(1, 3, 64, requires_grad=True)
    additions = Additions(
        tokens={0: prompts},
        input=prompts,
        residual={5: TokenResidual(lambda x, keys: (0.1 * (x + keys), {}, {}))},
    )
    features = backbone(images(), additions, read=frozenset({"cls", "input", "cls_attention"}))
    assert features.cls is not None
    features.cls.sum().backward()
    assert prompts.grad is not None
    assert all(p.grad is None and not p.requires_grad for p in vit.parameters())
    assert not any(module.training for module in vit.modules())


def test_a_backbone_is_no_module() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = frozen("test_vit")

    holder = Holder()
    assert not list(holder.parameters())
    assert not holder.state_dict()


# ------------------------------------------------------------------------------------------ refusals

REFUSED = {
    "post_norm": (
        lambda: built(block_fn=timm.models.vision_transformer.ResPostBlock),
        "block 0 is a ResPostBlock, not a plain pre-norm block",
    ),
    "rotary_post_norm": (
        lambda: rotary(use_post_norm=True, scale_attn_inner=True),
        "block 0 is a EvaBlockPostNorm, not a plain pre-norm block",
    ),
    "grouped": (
        lambda: rotary(attn_type="rope", num_kv_heads=2, qkv_fused=False),
        r"block 0 shares keys among heads \(grouped queries\)",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
@torch.no_grad()
def test_blocks_of_another_kind_take_no_additions(case: str) -> None:
    make, reason = REFUSED[case]
    vit = make().eval()
    theirs = vit.forward_features(images())
    backbone = FrozenViT(vit, name=case)
    prompts = torch.zeros(1, 3, backbone.spec.dim)
    with pytest.raises(BackboneError, match=rf"'{case}' lacks key_value_prompts \(.*\): {reason}"):
        backbone(images(), Additions(tokens={0: prompts}))
    with pytest.raises(BackboneError, match="lacks input_tokens"):
        backbone(images(), Additions(input=prompts))
    # without additions it serves as it is
    ours = backbone(images(), read="all")
    assert ours.tokens is not None
    assert torch.equal(ours.tokens, theirs[:, backbone.spec.prefix_tokens :])


NONLINEAR = {
    "qk_norm": (
        lambda: built(qk_norm=True, depth=6),
        r"block 0 normalises queries and keys \(qk-norm\)",
    ),
    "rms_norm": (
        lambda: timm.create_model("test_vit4", img_size=SIDE, num_classes=0),
        "block 0 uses RmsNorm instead of LayerNorm",
    ),
}


@pytest.mark.parametrize("case", list(NONLINEAR))
def test_a_method_refuses_a_backbone_by_the_capability_that_it_lacks(case: str) -> None:
    make, reason = NONLINEAR[case]
    backbone = FrozenViT(make(), name=case)
    with pytest.raises(BackboneError) as caught:
        Model(backbone, make_config({"method": "nsp2"}))
    text = str(caught.value)
    assert re.match(rf"Method 'nsp2' needs linear_keys, .* which '{case}' lacks: {reason}\.", text)
    assert "Backbones that have it: vit_base_patch16_224" in text
    able = re.findall(rf"Methods that run on '{case}': (.*)\.", text)[0].split(", ")
    assert {"finetune", "lda", "iprompt", "l2p"} <= set(able)
    assert not {"nsp2", "l2p_nsp2", "clip_finetune"} & set(able)
    for name in able:
        Model(backbone, make_config({"method": name}))


@pytest.mark.parametrize("name", ["test_vit2", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("pool", ["avg", "map"])
def test_without_a_class_token_the_backbones_own_pooling_is_read(name: str, pool: str) -> None:
    options = {"class_token": False, "global_pool": pool, "embed_dim": 64, "num_heads": 2}
    vit = timm.create_model(name, img_size=SIDE, num_classes=0, **options)
    backbone = FrozenViT(lively(vit), name="pooled")
    with torch.no_grad():
        theirs = vit(images())
    features = backbone(images(), read="all")
    assert features.cls is not None
    assert features.tokens is not None
    assert torch.equal(features.cls, theirs)
    with torch.no_grad():
        rows = vit.fc_norm(vit.forward_features(images()))  # no norm but where it is after pooling
    torch.testing.assert_close(features.tokens, rows[:, backbone.spec.prefix_tokens :])
    assert features.tokens.shape == (3, 4, 64)
    normed: list[Tensor] = []
    vit.norm.register_forward_hook(lambda *call: normed.append(call[2]))
    more = torch.randn(3, 5, 64, generator=generator(0, "input"))
    joined = backbone(images(), Additions(input=more), read=frozenset({"cls", "input"}))
    assert joined.input is not None
    assert joined.input.shape == more.shape  # and they are not pooled:
    attending = backbone(images(), Additions(input=more), read="all")
    assert joined.cls is not None
    assert attending.tokens is not None
    if backbone.spec.prefix_tokens:  # registers take part in timm's pooling
        return
    torch.testing.assert_close(joined.cls, vit.forward_head(normed[-1][:, :4], True).detach())


def test_a_class_token_that_the_last_norm_passes_by_is_not_read() -> None:
    """As in EVA-L: trained on the mean of the image tokens, normalised after it."""
    options = {"global_pool": "avg", "embed_dim": 64, "num_heads": 2}
    vit = timm.create_model("vit_tiny_patch16_224", img_size=SIDE, num_classes=0, **options)
    backbone = FrozenViT(lively(vit), name="pooled")
    with torch.no_grad():
        theirs = vit(images())
    found = backbone(images()).cls
    assert found is not None
    assert torch.equal(found, theirs)
    assert not backbone.spec.has_class_token


def test_what_needs_a_class_token_says_so() -> None:
    backbone = FrozenViT(timm.create_model("test_vit2", img_size=SIDE, num_classes=0), name="two")
    with pytest.raises(BackboneError, match=r"target='cls' adds .* but 'two' has none"):
        Model(backbone, make_config({"method": "iprompt", "target": "cls"}))
    with pytest.raises(
        BackboneError, match=r"'two' lacks class_attention \(.*\): there is no class token"
    ):
        backbone(images(), read=frozenset({"cls_attention"}))


@pytest.mark.parametrize("name", ["test_byobnet", "test_convnext"])
def test_other_architectures_are_other_families(name: str) -> None:
    model = timm.create_model(name)
    with pytest.raises(
        BackboneError, match=f"'{name}' is a {type(model).__name__}, not a VisionTransformer"
    ):
        FrozenViT(model, name=name)


def test_input_rows_need_input_tokens() -> None:
    with pytest.raises(BackboneError, match="no input tokens were added"):
        frozen("test_vit")(images(), read=frozenset({"input"}))


# ----------------------------------------------------------------------------------------- precision


@torch.no_grad()
def test_bf16_is_near_float32(kind: str) -> None:
    prompts = torch.randn(1, 4, frozen(kind).spec.dim)
    additions = Additions(tokens={0: prompts, 2: prompts})
    wide = frozen(kind)(images(), additions, read=READS)
    narrow = frozen(kind, precision="bf16")(images(), additions, read=READS)
    for name in READS:
        ours, theirs = getattr(narrow, name), getattr(wide, name)
        assert ours.dtype == torch.float32
        assert 0 < error(ours, theirs) < 0.05


@torch.no_grad()
def test_float32_twin_shares_the_float32_weights() -> None:
    backbone = frozen("test_vit", precision="bf16")
    wide = backbone.float32
    assert wide is backbone.float32
    assert wide.precision == "fp32"
    assert wide.spec.norm_scale[0] is backbone.spec.norm_scale[0]
    cls, wanted = wide(images()).cls, frozen("test_vit")(images()).cls
    assert cls is not None
    assert wanted is not None
    assert torch.equal(cls, wanted)
    plain = frozen("test_vit")
    assert plain.float32 is plain


@pytest.fixture(scope="module")
def stream() -> Stream:
    four = "synthetic:4x32"
    return build_stream(StreamConfig(four, images_per_class=3, test_images_per_class=1), seed=0)


def test_surveys_are_float32_under_bf16_compute(stream: Stream) -> None:
    config = make_config({"method": "nsp2", "img_size": SIDE})
    features, grams = [], []
    for precision in ("fp32", "bf16"):
        model = Model(frozen("test_vit", precision=precision), config)
        model.start_task(stream.tasks[0].task)
        survey = ImageSurvey(model, stream.tasks[0])
        model.method.end_task(stream.tasks[0].task, survey)
        features.append(survey.features("train")[0])
        grams.append(model.method.state_dict()["gram_affinity_3"])
    assert torch.equal(*features)
    assert torch.equal(*grams)
