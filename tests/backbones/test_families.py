"""Every method on every family of transformers, as docs/backbones.md says; random weights, small."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from perdure.backbones.catalog import WITH_TEXTS
from perdure.backbones.families import freeze
from perdure.backbones.frozen import FrozenBackbone
from perdure.backbones.sizes import resize
from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.errors import BackboneError
from perdure.methods import METHODS
from perdure.types import Task
from tests.reference.small_vits import lively

pytestmark = pytest.mark.long

PAGE = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text("utf-8")
PATCHES = 4
"""Per side of an image of a plain or rotary transformer."""
SIDE = 64
"""Of images for other families, in pixels."""
OF_ONE_SIZE = {"hiera_tiny_224": 224}
NARROW: dict[type, dict[str, Any]] = {
    VisionTransformer: {"embed_dim": 32, "depth": 6, "num_heads": 2},
    Eva: {"embed_dim": 32, "depth": 6, "num_heads": 2},
    SwinTransformer: {"embed_dim": 16, "depths": (1, 2, 2, 1), "num_heads": (1, 2, 2, 2)},
    ConvNeXt: {"dims": (16, 16, 32, 32), "depths": (1, 2, 2, 1)},
}
"""Options that make a family small."""


def table() -> dict[str, dict[str, bool]]:
    """What the page says: per architecture and method, whether it runs."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in PAGE[PAGE.index("| family |") :].splitlines()
        if line.startswith("|") and not line.startswith("|--") and not line.startswith("| :-")
    ]
    names = [re.sub("`", "", cell) for cell in rows[0][2:]]
    return {
        re.sub("`", "", row[1]): dict(zip(names, (cell == "✓" for cell in row[2:]), strict=True))
        for row in rows[1:]
        if len(row) == len(rows[0])
    }


TABLE = table()


def small(architecture: str) -> FrozenBackbone:
    """The architecture as timm builds it, narrow and shallow where it is a transformer."""
    with torch.device("meta"):
        outline = timm.create_model(architecture, num_classes=0)
    classes = 16 if any(part in architecture for part in WITH_TEXTS) else 0
    options: dict[str, Any] = {}
    for kind, sizes in NARROW.items():
        if isinstance(outline, kind):
            options = dict(sizes)
    if "embed_dim" in options and "depth" in options:
        options["img_size"] = PATCHES * outline.patch_embed.patch_size[0]
        options["dynamic_img_size"] = False
    model = timm.create_model(architecture, num_classes=classes, **options)
    side = options.get("img_size", OF_ONE_SIZE.get(architecture, SIDE))
    if side == SIDE:
        resize(model, side)
    return freeze(lively(model, 0.02), name=architecture, img_size=side)


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
