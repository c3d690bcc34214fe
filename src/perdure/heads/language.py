"""Language heads: images compared with class texts behind CLIP's image projection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from perdure.heads.base import Head, TrainedHead
from perdure.heads.catalog import HEADS
from perdure.heads.config import ClassVectorConfig, LanguageConfig
from perdure.numerics.drift_statistics import Moments
from perdure.numerics.feature_drift import FeatureDrift
from perdure.numerics.gaussians import gaussian_factor, gaussian_samples
from perdure.types import BackboneSpec, Generators, Survey, Task, Trace

LOGIT_SCALE = math.log(100.0)
"""The logarithm of what cosines are multiplied with, where it starts."""
RIDGE = 1e-4
"""Added to the variances of the features that the refinement draws."""
SAMPLES = 256
"""Features drawn per class and epoch of the refinement."""
BATCH = 256
LR, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-4


class ClassVectorHead(Head):
    """Class vectors of the language heads: each class's text, or its mean image, as a unit vector.

    Args:
        spec: a backbone with an image projection.
        config: ``class_embeddings`` says which of the two.
        generator: gives the generator of each random choice.
    """

    config: ClassVectorConfig
    text: Tensor

    def __init__(
        self, spec: BackboneSpec, config: ClassVectorConfig, generator: Generators
    ) -> None:
        super().__init__(spec, config, generator)
        assert spec.projection is not None, "check_backbone has seen to it"
        # In a tuple: a parameter of the backbone must not become one of the head.
        self.projection = spec.projection
        self.register_buffer("text", torch.zeros(0, len(self.projection[0])))

    def start_task(self, task: Task) -> None:
        """Add a row per new class; zeros where it is set by `prepare` or comes back from a file."""
        rows = self.text.new_zeros(len(task.classes), self.text.shape[1])
        if task.text_features is not None:
            rows.copy_(task.text_features)
        self.text = torch.cat([self.text, rows])

    def prepare(self, task: Task, survey: Survey) -> bool:
        """Set the mean embedding of each class's images, where it stands for the text.

        Like the template embeddings of a text it is the mean of unit vectors, made one itself.
        """
        if self.config.class_embeddings == "text":
            return False
        features, labels = survey.features("train", plain=True)
        images = F.normalize(F.linear(features, *self.projection), dim=1)
        means = torch.stack([images[labels == label].mean(0) for label in task.classes])
        self.text[list(task.classes)] = F.normalize(means, dim=1)
        return True

    def forget(self, label: int) -> list[Trace]:
        """Overwrite the class's vector; nothing else knows of it."""
        self.text[label] = 0
        return []

    def cosines(
        self,
        features: Float[Tensor, "b d"],
        weight: Float[Tensor, "e d"],
        text: Float[Tensor, "c e"],
    ) -> Float[Tensor, "b c"]:
        """Compare projected features with class vectors, in [-1, 1]."""
        return F.normalize(F.linear(features, weight, self.projection[1]), dim=1) @ text.T


@HEADS.register("zero_shot")
class ZeroShotHead(ClassVectorHead):
    """CLIP as it is: cosine between image and class vector, nothing learned."""

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Cosines times 100, CLIP's own scale."""
        return math.exp(LOGIT_SCALE) * self.cosines(features, self.projection[0], self.text)

    def end_task(self, task: Task, survey: Survey) -> None:
        """Learn nothing."""

    def refuses(self, labels: Sequence[int]) -> str:
        """Refuse: the head does not learn."""
        return "it learns nothing from images once a class has its vector"


