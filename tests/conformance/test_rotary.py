"""Methods of prompts on a rotary backbone: the same checks, and the Gram of rotated queries."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from perdure.backbones.frozen import FrozenBackbone
from perdure.backbones.vit import FrozenViT
from perdure.engine.run import plan
from perdure.methods.nsp2 import QueryStatistics
from perdure.randomness import generator
from perdure.testing import ALL_CHECKS, Check
from perdure.testing.learning import check_beats_chance, check_resume
from perdure.testing.trial import PROJECTION, evaluation_pixels, make_trial
from perdure.types import BlockView
from tests.reference.small_vits import lively, rotary

pytestmark = pytest.mark.long

METHODS = ("coda_prompt", "dualprompt", "finetune", "iprompt", "l2p", "l2p_nsp2", "nsp2", "pgp")
BRIEFLY = ("iprompt", "nsp2")
"""Those that the default suite runs."""
LONG = (check_resume, check_beats_chance)


def built(projected: bool = False, places_alone: bool = False) -> FrozenBackbone:
    """DINOv3 in small, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = rotary(
            patch_size=16,
            embed_dim=64,
            depth=6,
            rope_type="dinov3",
            rope_rotate_half=True,
            num_reg_tokens=2,
            use_abs_pos_emb=False,
            use_fc_norm=False,
        )
    backbone = FrozenViT(lively(vit, 0.02), name="rotary", attention="fused")
    if places_alone:
        for block in vit.blocks:
            block.attn.qkv.weight[:64] = 0
            block.attn.q_bias.normal_(generator=generator(0, "queries"))
    if projected:
        drawn = torch.randn(PROJECTION, 64, generator=generator(0, "projection")) / 8
        weight = nn.Parameter(drawn, requires_grad=False)
        backbone.spec = dataclasses.replace(backbone.spec, projection=(weight, None))
    return backbone


@pytest.fixture(autouse=True)
def on_a_rotary_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.testing.trial._backbone", built)


@pytest.mark.parametrize(
    "method_name",
    [one if one in BRIEFLY else pytest.param(one, marks=pytest.mark.slow) for one in METHODS],
)
@pytest.mark.parametrize(
    "check", [one for one in ALL_CHECKS if one not in LONG], ids=lambda check: check.__name__
)
def test_conformance_where_queries_are_rotated(check: Check, method_name: str) -> None:
    check(method_name)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.slow
@pytest.mark.parametrize("method_name", METHODS)
@pytest.mark.parametrize("check", LONG, ids=lambda check: check.__name__)
def test_whole_runs_where_queries_are_rotated(check: Check, method_name: str) -> None:
    check(method_name)


class Last:
    """Observer that keeps the queries of the last batch."""

    def __init__(self) -> None:
        self.queries: dict[int, Tensor] = {}

    def start_batch(self, *batch: object) -> None:
        """Nothing depends on it."""

    def block(self, index: int, view: BlockView) -> None:
        assert view.queries is not None
        self.queries[index] = view.queries

    def merge(self, other: Last) -> None:
        raise AssertionError("one pass has one observer")


def unrotated(backbone: FrozenViT, index: int, view: BlockView) -> BlockView:
    """The view with queries turned back."""
    assert backbone._rope is not None
    assert view.queries is not None
    sines, cosines = backbone._rope[index].chunk(2, dim=-1)
    back = torch.cat([-sines, cosines], dim=-1)
    return dataclasses.replace(view, queries=backbone._blocks[index].rotate(view.queries, back))


def change_of_affinity(monkeypatch: pytest.MonkeyPatch, rotated: bool) -> float:
    """How far a step in the Gram's null space moves Q K_Pᵀ, against a free step as long.

    Queries here tell places alone, so that they span little and rotated ones more. The step's rows
    keep their mean and, to first order, their deviation: the condition of NSP²'s LayerNorm term.
    """
    monkeypatch.setattr("perdure.testing.trial._backbone", lambda _: built(places_alone=True))
    trial = make_trial("nsp2", sizes=(4, 4), images=12)
    backbone, plain = trial.backbone, QueryStatistics.add
    assert isinstance(backbone, FrozenViT)
    if not rotated:
        monkeypatch.setattr(
            QueryStatistics,
            "add",
            lambda self, index, view: plain(self, index, unrotated(backbone, index, view)),
        )
    training = trial.start(plan(trial.stream, trial.config)[0])
    training.train()
    training.finish()
    model, seen, shares = training.model, Last(), []
    with torch.no_grad():
        model.forward(evaluation_pixels(trial), observer=seen, survey=True)
        state = model.method.state_dict()
        for index, part in enumerate(backbone._blocks):
            prompts = state[f"prompts.matrices.{index}"]
            scale = backbone.spec.norm_scale[index].double()
            values, vectors = torch.linalg.eigh(
                scale[:, None] * state[f"gram_affinity_{index}"].double() * scale
            )
            null = vectors[:, values < 1e-5 * values.max()]
            steps = []
            for basis in (torch.eye(64).double(), null):
                rows = []
                for row in prompts.double():
                    held = basis.T @ torch.stack([torch.ones(64).double(), row - row.mean()], dim=1)
                    start = torch.randn(64, generator=generator(0, "step", index)).double()
                    inside = basis.T @ start
                    inside -= held @ torch.linalg.lstsq(held, inside[:, None]).solution[:, 0]
                    step = basis @ inside
                    rows.append(1e-3 * step / step.norm())
                moved = part.prompt_pair((prompts + torch.stack(rows).float())[None])[0]
                change = (moved - part.prompt_pair(prompts[None])[0]).unflatten(-1, part.heads)[0]
                steps.append(torch.einsum("bhnc,phc->bhnp", seen.queries[index], change).norm())
            shares.append(float(steps[1] / steps[0]))
    return sum(shares) / len(shares)


def test_the_affinity_condition_is_about_rotated_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """(R Q) W_kᵀ diag(α) ΔPᵀ = 0 holds prompts' affinities; Q W_kᵀ diag(α) ΔPᵀ = 0 does not."""
    assert change_of_affinity(monkeypatch, rotated=True) < 0.01
    assert change_of_affinity(monkeypatch, rotated=False) > 0.3
