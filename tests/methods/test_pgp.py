"""Prompt gradient projection: its Gram and its condition, beside literal forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perdure.engine.run import plan
from perdure.engine.survey import ImageSurvey
from perdure.methods.pgp import PGP
from perdure.randomness import generator
from perdure.testing import make_trial
from perdure.testing.trial import Trial
from perdure.types import BlockView


class Tokens:
    """Keeps the tokens of every block."""

    def __init__(self) -> None:
        self.seen: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def start_batch(self, positions: Tensor, total: int, labels: Tensor) -> None:
        """Nothing to look up."""

    def block(self, index: int, view: BlockView) -> None:
        """Keep what enters the block, before and after its norm."""
        self.seen.setdefault(index, []).append((view.inputs, view.normed))

    def merge(self, other: Tokens) -> None:
        """Keep the tokens of other batches too."""
        for index, tokens in other.seen.items():
            self.seen.setdefault(index, []).extend(tokens)


def after_one_task(trial: Trial) -> tuple[PGP, Tokens]:
    stage = plan(trial.stream, trial.config)[0]
    training = trial.start(stage)
    model, tokens = training.model, Tokens()
    ImageSurvey(model, stage.data)(tokens)
    training.finish()
    assert isinstance(model.method, PGP)
    return model.method, tokens


@pytest.mark.parametrize(("inputs", "place"), [("before", 0), ("after", 1)])
def test_gram_is_that_of_the_input_tokens(inputs: str, place: int) -> None:
    trial = make_trial("pgp", inputs=inputs, statistics="mean", prompt_blocks=[1, 4])
    method, tokens = after_one_task(trial)
    for block in (1, 4):
        twin = torch.zeros(64, 64, dtype=torch.float64)
        images = 0
        for batch in tokens.seen[block]:
            for image in batch[place].double():
                images += 1
                for row in image:
                    twin += torch.outer(row, row) / len(image)
        found = method.state_dict()[f"gram_inputs_{block}"].double()
        torch.testing.assert_close(found, twin / images, rtol=1e-4, atol=1e-5)


def test_projected_updates_leave_the_strongest_directions_of_old_tokens_alone() -> None:
    """X ΔPᵀ = 0 along every direction above the knee; an unprojected update changes them."""
    method, tokens = after_one_task(make_trial("pgp", projector="orthogonal", eta1=1.0))
    for block in method.prompts.blocks:
        rows = torch.cat([inputs for inputs, _ in tokens.seen[block]]).flatten(0, 1)
        rank = round(float(method.state_dict()[f"projector_inputs_{block}"].trace()))
        strongest = torch.linalg.svd(rows)[2][: 64 - rank]
        assert 1 <= len(strongest) < 64
        free = torch.randn(4, 64, generator=generator(0, f"step.{block}"))
        kept = method.project(f"prompts.matrices.{block}", free)
        assert float((strongest @ free.T).norm()) > 0.1
        assert float((strongest @ kept.T).norm()) < 1e-3


def test_strength_zero_projects_nothing() -> None:
    method, _ = after_one_task(make_trial("pgp", eta1=0.0))
    delta = torch.randn(4, 64, generator=generator(0, "x"))
    assert torch.equal(method.project("prompts.matrices.0", delta), delta)