class LogitScale(nn.Module):
    """The logarithm of the scale of all logits, trained with the prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(LOGIT_SCALE))


@HEADS.register("language")
class LanguageHead(ClassVectorHead, TrainedHead):
    """Cosine between projected image and class vector, times a scale that all tasks train.

    After every task the projection is refined by SGD on features drawn from one Gaussian per class
    seen so far, so that no image is kept: 256 per class and epoch, in batches of 256.

    State: a vector per class, one projection, and where ``refine_epochs`` is above 0 a mean (D
    numbers) and a factor of the covariance (D × D numbers) per class.
    """

    learned: ClassVar[str] = "the logit scale"

    config: LanguageConfig
    weight: Tensor

    def __init__(self, spec: BackboneSpec, config: LanguageConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.scale = LogitScale()
        self.register_buffer("weight", self.projection[0].detach().clone())

    def start_task(self, task: Task) -> None:
        """Add room for the task's classes."""
        super().start_task(task)
        if self.config.refine_epochs:
            # One buffer per task: to grow a single one would copy all factors at every task.
            new = len(task.classes)
            self.register_buffer(f"means_{task.index}", self.text.new_zeros(new, self.dim))
            zeros = self.text.new_zeros(new, self.dim, self.dim)
            self.register_buffer(f"factors_{task.index}", zeros)

    def task_logits(self, features: Float[Tensor, "b d"], task: Task) -> Float[Tensor, "b k"]:
        """Score one task's classes only; what training minimises the loss of."""
        text = self.text[list(task.classes)]
        return self.scale.value.exp() * self.cosines(features, self.weight, text)

    def trained(self, task: Task) -> nn.Module:
        """The logit scale, which all tasks share."""
        return self.scale

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Score every class seen so far."""
        return self.scale.value.exp() * self.cosines(features, self.weight, self.text)

    def follow(self, drift: FeatureDrift) -> None:
        """Move means and factors of every class; the factors by the linear part of the map."""
        if not self.config.refine_epochs:
            return
        statistics = [
            self._statistics(index) for index in range(self._place(drift.known - 1)[0] + 1)
        ]
        means = torch.cat([rows for rows, _ in statistics])
        moved = drift.moved(self.drift, Moments(means.double())).means
        moved = torch.where(means.any(dim=1, keepdim=True), moved.to(means), 0)
        for (rows, factors), new in zip(
            statistics, moved.split([len(rows) for rows, _ in statistics]), strict=True
        ):
            rows.copy_(new)
            # Zeros where a class was forgotten: it stays without a spread.
            known = factors.diagonal(dim1=1, dim2=2).any(dim=1)
            factors[known] = drift.moved_factors(self.drift, factors[known])

    def end_task(self, task: Task, survey: Survey) -> None:
        """Take in the Gaussians of the task's classes and refine the projection under all of them."""
        if not self.config.refine_epochs:
            return
        features, labels = survey.features("train")
        means, factors = self._statistics(task.index)
        for row, label in enumerate(task.classes):
            mean, factor = gaussian_factor(features[labels == label], RIDGE)
            means[row].copy_(mean)
            factors[row].copy_(factor)
        weight = self.weight.clone().requires_grad_()
        sgd = torch.optim.SGD([weight], lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        for epoch in range(self.config.refine_epochs):
            self._refine(weight, sgd, task.index, epoch)
        self.weight.copy_(weight.detach())

    def refuses(self, labels: Sequence[int]) -> str:
        """Refuse: means and factors alone cannot be merged."""
        return "its Gaussians do not keep how many images they are of"

    def forget(self, label: int) -> list[Trace]:
        """Overwrite the class's vector and Gaussian; what they have shaped stays."""
        traces = super().forget(label)
        traces.append(Trace("the scale of all logits, which every task trains", ("scale.value",)))
        if self.config.refine_epochs:
            index, row = self._place(label)
            for statistics in self._statistics(index):
                statistics[row] = 0
            what = "the image projection, which was refined on features drawn from its Gaussian"
            traces.append(Trace(what, ("weight",)))
        return traces

    def _refine(self, weight: Tensor, sgd: torch.optim.SGD, task: int, epoch: int) -> None:
        """One pass over newly drawn features, in drawn order."""
        random = self._random(task, epoch)
        samples = torch.cat(
            [gaussian_samples(*self._statistics(i), SAMPLES, random) for i in range(task + 1)]
        )
        factors = [self._statistics(i)[1] for i in range(task + 1)]
        # Zeros where a class was forgotten: of such a class nothing is drawn.
        rows = torch.cat([f.diagonal(dim1=1, dim2=2).any(1) for f in factors]).nonzero()[:, 0]
        drawn, text = samples[rows].flatten(0, 1), self.text[rows]
        labels = torch.arange(len(text), device=drawn.device).repeat_interleave(SAMPLES)
        scale = self.scale.value.detach().exp()
        order = torch.randperm(len(drawn), generator=random, device=drawn.device)
        for taken in order.split(BATCH):
            with torch.enable_grad():
                logits = scale * self.cosines(drawn[taken], weight, text)
                loss = F.cross_entropy(logits, labels[taken])
            sgd.zero_grad()
            loss.backward()
            sgd.step()

    def _place(self, label: int) -> tuple[int, int]:
        """The task that brought a class, and the row among its statistics."""
        index = 0
        while label >= len(self.get_buffer(f"means_{index}")):
            label -= len(self.get_buffer(f"means_{index}"))
            index += 1
        return index, label

    def _statistics(self, task: int) -> tuple[Float[Tensor, "c d"], Float[Tensor, "c d d"]]:
        return self.get_buffer(f"means_{task}"), self.get_buffer(f"factors_{task}")

    def _random(self, task: int, epoch: int) -> torch.Generator:
        """A generator of these names' own, on the device of the features."""
        seed = self.generator(f"head.language.{task}.{epoch}").initial_seed()
        return torch.Generator(self.text.device).manual_seed(seed)
