"""Gaussian head: class means and one pooled covariance, updated once per task, no image kept."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perdure.errors import ConfigError
from perdure.heads.base import Head, set_known_means
from perdure.heads.catalog import HEADS
from perdure.heads.config import GaussianConfig
from perdure.heads.feature_lift import FeatureLift
from perdure.heads.gram import GramMatrix
from perdure.heads.left_out_sums import LeftOutSums
from perdure.numerics import leave_one_out
from perdure.numerics.drift_statistics import Moments, score_lost
from perdure.numerics.evidence import Evidence, GaussianEvidence
from perdure.numerics.feature_drift import FeatureDrift
from perdure.numerics.gaussians import (
    centred_rows,
    discriminant,
    merged_means,
    oracle_shrinkage,
    oracle_shrinkage_of,
    views_of,
)
from perdure.numerics.leave_one_out import (
    GaussianMoments,
    can_be_left_out,
    gaussian_left_out,
    gaussian_scores_left_out,
    spectral_discriminant,
)
from perdure.numerics.pooled_means import PooledMeans, image_error
from perdure.numerics.ridge import WIDEST_SPECTRUM
from perdure.numerics.spectrum import Spectrum, spectrum_of
from perdure.types import BackboneSpec, Generators, Survey, Task, Trace, classes_of

SHRINKAGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""What ``shrinkage = "validation"`` chooses from."""
MOST_POOLED = 1_000
"""Classes up to which their means are pooled for every shrinkage that ``loo`` compares."""


