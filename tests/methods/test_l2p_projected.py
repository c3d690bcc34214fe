"""NSP² and PGP on a pool of deep prompts: Grams per entry and what steps leave as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from perdure.engine.model import Model
from perdure.engine.run import plan
from perdure.engine.survey import ImageSurvey
from perdure.randomness import generator
from perdure.testing import make_trial
from perdure.testing.trial import Trial
from perdure.types import BlockView

STRICT: dict[str, Any] = {"projector": "orthogonal", "eta1": 1.0}


class Choices:
    """Keeps every image's choice, query and attention on the chosen prompts of one block."""

    def __init__(self, block: int) -> None:
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []
        self._block = block

    def start_batch(self, positions: Tensor, total: int, labels: Tensor) -> None:
        """Nothing to look up."""

    def block(self, index: int, view: BlockView) -> None:
        """Keep them, image by image."""
        if index == self._block:
            assert view.prompt_attention is not None
            kept = (view.records["chosen"], view.records["query"], view.prompt_attention)
            self.seen += list(zip(*kept, strict=True))

    def merge(self, other: Choices) -> None:
        """Keep the choices of other batches too."""
        self.seen += other.seen


def after_one_task(trial: Trial, block: int) -> tuple[Model, Choices]:
    stage = plan(trial.stream, trial.config)[0]
    training = trial.start(stage)
    choices = Choices(block)
    ImageSurvey(training.model, stage.data)(choices)
    training.finish()
    return training.model, choices


def test_every_entry_has_the_gram_of_the_images_that_chose_it() -> None:
    trial = make_trial("l2p_nsp2", pool=6, top_k=2, prompt_length=3, statistics="mean")
    model, choices = after_one_task(trial, block=1)
    twin = torch.zeros(6, 3, 3, dtype=torch.float64)
    for chosen, _, attention in choices.seen:
        heads, tokens, _ = attention.shape
        for place, entry in enumerate(chosen.tolist()):
            rows = attention[..., 3 * place : 3 * place + 3].double().reshape(-1, 3)
            twin[entry] += rows.T @ rows / (heads * tokens)
    found = model.method.state_dict()["gram_aggregation_1"].double()
    torch.testing.assert_close(found, twin / len(choices.seen), rtol=1e-4, atol=1e-7)
    assert len({entry for chosen, _, _ in choices.seen for entry in chosen.tolist()}) > 1


def test_entries_that_no_image_chose_are_free() -> None:
    trial = make_trial("l2p_nsp2", pool=30, top_k=1, prompt_length=3, eta2=1.0, **STRICT)
    model, choices = after_one_task(trial, block=0)
    used = {entry for chosen, _, _ in choices.seen for entry in chosen.tolist()}
    assert 0 < len(used) < 30
    projectors = model.method.state_dict()["projector_aggregation_0"]
    for entry, projector in enumerate(projectors):
        assert torch.equal(projector, torch.eye(3)) is (entry not in used)


def test_projected_keys_keep_the_strongest_directions_of_old_queries() -> None:
    trial = make_trial("l2p_pgp", **STRICT)
    model, choices = after_one_task(trial, block=0)
    queries = F.normalize(torch.stack([query for _, query, _ in choices.seen]), dim=-1)
    rank = round(float(model.method.state_dict()["projector_queries_keys"].trace()))
    strongest = torch.linalg.svd(queries)[2][: 64 - rank]
    assert 1 <= len(strongest) < 64
    free = torch.randn(10, 64, generator=generator(0, "keys"))
    kept = model.method.project("keys", free)
    assert float((strongest @ free.T).norm()) > 0.1
    assert float((strongest @ kept.T).norm()) < 1e-3


@pytest.mark.parametrize("name", ["l2p_nsp2", "l2p_pgp"])
def test_strength_zero_projects_prompts_and_keys_nowhere(name: str) -> None:
    options = {"eta1": 0.0} | ({"eta2": 0.0} if name == "l2p_nsp2" else {})
    model, _ = after_one_task(make_trial(name, **options), block=0)
    for parameter_name, parameter in model.method.named_parameters():
        delta = torch.ones_like(parameter)
        assert torch.equal(model.method.project(parameter_name, delta), delta)
