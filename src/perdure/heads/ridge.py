"""Ridge head: regression on one-hot classes in closed form, its penalty by leave-one-out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perdure.heads.base import Head
from perdure.heads.catalog import HEADS
from perdure.heads.config import RidgeConfig
from perdure.heads.feature_lift import FeatureLift
from perdure.heads.gram import GramMatrix
from perdure.heads.left_out_sums import LeftOutSums
from perdure.numerics.drift_statistics import Moments
from perdure.numerics.evidence import Evidence
from perdure.numerics.feature_drift import FeatureDrift
from perdure.numerics.leave_one_out import can_be_left_out
from perdure.numerics.ridge import (
    RATIOS,
    System,
    one_hot,
    ridge_left_out,
    ridge_scores_class_left_out,
    ridge_scores_left_out,
    with_bias,
)
from perdure.types import BackboneSpec, Generators, Survey, Task, Trace, classes_of


@HEADS.register("ridge")
class RidgeHead(Head):
    """Ridge regression on one-hot classes, with a bias, its penalty chosen by leaving images out.

    With φ the features, lifted or not, and a 1: G = Σ φφᵀ, Q = Σ φyᵀ, scores φᵀ(G + λI)⁻¹Q and
    λ = ratio · tr(G)/M. G and Q are sums over images, so that for a given ratio neither their order
    nor their division into lessons matters. With ``relu`` features it is RanPAC's classifier
    (McDonnell et al., NeurIPS 2023), but for the bias and the choice of λ.

    State: G, of M(n + 1) numbers while images n are fewer than its columns M and of M² afterwards;
    Q, weights and a count per class; for the choice, three sums per ratio that is compared.
    """

    fixed: ClassVar[Mapping[str, Any]] = {"ridge_ratio": 0.1, "lift_gamma": 0.01}
    sized_by_images: ClassVar[tuple[str, ...]] = ("gram.*",)

    config: RidgeConfig
    sums: Tensor
    counts: Tensor
    weight: Tensor
    bias: Tensor
    ratio: Tensor

    def __init__(self, spec: BackboneSpec, config: RidgeConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        lifts = config.lift != "none"
        self.lift = FeatureLift(spec.dim, config, generator) if lifts else None
        width = config.lift_width if lifts else spec.dim
        self.gram = GramMatrix(width + 1)
        self.register_buffer("sums", torch.zeros(width + 1, 0, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("weight", torch.zeros(0, width, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("ratio", torch.zeros((), dtype=torch.float64))
        self.left_out = LeftOutSums(RATIOS) if config.ridge_ratio == "loo" else None
        self.names: tuple[str, ...] = ()

    @property
    def stores_statistics(self) -> str:
        """The sums."""
        return (
            "one M × M Gram of features, of lower rank while images are fewer; per class their sum"
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """Classes that had no say in the choice by leaving images out, and a choice at an end."""
        texts = [self.lift.remark] if self.lift is not None else []
        if self.left_out is not None:
            texts += self.left_out.remarks("ridge_ratio", float(self.ratio), self.counts)
        return tuple(text for text in texts if text)

    def start_task(self, task: Task) -> None:
        """Add what each new class has of its own."""
        self.names += task.names
        new = len(task.classes)
        self.sums = torch.cat([self.sums, self.sums.new_zeros(len(self.sums), new)], dim=1)
        self.counts = torch.cat([self.counts, self.counts.new_zeros(new)])
        self.weight = torch.cat([self.weight, self.weight.new_zeros(new, self.weight.shape[1])])
        self.bias = torch.cat([self.bias, self.bias.new_zeros(new)])

    def space(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Features as its sums hold them, the bias apart: lifted, where it has a lift."""
        return features.double() if self.lift is None else self.lift(features)

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Regressed one-hot targets: about 1 for the class of an image, computed in float64."""
        return (self.space(features) @ self.weight.T + self.bias).to(features.dtype)

    def follow(self, drift: FeatureDrift) -> None:
        """Move G and Q as the moments that they hold: class means and what is around them.

        G = S + Σ_c n_c φ_c φ_cᵀ, with φ_c the mean and a 1. For a linear map this is TᵀGT and TᵀQ. Of
        forgotten classes the second moments in G move as S does. What was counted for the choice of
        the penalty stays: it was judged where features were then.
        """
        counts = self.counts[: drift.known].clamp(min=1)
        sums = self.sums[:, : drift.known]
        gram = self.gram.spectrum().gram() if self.gram.thin else self.gram.matrix
        within = gram - (sums / counts) @ sums.T
        moments = Moments((sums[:-1] / counts).T, within[:-1, :-1], int(counts.sum()))
        moved = drift.moved(self.drift, moments)
        assert moved.scatter is not None, "there was one to move"
        within[:-1, :-1] = moved.scatter
        sums[:-1] = torch.where(sums[-1:] > 0, moved.means.T * counts, 0)
        # What the map does not tell spreads in all directions, so that a thin G is thin no more.
        self.gram.replace(within + (sums / counts) @ sums.T)

    def end_task(self, task: Task, survey: Survey) -> None:
        """Add the task's images to the sums, choose the penalty and solve."""
        features, labels = survey.features("train")
        if self.lift is not None:
            self.lift.fit(features)
        self.take_in(features, labels)

    def refuses(self, labels: Sequence[int]) -> str:
        """Refuse nothing: sums over more images are exact."""
        return ""

    def take_in(self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]) -> None:
        """Add images to the sums, choose the penalty and solve anew.

        With ``ridge_ratio = "loo"`` they have a say in the penalty, among all classes known now.
        """
        rows, classes = with_bias(self.space(self.taught(features))), len(self.counts)
        self.gram.add(rows)
        self.sums += rows.T @ one_hot(labels, classes)
        self.counts += labels.bincount(minlength=classes)
        system = self._system()
        self._solve(system, self._chosen(system, rows, labels))

    def scores_left_out(
        self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]
    ) -> tuple[Bool[Tensor, "n"], Float[Tensor, "j c"]]:
        """Regressed targets by the weights of all other images, at the same λ."""
        judged = can_be_left_out(self.counts.to(labels.device), labels)
        rows = with_bias(self.space(self.taught(features)[judged]))
        ratio = float(self.ratio)
        return judged, ridge_scores_left_out(self._system(), self.sums, rows, labels[judged], ratio)

    def evidence_class_left_out(
        self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]
    ) -> Evidence:
        """Regressed targets by the weights of the images of all other classes, at the same λ."""
        rows = with_bias(self.space(self.taught(features)))
        solver = self._system().at(float(self.ratio))
        return Evidence(ridge_scores_class_left_out(solver, self.sums, rows), whole=True)

    def forget(self, label: int) -> list[Trace]:
        """Overwrite the class's sum, count and weights.

        Its images stay in the Gram, which is not kept per class, as images of no class.
        """
        images = int(self.counts[label])
        self.sums[:, label] = 0
        self.counts[label], self.weight[label], self.bias[label] = 0, 0, 0
        state = self.state_dict()
        shared = [name for name in state if name.startswith(("gram.", "left_out."))]
        lifted = [] if self.lift is None else self.lift.traces(("sums",))
        return [
            *lifted,
            Trace(
                f"the Gram matrix that all classes share, with its {images} images, and the penalty "
                "that was chosen with them; so the weights of all other classes",
                (*shared, "ratio", "weight", "bias"),
            ),
        ]

    def _chosen(
        self, system: System, rows: Float[Tensor, "n m"], labels: Int[Tensor, "n"]
    ) -> float:
        """The given ratio, or the one by which most images left out so far were told right.

        Of the ratios that do not interpolate. Where no image could be left out, the least of them;
        where all interpolate, the largest.
        """
        if self.left_out is None:
            assert not isinstance(self.config.ridge_ratio, str)
            return self.config.ridge_ratio
        # Right is a class by its name, whatever the domain, as in the evaluation.
        class_of = torch.tensor(classes_of(self.names), device=labels.device)
        found = ridge_left_out(system, self.sums, rows, labels, self.counts, class_of=class_of)
        self.left_out.add(found.answers)
        best = self.left_out.best(found.allowed)
        allowed = [ratio for ratio, ok in zip(RATIOS, found.allowed, strict=True) if ok]
        return best if best is not None else min(allowed, default=max(RATIOS))

    def _system(self) -> System:
        return System.of(self.gram.spectrum() if self.gram.thin else self.gram.matrix)

    def _solve(self, system: System, ratio: float) -> None:
        """Set ratio, weight and bias."""
        solved = system.at(ratio).solve(self.sums)
        self.ratio.fill_(ratio)
        self.weight.copy_(solved[:-1].T)
        self.bias.copy_(solved[-1])
