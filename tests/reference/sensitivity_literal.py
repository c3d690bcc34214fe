"""The sensitivity Gram word by word: the full Jacobian of every image's readout by `torch.func`."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from perdure.engine.model import Model


def jacobians(model: Model, pixels: Tensor) -> dict[str, Tensor]:
    """∂f/∂p of every image, (n, D, prompts of a block in a row), by the name of the prompts."""
    found: dict[str, list[Tensor]] = {}
    for image in pixels:
        query = model.backbone(model.backbone.normalise(image[None])).cls
        own = model.method.image_prompts(query, 1)
        prompts = {name: value.detach() for name, value in own.items()}
        for name, value in prompts.items():
            readout = functools.partial(_readout, model, image, query, prompts, name)
            one: Tensor = torch.func.jacrev(readout, chunk_size=1)(value)
            found.setdefault(name, []).append(one.detach().flatten(1).double())
    return {name: torch.stack(rows) for name, rows in found.items()}


def _readout(
    model: Model,
    image: Tensor,
    query: Tensor | None,
    prompts: Mapping[str, Tensor],
    name: str,
    value: Tensor,
) -> Tensor:
    added = model.method.additions_of({**prompts, name: value}, query)
    return model.forward(image[None], additions=added)[0][0]


def gram(jacobian: Tensor, metric: Tensor) -> Tensor:
    """Σ Jᵀ M J over images."""
    total = torch.zeros(jacobian.shape[2], jacobian.shape[2], dtype=torch.float64)
    for one in jacobian:
        total += one.T @ metric @ one
    return total
