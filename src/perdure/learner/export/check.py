"""Check of an exported file: its answers beside those of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from perdure.errors import ExportError
from perdure.learner.export.formats import Run
from perdure.learner.state import LearnerState
from perdure.randomness import generator

ATOL = RTOL = 1e-4
"""Allowed difference from the model's own logits and probabilities, see `check_agreement`."""
CANCELLED = 0.01
"""A logit that terms have cancelled in is measured by this share of the image's largest."""
RANDOM_BATCHES = (1, 3)
"""Images of random pixels: a batch of one, and one of another size than was traced."""


@dataclass(frozen=True)
class Answered:
    """A batch of images, with the model's own answers in float32.

    Attributes:
        kind: ``random`` pixels or ``your`` images.
        images: as they enter the network.
        logits: of the head.
        shares: how familiar they are; None where that was not measured.
    """

    kind: str
    images: UInt8[Tensor, "b 3 s s"]
    logits: Float[Tensor, "b c"]
    shares: Float64[Tensor, "b"] | None


@dataclass(frozen=True)
class Agreement:
    """Result of a comparison in float32.

    Attributes:
        random: images of random pixels.
        real: images of the caller's.
        largest_difference: largest absolute difference of any logit.
    """

    random: int
    real: int
    largest_difference: float


def answers(
    state: LearnerState, head: str, real: Sequence[UInt8[Tensor, "3 s s"]] = ()
) -> list[Answered]:
    """The model's own answers to random pixels and to transformed images of the caller's."""
    return [
        Answered(kind, images, *state.familiarity([images], head, float32=True))
        for kind, images in _batches(state, real)
    ]


def _batches(
    state: LearnerState, real: Sequence[UInt8[Tensor, "3 s s"]]
) -> Iterator[tuple[str, UInt8[Tensor, "b 3 s s"]]]:
    side, random = state.model.backbone.img_size, generator(0, "export")
    for count in RANDOM_BATCHES:
        drawn = torch.randint(0, 256, (count, 3, side, side), generator=random)
        yield "random", drawn.to(torch.uint8)
    size = state.model.config.runtime.eval_batch_size
    for start in range(0, len(real), size):
        yield "your", torch.stack(list(real[start : start + size]))


def check_agreement(
    run: Run, answered: Sequence[Answered], state: LearnerState, head: str, in_float64: bool = True
) -> Agreement:
    """Compare a file's answers with the model's own.

    Logits must agree within ``ATOL`` + ``RTOL`` × their size, and so must probabilities; and the
    best class must be the same, unless two are as close as that. A size counts as `CANCELLED` × that
    of the image's largest logit at least; for a runtime without float64 it is the largest one's.

    Raises:
        ExportError: they do not agree.
    """
    largest, counts = 0.0, {"random": 0, "your": 0}
    for batch in answered:
        theirs = [torch.from_numpy(output) for output in run(batch.images)]
        far = largest_difference(
            batch.logits, state.temperature(head), theirs, batch.kind, in_float64
        )
        largest = max(largest, far)
        if batch.shares is not None:
            check_shares(batch.shares, theirs[-1], state, head, batch.kind)
        counts[batch.kind] += len(batch.images)
    return Agreement(counts["random"], counts["your"], largest)


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
    ours: Float[Tensor, "b c"],
    temperature: float,
    theirs: Sequence[Tensor],
    kind: str,
    in_float64: bool = True,
) -> float:
    """Return the largest difference of logits.

    Raises:
        ExportError: it is too large, or another class is the best.
    """
    shares = (ours / temperature).softmax(dim=1)
    pairs = {"logits": (ours, theirs[0]), "probabilities": (shares, theirs[1])}
    for name, (own, other) in pairs.items():
        largest = own.abs().amax(dim=1, keepdim=True)
        size = torch.maximum(own.abs(), CANCELLED * largest) if in_float64 else largest
        if other.shape != own.shape or not bool(((other - own).abs() <= ATOL + RTOL * size).all()):
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
