"""Study of unknown images without extra data: known classes are left out of the head in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perdure.engine.survey import ordered_batches
from perdure.heads import Head
from perdure.learner.familiarity import bins, familiarity_scores
from perdure.learner.separation import Separation
from perdure.learner.state import LearnerState
from perdure.numerics.evidence import Evidence
from perdure.streams import Subset

Features = Float[Tensor, "n d"]
Views = Float[Tensor, "n *v d"]
Labels = Int[Tensor, "n"]
Negatives = Float[Tensor, "m d"]


@torch.no_grad()
def separate_left_out(
    state: LearnerState, features: Views, labels: Labels, negatives: Negatives
) -> LearnerState:
    """Add a lesson's images, each and then each class left out in turn, to what separates.

    Only where features are fixed and every evaluated head `leaves_out`.

    Args:
        state: after the lesson, with its temperatures.
        features: readouts of the lesson's training images.
        labels: their classes, in order of arrival.
        negatives: readouts of images of no class.
    """
    found = {}
    for name in state.model.config.head_names:
        head = state.model.heads[name]
        if head.leaves_class_out:
            known, unknown = None, None
            if len(labels):
                left_out = head.evidence_left_out(features, labels)[1]
                known = state.columns.class_evidence(left_out)
                unknown = _unknown(state, head, features, labels)
            found[name] = known, unknown, _of(state, head, negatives)
    return _added(state, found)


@torch.no_grad()
def separate_held_out(state: LearnerState, held_out: Subset, negatives: Negatives) -> LearnerState:
    """Add a lesson's held-out images to what separates, known and with their class's score left out.

    What a head knows of a class beside its score stays: features were trained on its images anyhow.
    """
    features = features_of(state, held_out)
    columns = state.columns.of(held_out.labels).to(features.device)
    found = {}
    for name in state.model.config.head_names:
        head = state.model.heads[name]
        known, unknown = _of(state, head, features), None
        if known is not None and len(state.columns.names) > 1:
            unknown = _without(known, columns)
        found[name] = known, unknown, _of(state, head, negatives)
    return _added(state, found)


@torch.no_grad()
def features_of(
    state: LearnerState,
    images: Subset,
    on_progress: Callable[[int], None] = lambda images: None,
    mirrored: bool = False,
) -> Views:
    """Readouts of images as they are predicted; with ``mirrored``, of their mirror images, too."""
    model = state.model
    found: list[Tensor] = []
    for batch in ordered_batches(model, images):
        views = [batch.images, batch.images.flip(-1)] if mirrored else [batch.images]
        read = [model.forward(view, survey=True)[0].float() for view in views]
        found.append(torch.stack(read, dim=1) if mirrored else read[0])
        on_progress(sum(map(len, found)))
    return torch.cat(found) if found else torch.zeros(0, model.width)


def _unknown(state: LearnerState, head: Head, features: Views, labels: Labels) -> Evidence | None:
    """Every class's images by the head without it; None where there is no other class."""
    columns = state.columns.of(labels).to(labels.device)
    if len(state.columns.names) < 2:  # noqa: PLR2004  one and another
        return None
    parts = []
    for column in columns.unique():
        own = columns == column
        left_out = head.evidence_class_left_out(features[own], labels[own])
        parts.append(_without(state.columns.class_evidence(left_out), columns[own]))
    # With one other class alone, that is the background.
    several = len(state.columns.names) > 2  # noqa: PLR2004  one and two others
    backgrounds = [part.background for part in parts if several and part.background is not None]
    return Evidence(
        torch.cat([part.scores for part in parts]),
        torch.cat(backgrounds) if backgrounds else None,
        parts[0].whole,
    )


def _without(evidence: Evidence, columns: Int[Tensor, "n"]) -> Evidence:
    """Evidence by class, without the score of each image's own."""
    return replace(evidence, scores=evidence.scores.scatter(1, columns[:, None], -torch.inf))


def _of(state: LearnerState, head: Head, features: Features) -> Evidence | None:
    return state.columns.class_evidence(head.evidence(features)) if len(features) else None


def _counted(
    state: LearnerState, head: str, evidence: Evidence | None
) -> dict[str, dict[int, int]]:
    """Histograms of every score."""
    if evidence is None or not len(evidence.scores):
        return {}
    scores, counted = familiarity_scores(evidence, state.temperature(head)), {}
    competing = (evidence.scores > -torch.inf).sum(dim=1)
    if bool((competing == 1).any()):  # the odds of the only class are infinite
        del scores["probability"]
    if evidence.scores.shape[1] == 1:  # and it is its own background
        scores.pop("mahalanobis", None)
    for score, values in scores.items():
        places, counts = bins(values).unique(return_counts=True)
        counted[score] = dict(zip(places.tolist(), counts.tolist(), strict=True))
    return counted


def _added(state: LearnerState, found: Mapping[str, tuple[Evidence | None, ...]]) -> LearnerState:
    """Add a lesson's known and unknown images and negatives to what separates, by head."""
    separations = dict(state.history.separations)
    for head, evidence in found.items():
        parts = [_counted(state, head, one) for one in evidence]
        before = separations.get(head, {})
        separations[head] = before | {
            score: before.get(score, Separation()) + Separation(*(p.get(score, {}) for p in parts))
            for score in dict.fromkeys(score for part in parts for score in part)
        }
    return LearnerState(state.model, replace(state.history, separations=separations))
