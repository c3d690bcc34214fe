"""Compare an exported ONNX file with the PyTorch model, in ONNX Runtime."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from perdure.engine.model import Model
from perdure.errors import ExportError
from perdure.learner.state import LearnerState
from perdure.randomness import generator

ATOL = RTOL = 1e-4
"""Allowed difference from the model's own logits and probabilities."""
RANDOM_BATCHES = (1, 3)
"""Images of random pixels: a batch of one, and one of another size than was traced."""


@dataclass(frozen=True)
class Agreement:
    """Result of a comparison.

    Attributes:
        random: images of random pixels.
        real: images of the caller's.
        largest_difference: largest absolute difference of any logit.
    """

    random: int
    real: int
    largest_difference: float


def check_agreement(
    data: bytes, state: LearnerState, head: str, real: Sequence[UInt8[Tensor, "3 s s"]] = ()
) -> Agreement:
    """Compare ONNX Runtime's answers with the model's own, computed in float32.

    Logits must agree within ``ATOL`` + ``RTOL`` × their size, and so must probabilities; and the
    best class must be the same, unless two are as close as that. They are asked for random pixels
    and for ``real``, transformed images of the caller's.

    Raises:
        ExportError: they do not agree.
    """
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    largest, temperature = 0.0, state.temperature(head)
    for kind, images in _batches(state.model, real):
        ours, shares = state.familiarity([images], head, float32=True)
        theirs = [torch.from_numpy(out) for out in session.run(None, {"images": images.numpy()})]
        largest = max(largest, largest_difference(ours, temperature, theirs, kind))
        if shares is not None:
            check_shares(shares, theirs[-1], state, head, kind)
    return Agreement(sum(RANDOM_BATCHES), len(real), largest)


def _batches(model: Model, real: Sequence[Tensor]) -> Iterator[tuple[str, Tensor]]:
    side, random = model.backbone.img_size, generator(0, "export")
    for count in RANDOM_BATCHES:
        drawn = torch.randint(0, 256, (count, 3, side, side), generator=random)
        yield "random", drawn.to(torch.uint8)
    size = model.config.runtime.eval_batch_size
    for start in range(0, len(real), size):
        yield "your", torch.stack(list(real[start : start + size]))


def check_shares(
    ours: Float[Tensor, "b"], theirs: Float[Tensor, "b"], state: LearnerState, head: str, kind: str
) -> None:
    """Compare how familiar images are: a score at the edge of a bin may fall to either side.

    Raises:
        ExportError: a share differs by more than the fullest bin's.
    """
    measured = state.separation(head)
    assert measured is not None, "there are shares to compare"
    known = measured[1].known
    allowed = (max(known.values()) + 0.5) / (sum(known.values()) + 1)
    if ours.shape != theirs.shape or float((ours - theirs).abs().max()) > allowed:
        raise ExportError(
            f"The exported graph does not agree with the model: on {kind} images its familiarity "
            "is another. Nothing was written."
        )


def largest_difference(
    ours: Float[Tensor, "b c"], temperature: float, theirs: Sequence[Any], kind: str
) -> float:
    """Return the largest difference of logits.

    Raises:
        ExportError: it is too large, or another class is the best.
    """
    shares = (ours / temperature).softmax(dim=1)
    pairs = {"logits": (ours, theirs[0]), "probabilities": (shares, theirs[1])}
    for name, (own, other) in pairs.items():
        if other.shape != own.shape or not torch.allclose(other, own, rtol=RTOL, atol=ATOL):
            far = (other - own).abs().max() if other.shape == own.shape else float("nan")
            raise ExportError(
                f"The exported graph does not agree with the model: on {kind} images its {name} "
                f"differ by up to {float(far):.2g}, and at most {ATOL:g} + {RTOL:g} of their size "
                "is allowed. Nothing was written."
            )
    best = ours.max(dim=1).values
    named = ours.gather(1, theirs[0].argmax(dim=1, keepdim=True))[:, 0]
    if not torch.allclose(named, best, rtol=2 * RTOL, atol=2 * ATOL):
        raise ExportError(
            f"The exported graph names another class than the model on {kind} images. Nothing was "
            "written."
        )
    return float((theirs[0] - ours).abs().max())
