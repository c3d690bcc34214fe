"""Every method on every family of transformers, as docs/backbones.md says; random weights, small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch

from perdure.backbones.catalog import create_backbone
from perdure.backbones.vit import FrozenViT
from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.errors import BackboneError, UnknownNameError
from perdure.methods import METHODS
from perdure.types import Task
from tests.reference.small_vits import lively

PAGE = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text("utf-8")
PATCHES = 4
"""Per side of an image."""


def table() -> dict[str, dict[str, bool]]:
    """What the page says: per architecture and method, whether it runs."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in PAGE.splitlines()
        if line.startswith("|") and not line.startswith("|--") and not line.startswith("| :-")
    ]
    names = [re.sub("`", "", cell) for cell in rows[0][2:]]
    return {
        re.sub("`", "", row[1]): dict(zip(names, (cell == "✓" for cell in row[2:]), strict=True))
        for row in rows[1:]
        if len(row) == len(rows[0])
    }


TABLE = table()


def small(architecture: str) -> FrozenViT:
    """The architecture as timm builds it, with narrow tokens and six blocks."""
    with torch.device("meta"):
        patch = timm.create_model(architecture, num_classes=0).patch_embed.patch_size[0]
    classes = 16 if "_clip_" in architecture else 0
    sizes = {"embed_dim": 32, "depth": 6, "num_heads": 2, "img_size": PATCHES * patch}
    vit = timm.create_model(architecture, num_classes=classes, dynamic_img_size=False, **sizes)
    return FrozenViT(lively(vit, 0.02), name=architecture)


def test_the_page_names_every_method() -> None:
    assert len(TABLE) >= 13
    for row in TABLE.values():
        assert list(row) == list(METHODS)


@pytest.mark.parametrize("architecture", list(TABLE))
def test_methods_run_where_the_page_says_so(architecture: str) -> None:
    backbone = small(architecture)
    pixels = torch.randint(0, 256, (2, 3, backbone.img_size, backbone.img_size)).to(torch.uint8)
    for name, runs in TABLE[architecture].items():
        config = make_config({"method": name, "backbone": architecture, "class_embeddings": "mean"})
        if not runs:
            with pytest.raises(BackboneError, match=re.escape(architecture)):
                Model(backbone, config)
            continue
        model = Model(backbone, config)
        model.start_task(Task(0, (0, 1), ("a", "b"), 2))
        with torch.no_grad():
            readout, _ = model.forward(pixels)
        assert readout.shape == (2, backbone.spec.dim)
        assert bool(readout.isfinite().all())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("eva02_base_patch14_224", "rotates queries and keys"),
        ("vit_base_patch16_rope_224", "rotates queries and keys"),
        ("convnext_tiny", "is convolutional. Prompts as keys and values need attention"),
        ("swin_tiny_patch4_window7_224", "attends within shifted windows"),
        ("swinv2_tiny_window8_256", "attends within shifted windows"),
        ("resnet18", "is a model of timm, but not one of its VisionTransformers"),
    ],
)
def test_what_is_no_plain_transformer_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(UnknownNameError, match=f"'{name}' {re.escape(reason)}"):
        create_backbone(name, weights="random")
    assert name in PAGE or name == "resnet18"
