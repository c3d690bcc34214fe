"""Heads in closed form: updated once per task from its features, no image kept."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from perdure.errors import ConfigError
from perdure.heads.base import HEADS, Head, HeadConfig
from perdure.numerics.gaussians import class_moments, discriminant, oracle_shrinkage
from perdure.types import BackboneSpec, Generators, Survey, Task, classes_of

SHRINKAGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""What ``shrinkage = "validation"`` chooses from."""


@HEADS.register("ncm")
class NearestMeanHead(Head):
    """Scores a class by the cosine between the feature and the class mean."""

    closed_form: ClassVar[bool] = True

    means: Tensor

    def __init__(self, spec: BackboneSpec, config: HeadConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.register_buffer("means", torch.zeros(0, spec.dim))

    def start_task(self, task: Task) -> None:
        """Add a row per new class."""
        self.means = torch.cat([self.means, self.means.new_zeros(len(task.classes), self.dim)])

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Cosine similarity with every class mean, in [-1, 1]."""
        unit = torch.nn.functional.normalize
        return unit(features, dim=1) @ unit(self.means, dim=1).T

    def end_task(self, task: Task, survey: Survey) -> None:
        """Store the mean feature of each of the task's classes."""
        features, labels = survey.features("train")
        self.means[list(task.classes)] = class_moments(features, labels, task.classes).means.to(
            self.means
        )


@HEADS.register("gaussian")
class GaussianHead(Head):
    """Class means and one pooled covariance (linear discriminant analysis), shrunk to be invertible.

    State: one mean and one count per class and one D × D scatter matrix, whatever the number of tasks.
    """

    closed_form: ClassVar[bool] = True

    means: Tensor
    counts: Tensor
    scatter: Tensor
    weight: Tensor
    bias: Tensor
    rho: Tensor

    def __init__(self, spec: BackboneSpec, config: HeadConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.register_buffer("means", torch.zeros(0, spec.dim, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("scatter", torch.zeros(spec.dim, spec.dim, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(0, spec.dim, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("rho", torch.zeros((), dtype=torch.float64))
        self.names: tuple[str, ...] = ()

    def start_task(self, task: Task) -> None:
        """Add a row per new class."""
        self.names += task.names
        new = len(task.classes)
        self.means = torch.cat([self.means, self.means.new_zeros(new, self.dim)])
        self.counts = torch.cat([self.counts, self.counts.new_zeros(new)])
        self.weight = torch.cat([self.weight, self.weight.new_zeros(new, self.dim)])
        self.bias = torch.cat([self.bias, self.bias.new_zeros(new)])

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Log density of every class up to a term that all classes share, computed in float64."""
        return (features.double() @ self.weight.T + self.bias).to(features.dtype)

    def end_task(self, task: Task, survey: Survey) -> None:
        """Add the task's moments, choose the shrinkage and solve for weight and bias.

        Raises:
            ConfigError: the shrinkage is to be chosen on a validation split that is empty.
        """
        features, labels = survey.features("train")
        moments = class_moments(features, labels, task.classes)
        rows = list(task.classes)
        self.means[rows] = moments.means.to(self.means)
        self.counts[rows] = moments.counts.to(self.counts)
        self.scatter += moments.scatter.to(self.scatter)
        images = int(self.counts.sum())
        covariance = self.scatter / images
        if self.config.shrinkage == "validation":
            self.rho.fill_(self._best_on_validation(covariance, survey))
        else:
            free = max(images - len(self.counts), 1)
            self.rho.fill_(max(oracle_shrinkage(covariance, free), min(SHRINKAGES)))
        self._solve(covariance, float(self.rho))

    def _best_on_validation(self, covariance: Float[Tensor, "d d"], survey: Survey) -> float:
        if not survey.has("val"):
            raise ConfigError(
                "shrinkage='validation' needs a validation split: set validation_fraction=0.25, "
                "or shrinkage=analytic."
            )
        features, labels = survey.features("val")
        # Right is a class by its name, whatever the domain, as in the evaluation.
        class_of = torch.tensor(classes_of(self.names), device=labels.device)
        scores = []
        for rho in SHRINKAGES:
            self._solve(covariance, rho)
            found = class_of[self.logits(features).argmax(1)]
            scores.append(float((found == class_of[labels]).double().mean()))
        best = max(scores)
        ties = [rho for rho, score in zip(SHRINKAGES, scores, strict=True) if score == best]
        return ties[len(ties) // 2]

    def _solve(self, covariance: Float[Tensor, "d d"], rho: float) -> None:
        weight, bias = discriminant(self.means, covariance, rho)
        self.weight.copy_(weight)
        self.bias.copy_(bias)