@HEADS.register("gaussian")
class GaussianHead(Head):
    """Class means and one pooled covariance (linear discriminant analysis), shrunk to be invertible.

    State: one mean and one count per class and one D × D scatter matrix, whatever the number of
    tasks; with ``shrinkage = "loo"`` three sums per shrinkage that is compared besides. Of lifted
    features the scatter is a `GramMatrix`, thin while images are fewer than columns.

    With ``mean_shrinkage`` classes are scored by `PooledMeans`, worked out when it solves.

    With ``drift_debias`` it keeps a vector more per class: by how much the map of its task missed its
    mean when it was left out. What all later maps are so expected to cost a class's score is added
    to its bias.

    Scores are log densities for the covariance S/n; with ``loo`` or a lift for S/(n − 1), exactly
    those by which the shrinkage was chosen (S: scatter, n: images).
    """

    fixed: ClassVar[Mapping[str, Any]] = {"shrinkage": 0.1, "lift_gamma": 0.01}
    sized_by_images: ClassVar[tuple[str, ...]] = ("gram.*",)

    config: GaussianConfig
    means: Tensor
    counts: Tensor
    scatter: Tensor
    weight: Tensor
    bias: Tensor
    rho: Tensor
    misses: Tensor
    given_back: Tensor

    def __init__(self, spec: BackboneSpec, config: GaussianConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        lifts = config.lift != "none"
        self.width = config.lift_width if lifts else spec.dim
        self.register_buffer("means", torch.zeros(0, self.width, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))
        if not lifts:
            self.register_buffer("scatter", torch.zeros(spec.dim, spec.dim, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(0, self.width, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("rho", torch.zeros((), dtype=torch.float64))
        self.lift = FeatureLift(spec.dim, config, generator) if lifts else None
        self.gram = GramMatrix(self.width) if lifts else None
        loo = config.shrinkage == "loo"
        self.left_out = LeftOutSums(leave_one_out.SHRINKAGES) if loo else None
        self._debiases = config.drift_debias > 0 and config.drift in ("linear", "mixed")
        if self._debiases:
            self.register_buffer("misses", torch.zeros(0, spec.dim, dtype=torch.float64))
            self.register_buffer("given_back", torch.zeros(0, dtype=torch.float64))
        self.sizes: list[int] = []
        self.names: tuple[str, ...] = ()
        self._measure: GaussianEvidence | None = None

    @property
    def stores_statistics(self) -> str:
        """The moments."""
        missed = ", and by how much a map missed it" if self._debiases else ""
        return f"per class one mean feature{missed}; one D × D scatter of features"

    @property
    def remarks(self) -> tuple[str, ...]:
        """Classes that had no say in the choice by leaving images out, and a choice at an end."""
        texts = [self.lift.remark] if self.lift is not None else []
        if self.left_out is not None:
            texts += (
                self.left_out.remarks("shrinkage", float(self.rho), self.counts)
                if self._spread or not self.left_out.judged
                else ["all images of a class are alike: there is nothing that could be shrunk"]
            )
        return tuple(text for text in texts if text)

    def start_task(self, task: Task) -> None:
        """Add a row per new class."""
        self.names += task.names
        new = len(task.classes)
        self.means = torch.cat([self.means, self.means.new_zeros(new, self.width)])
        self.counts = torch.cat([self.counts, self.counts.new_zeros(new)])
        self.weight = torch.cat([self.weight, self.weight.new_zeros(new, self.width)])
        self.bias = torch.cat([self.bias, self.bias.new_zeros(new)])
        self.sizes.append(new)
        if self._debiases:
            self.misses = torch.cat([self.misses, self.misses.new_zeros(new, self.width)])
            self.given_back = torch.cat([self.given_back, self.given_back.new_zeros(new)])

    def space(self, features: Float[Tensor, "n *v d"]) -> Float[Tensor, "n *v m"]:
        """Features as its moments hold them: lifted, where it has a lift."""
        return features.double() if self.lift is None else self.lift(features)

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Log density of every class up to a term that all classes share, computed in float64."""
        return (self.space(features) @ self.weight.T + self.bias).to(features.dtype)

    def class_means(self) -> Float[Tensor, "c d"] | None:
        """The means of classes that are not forgotten; None without moments of plain features."""
        if self.lift is not None or not len(self.means):
            return None
        return self.means[self.means.any(dim=1)]

    def follow(self, drift: FeatureDrift) -> None:
        """Move means and scatter, and note what the map misses; `end_task` solves."""
        images = int(self.counts[: drift.known].sum())
        kept = Moments(self.means[: drift.known], self.scatter, images)
        moved = drift.moved(self.drift, kept)
        set_known_means(self.means, moved.means)
        assert moved.scatter is not None, "there was one to move"
        self.scatter.copy_(moved.scatter)
        if self._debiases:
            new = self.misses[drift.known :]
            new.copy_(drift.misses(self.drift, len(new)))

    def end_task(self, task: Task, survey: Survey) -> None:
        """Add the task's moments, choose the shrinkage and solve for weight and bias.

        Raises:
            ConfigError: the shrinkage is to be chosen on a validation split that is empty.
        """
        features, labels = survey.features("train", mirrored=self.mirrored)
        if self.lift is not None:
            self.lift.fit(views_of(features)[:, 0])
        x = self.space(features)
        self._add(*centred_rows(x, labels, task.classes), list(task.classes))
        self._settle(x, labels, survey)

    def refuses(self, labels: Sequence[int]) -> str:
        """Refuse nothing: moments of more images are merged exactly."""
        return ""

    def take_in(self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]) -> None:
        """Merge the moments of more images of these classes, and solve anew.

        A shrinkage that was chosen on validation images stays as it is; with ``loo`` these images
        have a say in it, among all classes known now.
        """
        rows, x = labels.unique().tolist(), self.space(self.taught(features))
        means, counts, centred = centred_rows(x, labels, tuple(rows))
        merged = merged_means(self.means[rows], self.counts[rows], means, counts)
        self._add(*merged[:2], centred, rows)
        self._spread_by(merged[2])
        self._settle(x, labels)

    def scores_left_out(
        self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]
    ) -> tuple[Bool[Tensor, "n"], Float[Tensor, "j c"]]:
        """Log densities under the moments of all other images; ρ and the level stay."""
        judged = can_be_left_out(self.counts.to(labels.device), labels)
        moments = GaussianMoments(self.means, self.counts, self._spectrum())
        x, rho = self.space(self.taught(features)), float(self.rho)
        pooled = self._pooled(rho, moments if self.left_out is not None else None)
        scores = gaussian_scores_left_out(moments, x, labels, rho, pooled)
        images = int(self.counts.sum())
        if self.gram is None and self.left_out is None and self._spread and images > 1:
            # Those are for S/(n − 1), where the head scores by S/n.
            scores = scores * (images / (images - 1))
        return judged, scores + self.given_back if self._debiases else scores

    def evidence(self, features: Float[Tensor, "n d"]) -> Evidence:
        """Log densities of classes and background; logits alone where there are no distances."""
        measure = self._evidence()
        return Evidence(self.logits(features)) if measure is None else measure.of(features)

    def evidence_left_out(
        self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]
    ) -> tuple[Bool[Tensor, "n"], Evidence]:
        """Log densities under the moments of all other images; ρ and the level stay."""
        judged, scores = self.scores_left_out(features, labels)
        measure = self._evidence()
        if measure is None:
            return judged, Evidence(scores)
        background = measure.background_left_out(self.taught(features), labels)
        return judged, Evidence(scores, background, whole=True)

    def evidence_class_left_out(
        self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]
    ) -> Evidence:
        """Log densities under the moments of the images of all other classes; ρ and the level stay."""
        measure = self._evidence()
        if measure is None:
            return Evidence(self.logits(views_of(features)[:, 0]))
        return measure.class_left_out(self.taught(features), labels)

    def forget(self, label: int) -> list[Trace]:
        """Overwrite the class's mean, weight and bias.

        A class of one image, whose mirror image was not taken in, adds nothing to the pooled
        covariance, and leaves no trace but in the sums of ``loo``. Of others the scatter cannot be
        taken out again, as it is not kept per class; their count stays with it, since the covariance
        is the mean over all images.
        """
        self.means[label], self.weight[label], self.bias[label] = 0, 0, 0
        self._measure = None
        images, state = int(self.counts[label]), self.state_dict()
        sums = [name for name in state if name.startswith("left_out.")]
        traces = [] if self.lift is None else self.lift.traces(("means",))
        if self._debiases:
            self.given_back[label] = 0
            if self.misses[label].any():
                self.misses[label] = 0
                what = "what classes before it are given back, for which it was left out of a map"
                traces.append(Trace(what, ("given_back", "bias")))
        weights = "so the weights of all other classes, which are made with it"
        if self.config.mean_shrinkage:
            self._solve(float(self.rho), self._moments())
        if images == 1 and not self.mirrored:
            self.counts[label] = 0
            moments = self._moments()
            self._solve(self._shrinkage(moments) if self._fits else float(self.rho), moments)
            what = "the shrinkage, chosen while images of other classes were compared with it;"
            chosen = Trace(f"{what} {weights}", (*sums, "rho", "weight", "bias"))
            return [*traces, chosen] if sums else traces
        shown = f"its {images} images" if images > 1 else "its image and the mirror image"
        what = f"the covariance that all classes share, with the spread of {shown}, and"
        scatter = [name for name in state if name == "scatter" or name.startswith("gram.")]
        tensors = (*scatter, "counts", "rho", "weight", "bias", *sums)
        return [*traces, Trace(f"{what} that number; {weights}", tensors)]

    @property
    def leaves_class_out(self) -> bool:
        """Whether it can answer a class's images as if it had taken in none: of plain features."""
        return self.gram is None

    def _evidence(self) -> GaussianEvidence | None:
        """Distances by the moments; None for lifted features, without spread, or without moments."""
        if self._measure is None and self.gram is None and len(self.scatter) and self._spread:
            known, images = self.means.any(dim=1), int(self.counts.sum())
            if images < 2:  # noqa: PLR2004  an image and its mirror image are one
                return None
            # Distances are for S/(n − 1), where the head may score by S/n.
            factor = 1.0 if self.left_out is not None else images / (images - 1)
            rho = float(self.rho)
            counts, pooled = self.counts * known, self._pooled(rho)
            self._measure = GaussianEvidence(
                self.means, counts, self.scatter, images, rho, factor, pooled
            )
        return self._measure

    @property
    def _fits(self) -> bool:
        """Whether the moments alone say what the shrinkage is."""
        return self.config.shrinkage not in ("validation", "loo")

    @property
    def _spread(self) -> bool:
        """Whether any image differs from its class's mean."""
        return bool(self.scatter.diagonal().any() if self.gram is None else self.gram.trace)

    @property
    def _covariance(self) -> Float[Tensor, "d d"]:
        images = int(self.counts.sum())
        if self.gram is None:
            return self.scatter / max(images, 1)
        return self.gram.matrix / max(images - 1, 1)

    def _add(
        self,
        means: Float[Tensor, "c d"],
        counts: Int[Tensor, "c"],
        centred: Float[Tensor, "n d"],
        rows: list[int],
    ) -> None:
        """Set these classes' means and counts, and add to the scatter."""
        self.means[rows], self.counts[rows] = means.to(self.means), counts.to(self.counts)
        self._spread_by(centred)

    def _spread_by(self, rows: Float[Tensor, "n d"]) -> None:
        if self.gram is None:
            self.scatter += (rows.T @ rows).to(self.scatter)
        else:
            self.gram.add(rows)

    def _settle(
        self, x: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"], survey: Survey | None = None
    ) -> None:
        """Choose the shrinkage, with these images if it is by leaving images out, and solve."""
        moments = self._moments()
        if self.left_out is not None:
            rho = self._best_left_out(self.left_out, x, labels, moments)
        elif self._fits:
            rho = self._shrinkage(moments)
        else:
            rho = self._best_on_validation(survey, moments) if survey else float(self.rho)
        self._solve(rho, moments)

    def _moments(self) -> GaussianMoments | None:
        """The moments with their scatter decomposed; None where Cholesky will do.

        So it is for plain features without ``loo``, and past as many images as columns for lifts
        too wide to be decomposed more than once: ``loo`` then stays at what it has chosen.
        """
        if self.gram is None:
            spectrum = None if self.left_out is None else self._spectrum()
        else:
            wide = not self.gram.thin and self.width > WIDEST_SPECTRUM
            chosen = self.left_out is None or self.left_out.judged
            spectrum = None if wide and chosen else self._spectrum()
        return None if spectrum is None else GaussianMoments(self.means, self.counts, spectrum)

    def _spectrum(self) -> Spectrum:
        return spectrum_of(self.scatter) if self.gram is None else self.gram.spectrum()

    def _shrinkage(self, moments: GaussianMoments | None) -> float:
        """The given one, or that from the covariance and the number of images alone."""
        if not isinstance(self.config.shrinkage, str):
            return self.config.shrinkage
        images = int(self.counts.sum())
        free = max(images - int((self.counts > 0).sum()), 1)
        if moments is None:
            rho = oracle_shrinkage(self._covariance, free)
        else:
            rho = oracle_shrinkage_of(moments.scatter.values / max(images, 1), self.width, free)
        return max(rho, min(SHRINKAGES))

    def _best_on_validation(self, survey: Survey, moments: GaussianMoments | None) -> float:
        if not survey.has("val"):
            raise ConfigError(
                "shrinkage='validation' needs validation images: validation_fraction=0.25 keeps some "
                "of every class that has 10 or more. Else take shrinkage=loo or analytic."
            )
        features, labels = survey.features("val")
        # Right is a class by its name, whatever the domain, as in the evaluation.
        class_of = torch.tensor(classes_of(self.names), device=labels.device)
        scores = []
        for rho in SHRINKAGES:
            self._solve(rho, moments)
            found = class_of[self.logits(features).argmax(1)]
            scores.append(float((found == class_of[labels]).double().mean()))
        best = max(scores)
        ties = [rho for rho, score in zip(SHRINKAGES, scores, strict=True) if score == best]
        return ties[len(ties) // 2]

    def _best_left_out(
        self,
        sums: LeftOutSums,
        x: Float[Tensor, "n *v d"],
        labels: Int[Tensor, "n"],
        moments: GaussianMoments | None,
    ) -> float:
        """Leave each of these images out, and choose the shrinkage by all answers so far."""
        if moments is None:
            return float(self.rho)
        # Right is a class by its name, whatever the domain; a forgotten class answers nothing.
        class_of = torch.tensor(classes_of(self.names), device=labels.device)
        gone = (self.means == 0).all(dim=1).to(labels.device)
        gone[labels] = False
        class_of[gone] = -1
        if len(self.means) > MOST_POOLED:
            sums.add(gaussian_left_out(moments, x, labels, class_of=class_of))
        else:
            pooled_by = functools.partial(self._pooled, moments=moments)
            sums.add(gaussian_left_out(moments, x, labels, class_of=class_of, pooled_by=pooled_by))
        rho = sums.best()
        # Without a class of two images there is no scatter, and every shrinkage is the same.
        return 1.0 if rho is None else rho

    def _solve(self, rho: float, moments: GaussianMoments | None) -> None:
        """Set the shrinkage, and weight and bias by it."""
        weight, bias = self._discriminant(self.means, rho, moments)
        pooled = self._pooled(rho, moments, weight)
        if pooled is not None:
            weight, bias = self._discriminant(pooled.means, rho, moments)
        self.rho.fill_(rho)
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        if self._debiases:
            self._give_back(rho, moments)
        self._measure = None

    def _discriminant(
        self, means: Float[Tensor, "c d"], rho: float, moments: GaussianMoments | None
    ) -> tuple[Float[Tensor, "c d"], Float[Tensor, "c"]]:
        """Weight and bias of these means under the covariance."""
        if moments is None:
            return discriminant(means, self._covariance, rho)
        return spectral_discriminant(replace(moments, means=means), rho)

    def _pooled(
        self,
        rho: float,
        moments: GaussianMoments | None = None,
        solved: Tensor | None = None,
    ) -> PooledMeans | None:
        """The means drawn together, of classes that count; None where they stay as they are."""
        counts = self.counts * self.means.any(dim=1)
        classes, images = int((counts > 0).sum()), int(self.counts.sum())
        if not (self.config.mean_shrinkage and self._spread) or classes < 2:  # noqa: PLR2004
            return None
        moments = moments or self._moments()
        if solved is None:
            solved = self._discriminant(self.means, rho, moments)[0]
        values = (
            torch.linalg.eigvalsh(self._covariance)
            if moments is None
            else (moments.scatter.values / images)
        )
        if moments is None and self.gram is None and images > 1:
            # By S/(n − 1), as images are left out.
            solved = solved * ((images - 1) / images)
        rows = images * (2 if self.mirrored else 1)
        error = image_error(values.clamp(min=0), self.width, rho, rows, classes)
        return PooledMeans(self.means, solved, counts, self.config.mean_shrinkage * error)

    def _give_back(self, rho: float, moments: GaussianMoments | None) -> None:
        """Add to every bias what the maps since its class came are expected to have cost it."""
        solved, _ = self._discriminant(self.misses, rho, moments)
        lost = [
            score_lost(*pair)
            for pair in zip(self.misses.split(self.sizes), solved.split(self.sizes), strict=True)
        ]
        later = torch.stack(lost).flip(0).cumsum(0).flip(0) - torch.stack(lost)
        sizes = torch.tensor(self.sizes, device=later.device)
        known = self.means.any(dim=1)
        self.given_back.copy_(self.config.drift_debias * known * later.repeat_interleave(sizes))
        self.bias += self.given_back

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes over: all but what is worked out anew."""
        return {**self.__dict__, "_measure": None}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._measure = None
