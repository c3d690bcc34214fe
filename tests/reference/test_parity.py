"""Parity with what the released NSP² program computed, over every task and step of the file."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from perdure.backbones.attention import KERNELS, Kernel
from perdure.backbones.vit import FrozenViT
from perdure.engine.config import Config, make_config
from perdure.engine.model import Model
from perdure.engine.optim import TaskOptimiser
from perdure.methods.null_space import Gram
from perdure.types import Observer, Split, Task
from tests.reference.nsp2_file import ReferenceRun

TIGHT, LOOSE = 1e-4, 1e-3


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


class TensorSurvey:
    """A survey over normalised images held in a tensor, in batches that ignore statistics_batch."""

    def __init__(self, backbone: FrozenViT, model: Model, images: Tensor, labels: Tensor) -> None:
        self.backbone, self.model = backbone, model
        self.images, self.labels = images, labels

    @torch.no_grad()
    def __call__(self, observer: Observer, split: Split = "train") -> None:
        for positions in torch.arange(len(self.images)).split(5):
            observer.start_batch(positions, len(self.images), self.labels[positions])
            additions = self.model.method.additions(None, None)
            self.backbone(self.images[positions], additions, observer=observer)

    def features(self, split: Split = "train") -> tuple[Tensor, Tensor]:
        raise AssertionError("linear heads need no features")

    def gradients(self, probes: object, most: int) -> Any:
        raise AssertionError("nothing is probed here")

    def has(self, split: Split) -> bool:
        return split == "train"


class Replay:
    """The reference run carried out by the package's own method, head and optimiser."""

    def __init__(self, kernel: Kernel) -> None:
        self.ref = ReferenceRun()
        self.backbone = self.ref.backbone()
        self.backbone.use_kernel(kernel)
        self.config = self._config()
        self.model = Model(self.backbone, self.config)
        for block in range(self.ref.sizes["depth"]):
            self.prompt(block).data.copy_(self.ref[f"init.prompt.{block}"])
        self.errors: dict[str, float] = {}
        for task in self.ref.tasks():
            self._run_task(task)
        self._evaluate()

    def prompt(self, block: int) -> torch.nn.Parameter:
        return self.model.method.get_parameter(f"prompts.matrices.{block}")

    def _config(self) -> Config:
        s = self.ref.sizes
        return make_config(
            {
                "method": "nsp2",
                "lr": s["lr"],
                "weight_decay": s["weight_decay"],
                "schedule": "constant",
                "prompt_length": s["prompt_len"],
                "temperature": s["temperature"],
                "eta1": s["eta1"],
                "eta2": s["eta2"],
                "ln_weight": s["ln_weight"],
                "statistics_batch": s["stat_batch_size"],
            }
        )

    def _run_task(self, task: Task) -> None:
        name, ref, model = f"task{task.index}", self.ref, self.model
        model.start_task(task)
        layer = model.task_layer(task)
        assert layer is not None
        layer.load_state_dict(
            {key: ref[f"{name}.init.head.{key}"] for key in ("weight", "bias")}, strict=True
        )
        optimiser = TaskOptimiser(model.method, layer, self.config.training, protect=task.index > 0)
        images, labels = ref[f"{name}.images"], ref[f"{name}.labels"]
        for step in range(ref.sizes["steps"]):
            batch = ref[f"{name}.batch{step}"]
            self._step(task, step, images[batch], labels[batch], optimiser)
        for key in ("weight", "bias"):
            self._note(f"{name}.final.head.{key}", layer.get_parameter(key))
        model.method.end_task(task, TensorSurvey(self.backbone, model, images, labels))
        for block in range(ref.sizes["depth"]):
            for kind in ("gram", "projector"):
                for condition in ("affinity", "aggregation"):
                    ours = model.method.state_dict()[f"{kind}_{condition}_{block}"]
                    self._note(f"{name}.{kind}_{condition}.{block}", ours)

    def _step(
        self, task: Task, step: int, images: Tensor, labels: Tensor, optimiser: TaskOptimiser
    ) -> None:
        name, method, head = f"task{task.index}", self.model.method, self.model.trained_head
        assert head is not None
        features = self.backbone(images, method.additions(None, task))
        logits = head.task_logits(method.readout(features), task)
        loss = method.loss(logits, features, labels, task)
        for key, ours in (("loss", loss.total), ("ce", loss.terms["cross_entropy"])):
            theirs = self.ref[f"{name}.{key}"][step]
            self.errors[f"{name}.{key}{step}"] = relative_error(ours.detach(), theirs)
        optimiser.step(loss.total, 1.0)
        for block in range(self.ref.sizes["depth"]):
            if step == 0:
                gradient = self.prompt(block).grad
                assert gradient is not None
                # Adam's L2 penalty is added inside the optimiser, so .grad is the loss's own
                self._note(f"{name}.step0.grad.{block}", gradient)
            self._note(f"{name}.step{step}.prompt.{block}", self.prompt(block))

    @torch.no_grad()
    def _evaluate(self) -> None:
        head = self.model.trained_head
        assert head is not None
        features = self.backbone(self.ref["eval.images"], self.model.method.additions(None, None))
        readout = self.model.method.readout(features)
        self._note("eval.features", readout)
        self._note("eval.logits", head.logits(readout))

    def _note(self, key: str, ours: Tensor) -> None:
        self.errors[key] = relative_error(ours.detach(), self.ref[key])


@pytest.fixture(scope="module", params=KERNELS)
def replay(request: pytest.FixtureRequest) -> Replay:
    return Replay(request.param)


@pytest.mark.parametrize(
    ("part", "tolerance"),
    [
        ("gram_affinity", TIGHT),
        ("gram_aggregation", TIGHT),
        ("projector_affinity", TIGHT),
        ("projector_aggregation", TIGHT),
        ("grad", TIGHT),
        ("loss", TIGHT),
        ("ce", TIGHT),
        ("prompt", LOOSE),
        ("final.head", LOOSE),
        ("eval.features", LOOSE),
        ("eval.logits", LOOSE),
    ],
)
def test_parity_with_released_program(replay: Replay, part: str, tolerance: float) -> None:
    errors = {key: error for key, error in replay.errors.items() if part in key}
    expected = replay.ref.sizes["num_tasks"] if "eval" not in part else 1
    assert len(errors) >= expected
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] < tolerance, f"{worst}: {errors[worst]:.2e}"


def test_parity_notices_a_wrong_rank(replay: Replay) -> None:
    guard = replay.model.method.guard
    guard.options = dataclasses.replace(guard.options, rank_rule="paper")
    guard._renew_projector(Gram("affinity", 0))
    last = replay.ref.sizes["num_tasks"] - 1
    theirs = replay.ref[f"task{last}.projector_affinity.0"]
    assert relative_error(guard.get_buffer("projector_affinity_0"), theirs) > TIGHT
