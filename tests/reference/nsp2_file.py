"""Reads the file of reference values: what the NSP² authors' released program computed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from perdure.backbones.vit import FrozenViT
from perdure.types import Task

DEFAULT = Path(__file__).parent / "nsp2_reference.safetensors"


class ReferenceRun:
    """The reference file: sizes from its metadata, tensors by name, and the backbone it holds."""

    def __init__(self) -> None:
        path = Path(os.environ.get("PERDURE_NSP2_REFERENCE", DEFAULT))
        with safe_open(path, framework="pt") as file:
            self.sizes: dict[str, Any] = json.loads(file.metadata()["config"])
            self.values: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not iterable)

    def __getitem__(self, key: str) -> Tensor:
        return self.values[key]

    def backbone(self) -> FrozenViT:
        s = self.sizes
        vit = VisionTransformer(
            img_size=s["img_size"],
            patch_size=s["patch_size"],
            embed_dim=s["embed_dim"],
            num_heads=s["num_heads"],
            depth=s["depth"],
            num_classes=0,
        )
        for module in vit.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = s.get("norm_eps", 1e-6)
        weights = {
            key.removeprefix("backbone."): value
            for key, value in self.values.items()
            if key.startswith("backbone.")
        }
        vit.load_state_dict(weights, strict=True)
        return FrozenViT(vit, name="reference")

    def tasks(self) -> list[Task]:
        count, size = self.sizes["num_tasks"], self.sizes["classes_per_task"]
        return [
            Task(t, tuple(range(t * size, (t + 1) * size)), ("",) * size, (t + 1) * size)
            for t in range(count)
        ]
