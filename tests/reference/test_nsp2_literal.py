"""The fast method equals its literal twin: Grams, ranks, projectors, updates, LayerNorm term."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from perdure.backbones.vit import FrozenViT
from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.engine.optim import TaskOptimiser
from perdure.methods.nsp2 import NSP2, NSP2Guard
from perdure.numerics import subspace
from perdure.numerics.rank_rule import RankRule
from perdure.randomness import generator
from perdure.types import Loss, Observer, Split, Task
from tests.reference.nsp2_literal import (
    LiteralNSP2,
    damped_projector,
    deviations,
    gaussian_smooth,
    norm_term,
    nullity,
)
from tests.reference.small_vits import error, frozen, small_vit
from tests.reference.vit_literal import LiteralViT, layer_norm

GRAM, PROJECTOR = 1e-5, 1e-4
TASKS = [Task(0, (0, 1), ("a", "b"), 2), Task(1, (2, 3), ("c", "d"), 4)]


class TensorSurvey:
    """A survey of normalised images in device batches of any size."""

    def __init__(self, backbone: FrozenViT, method: NSP2, images: Tensor, batch: int) -> None:
        self.backbone, self.method, self.images, self.batch = backbone, method, images, batch

    @torch.no_grad()
    def __call__(self, observer: Observer, split: Split = "train") -> None:
        for positions in torch.arange(len(self.images)).split(self.batch):
            observer.start_batch(positions, len(self.images), positions)
            self.backbone(
                self.images[positions], self.method.additions(None, None), observer=observer
            )

    def features(self, split: Split = "train") -> tuple[Tensor, Tensor]:
        raise AssertionError("NSP² needs no features")

    def gradients(self, probes: object, most: int) -> Any:
        raise AssertionError("nothing is probed here")

    def has(self, split: Split) -> bool:
        return split == "train"


def drawn_images(task: int, count: int) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=generator(0, "task images", task))


def prompts_of(method: NSP2) -> dict[int, Tensor]:
    matrices = method.prompts.matrices
    return {b: matrices[str(b)].detach().clone() for b in method.prompts.blocks}


def guard(method: NSP2) -> NSP2Guard:
    assert isinstance(method.guard, NSP2Guard)
    return method.guard


def both(kind: str = "test_vit", batch: int = 3, **options: Any) -> tuple[NSP2, LiteralNSP2]:
    """The method and its twin after two tasks of 11 and 8 images, prompts moved in between."""
    config = make_config({"method": "nsp2", "statistics_batch": 5, **options})
    backbone = frozen(kind)
    model = Model(backbone, config)
    method = model.method
    assert isinstance(method, NSP2)
    twin = LiteralNSP2(LiteralViT(small_vit(kind)), vars(config.method))
    for task, count in zip(TASKS, (11, 8), strict=True):
        model.start_task(task)
        with torch.no_grad():
            for name, matrix in method.named_parameters():
                random = generator(0, "moved", task.index, name)
                matrix.add_(0.1 * torch.randn(matrix.shape, generator=random))
        images = drawn_images(task.index, count)
        method.end_task(task, TensorSurvey(backbone, method, images, batch))
        twin.end_task(prompts_of(method), images)
    return method, twin


@pytest.mark.parametrize("kind", ["test_vit", "clip", "no_qkv_bias", "registers"])
@pytest.mark.parametrize("statistics", ["sum", "mean"])
def test_grams_equal_twin(kind: str, statistics: str) -> None:
    method, twin = both(kind, statistics=statistics)
    for block in method.prompts.blocks:
        for name, theirs in (("affinity", twin.affinity), ("aggregation", twin.aggregation)):
            gram = guard(method).get_buffer(f"gram_{name}_{block}")
            assert error(gram, theirs[block]) < GRAM, (name, block)


@pytest.mark.long
@pytest.mark.parametrize("statistics", ["sum", "mean"])
def test_grams_do_not_depend_on_the_device_batch(statistics: str) -> None:
    first = both(batch=3, statistics=statistics)[0]
    for batch in (1, 4, 64):
        other = both(batch=batch, statistics=statistics)[0]
        for name, buffer in guard(first).named_buffers():
            if name.startswith("gram"):
                assert error(guard(other).get_buffer(name), buffer) < 1e-6, (batch, name)


OPTIONS = list(
    itertools.product(("paper", "reference"), ("damped", "orthogonal"), ("published", "exact"))
)


@pytest.mark.parametrize(("rank_rule", "projector", "conditions"), OPTIONS)
def test_projectors_equal_twin(rank_rule: str, projector: str, conditions: str) -> None:
    options = {"rank_rule": rank_rule, "projector": projector, "conditions": conditions}
    method, twin = both(**options, eta1=0.9, eta2=0.7, prompt_length=6)
    literal = twin.projectors(prompts_of(method))
    for block, (first, second) in literal.items():
        assert error(guard(method).get_buffer(f"projector_affinity_{block}"), first) < PROJECTOR
        assert error(guard(method).get_buffer(f"projector_aggregation_{block}"), second) < PROJECTOR


def test_conditions_differ() -> None:
    """On norms that are not trivial, published and exact conditions are not the same."""
    published, exact = (both(conditions=c)[0] for c in ("published", "exact"))
    name = "projector_affinity_0"
    assert error(guard(published).get_buffer(name), guard(exact).get_buffer(name)) > 10 * PROJECTOR


def test_update_is_projected_from_both_sides() -> None:
    """ΔP = B₂ · P_G · B₁, with P_G what Adam would have done."""
    method, twin = both(eta1=0.9, eta2=0.7)
    run = make_config({"method": "nsp2"}).training
    before = prompts_of(method)
    direction = {b: torch.randn_like(p) for b, p in before.items()}

    def step(protect: bool) -> dict[int, Tensor]:
        optimiser = TaskOptimiser(method, None, run, protect)
        matrices = method.prompts.matrices
        total = torch.stack([(matrices[str(b)] * direction[b]).sum() for b in before]).sum()
        optimiser.step(Loss({"total": total}).total, 1.0)
        moved = {b: p - before[b] for b, p in prompts_of(method).items()}
        for b, matrix in before.items():
            matrices[str(b)].data.copy_(matrix)
        return moved

    free, projected = step(protect=False), step(protect=True)
    for block, (first, second) in twin.projectors(before).items():
        wanted = second @ free[block].double() @ first
        assert error(projected[block], wanted) < 10 * PROJECTOR


@pytest.mark.parametrize("terms", ["both", "std"])
def test_norm_term_equals_twin(terms: str) -> None:
    method, _ = both(ln_terms=terms)
    old = prompts_of(method)
    assert float(guard(method).norm_drift().detach()) < 1e-5
    with torch.no_grad():
        for matrix in method.parameters():
            matrix.add_(0.3 * torch.randn(matrix.shape, generator=generator(0, "drift")))
    wanted = norm_term(prompts_of(method), old, terms)
    assert float(guard(method).norm_drift().detach()) == pytest.approx(wanted, rel=1e-5)


# ------------------------------------------------------------------------------------- rank rules


def decaying_gram(dim: int, rank: int, seed: int) -> Tensor:
    """A Gram with ``rank`` strong directions over a slowly decaying floor."""
    random = generator(seed, "gram", dim)
    basis = torch.linalg.qr(torch.randn(dim, dim, generator=random).double())[0]
    strong = 10 ** torch.linspace(2, 0, rank).double()
    weak = 10 ** torch.linspace(-1, -4, dim - rank).double()
    jitter = 1 + 0.05 * torch.rand(dim, generator=random).double()
    return basis @ torch.diag(torch.cat([strong, weak]) * jitter) @ basis.T


@pytest.mark.parametrize("rule", ["paper", "reference"])
@pytest.mark.parametrize(
    ("dim", "rank"), [(3, 1), (6, 2), (64, 20), (127, 40), (128, 40), (256, 90)]
)
def test_rank_and_projector_equal_twin(rule: RankRule, dim: int, rank: int) -> None:
    gram = decaying_gram(dim, rank, seed=dim)
    spectrum = torch.linalg.svdvals(gram)
    assert subspace.nullity(spectrum, rule) == nullity(spectrum.tolist(), rule)
    basis = subspace.null_space(gram, rule)
    for eta, normalise in ((1.0, False), (0.97, True)):
        ours = subspace.damping(basis, eta, normalise)
        assert error(ours, damped_projector(gram, rule, eta, normalise)) < 1e-9


def test_reference_rule_keeps_one_direction_more_than_the_paper() -> None:
    for dim, rank in ((6, 2), (64, 20), (127, 40)):
        spectrum = torch.linalg.svdvals(decaying_gram(dim, rank, seed=1))
        paper, reference = (subspace.nullity(spectrum, rule) for rule in ("paper", "reference"))  # type: ignore[arg-type]
        assert reference == paper + 1


def test_smoothing_equals_scipy() -> None:
    from scipy.ndimage import gaussian_filter1d

    for count in (30, 128):
        values = torch.rand(count, generator=generator(0, "smooth", count)).double()
        ours = torch.tensor(gaussian_smooth(values.tolist(), 10.0), dtype=torch.float64)
        assert error(ours, torch.from_numpy(gaussian_filter1d(values.numpy(), 10.0))) < 1e-12


# --------------------------------------------------------------------------------- why exact is exact


def constrained_step(conditions: str, length: float) -> tuple[Tensor, Tensor, LiteralViT]:
    """Prompts, and a step that obeys both conditions and keeps row means and deviations.

    The step is the closest to a drawn one: alternating projections onto the three linear spaces.
    One image and many prompts leave both null spaces room.
    """
    twin = LiteralViT(small_vit("test_vit"))
    norm = twin.vit.blocks[0].norm1
    prompts = torch.randn(16, 64, generator=generator(0, "prompts")).double()
    passed = twin.forward(drawn_images(0, 1), tokens={0: prompts[None]}).blocks[0]
    literal = LiteralNSP2(twin, {"statistics": "mean", "statistics_batch": 1})
    literal.end_task({0: prompts}, drawn_images(0, 1))
    first, second = literal.affinity[0], literal.aggregation[0]
    spreads = deviations(prompts, norm.eps)
    if conditions == "exact":
        first = norm.weight[:, None] * first * norm.weight
        second = second / spreads[:, None] / spreads
    assert passed.weights.shape[-1] == 5 + 16
    kernels = []
    for gram in (first, second):
        values, vectors = torch.linalg.eigh(gram)
        basis = vectors[:, values < 1e-10 * values.max()]
        kernels.append(basis @ basis.T)
    centred = prompts - prompts.mean(1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True)
    step = torch.randn(16, 64, generator=generator(0, "step")).double()
    for _ in range(400):
        step = kernels[1] @ step @ kernels[0]
        step = step - step.mean(1, keepdim=True)
        step = step - (step * unit).sum(1, keepdim=True) * unit
    step = kernels[1] @ step @ kernels[0]
    return prompts, step * (length / step.norm()), twin


def drift(twin: LiteralViT, prompts: Tensor, step: Tensor) -> float:
    """How far a step moves the rows that leave the last block."""
    old, new = (
        twin.forward(drawn_images(0, 1), tokens={0: p[None]}).rows
        for p in (prompts, prompts + step)
    )
    return float((new - old).norm())


def test_exact_conditions_leave_features_alone_to_first_order() -> None:
    """A step of length h moves old features by O(h²); under published conditions by O(h)."""
    growth = {}
    for conditions in ("exact", "published"):
        short, long = (
            drift(twin, prompts, step)
            for prompts, step, twin in (constrained_step(conditions, h) for h in (1e-3, 1e-2))
        )
        growth[conditions] = long / short
        free = torch.randn(16, 64, generator=generator(1, "step")).double()
        prompts, step, twin = constrained_step(conditions, 1e-3)
        share = drift(twin, prompts, step) / drift(twin, prompts, free * (1e-3 / free.norm()))
        assert share < 1e-3 if conditions == "exact" else share > 1e-2, (conditions, share)
    assert growth["exact"] == pytest.approx(100, rel=0.1)
    assert growth["published"] == pytest.approx(10, rel=0.1)


def test_layer_norm_invariance() -> None:
    """Equal row means and deviations give LN(P + ΔP) = LN(P) + diag(1/σ_P) ΔP diag(α)."""
    norm = LiteralViT(small_vit("test_vit")).vit.blocks[0].norm1
    prompts = torch.randn(6, 64, generator=generator(0, "rows")).double()
    other = prompts[:, torch.randperm(64, generator=generator(0, "shuffle"))]
    spreads = deviations(prompts, norm.eps)
    moved = layer_norm(prompts, norm) + (other - prompts) / spreads[:, None] * norm.weight
    assert error(layer_norm(other, norm), moved) < 1e-12
