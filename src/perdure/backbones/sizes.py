"""Image sizes that a model of timm takes, and models without a feature vector, known from its shapes.

Everything is computed on torch's meta device: no weight is drawn and no file is read.
"""

from __future__ import annotations

import warnings
from typing import Any

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from perdure.backbones.frozen import check_features
from perdure.errors import BackboneError, ConfigError

LARGEST_UNIT = 64
"""Sizes near a refused one are looked for in steps of this, which strides and windows divide."""


def options_for(name: str, architecture: str, native: int, side: int) -> dict[str, Any]:
    """Return the options that build a model for images of a size; none where it is resized later.

    Checks that the model gives a feature vector, and takes such images.

    Args:
        name: of the backbone, for errors.
        architecture: of timm.
        native: the side that it was made for, in pixels.
        side: the side asked for.

    Raises:
        BackboneError: it gives no feature vector.
        ConfigError: a size that it cannot take, with sizes that it can.
    """
    model = _outline(architecture)
    if isinstance(model, VisionTransformer | Eva):
        patch = model.patch_embed.patch_size[0]
        if side <= 0 or side % patch:
            below = max(side // patch, 1) * patch
            raise _refused(
                name,
                side,
                f"is not a multiple of the patch of '{name}', {patch} px",
                below,
                below + patch,
            )
        return {"img_size": side, "dynamic_img_size": False}
    check_features(model, name)
    problem = _problem(model, name, native)
    if isinstance(problem, BackboneError):
        raise problem
    if problem is not None or side == native:
        return {}  # what meta tensors cannot tell, the first image will
    if side > 0 and _problem(_outline(architecture), name, side) is None:
        return {}
    near = max(side // LARGEST_UNIT, 1) * LARGEST_UNIT
    able = [
        one
        for one in dict.fromkeys((near, near + LARGEST_UNIT, native))
        if _problem(_outline(architecture), name, one) is None
    ]
    raise _refused(name, side, f"cannot be taken by '{name}'", *able)


def resize(model: Any, side: int) -> None:
    """Let a model that is bound to a size take another, by timm's own resampling.

    Windows keep their share of the image.

    Raises:
        ConfigError: its windows would not divide the image.
    """
    if hasattr(model, "set_input_size"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how timm indexes tensors when it resamples biases
            model.set_input_size(img_size=(side, side))
        for part in model.modules():
            window = getattr(part, "window_size", None)
            grid = getattr(part, "input_resolution", None)
            if window and grid and any(g % w for g, w in zip(grid, window, strict=True)):
                raise ConfigError(
                    f"windows of {window[0]} x {window[1]} do not divide {grid[0]} x {grid[1]} tokens"
                )


def _outline(architecture: str) -> Any:
    """The model on the meta device; on the CPU where timm cannot build it there."""
    try:
        with torch.device("meta"):
            return timm.create_model(architecture, num_classes=0).eval()
    except (RuntimeError, NotImplementedError):
        return timm.create_model(architecture, num_classes=0).eval()


def _problem(model: nn.Module, name: str, side: int) -> Exception | None:
    """What stops the model at this size; a `BackboneError` where it is no vector that it gives."""
    outline: Any = model.to("meta")
    try:
        resize(outline, side)
        with torch.device("meta"), torch.no_grad():
            images = torch.zeros(2, 3, side, side)
            vector = outline.forward_head(outline.forward_features(images), pre_logits=True)
    except Exception as problem:  # whatever shapes that do not fit lead to
        return problem
    if isinstance(vector, torch.Tensor) and vector.shape == (2, outline.head_hidden_size):
        return None
    shape = tuple(vector.shape) if isinstance(vector, torch.Tensor) else type(vector).__name__
    return BackboneError(
        f"'{name}' is a {type(model).__name__}, which gives no feature vector: its features for "
        f"two images are {shape}. `perdure ls backbones` lists models that do."
    )


def _refused(name: str, side: int, why: str, *able: int) -> ConfigError:
    listed = " and ".join(str(one) for one in able)
    return ConfigError(f"img_size={side} {why}. Nearest sizes that fit: {listed}.")
