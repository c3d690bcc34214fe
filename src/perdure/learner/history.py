"""History of a classifier: its lessons, temperatures and forgotten classes."""

from __future__ import annotations

from dataclasses import dataclass, field

from perdure.learner.separation import Separation

SHARES = (0.25, 0.5, 1.0)
"""Shares of each class's images at which a learning curve is measured."""
Curve = tuple[float | None, ...]
"""Share of a class's images named right at each of `SHARES`; None where none could be left out."""


@dataclass(frozen=True)
class Lesson:
    """One call of `learn`, or one task of a run.

    Attributes:
        images: training images it brought, per class name.
        new: those of its classes that were not known before.
        held_out: images kept from training to measure with.
        left_out: training images that were left out in turn to measure with, where features are
            fixed and no image need be held out.
        negatives: images of `none`, which are of no class.
        accuracy: per evaluated head, share of these images classified correctly among all classes
            then known; empty where there were none.
        calibration_error: per evaluated head, expected calibration error on them, after tempering;
            a little too good, as the temperature was fitted on the same images.
        untempered_error: the same before tempering.
        curve: by class, how many of its images are named right without them when `SHARES` of the
            lesson's images of each class are known: what more images would bring. Empty where images
            cannot be left out.
    """

    images: dict[str, int]
    new: tuple[str, ...]
    held_out: int = 0
    left_out: int = 0
    negatives: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)
    calibration_error: dict[str, float] = field(default_factory=dict)
    untempered_error: dict[str, float] = field(default_factory=dict)
    curve: dict[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """Everything known of the lessons beside the model's tensors.

    Attributes:
        lessons: all lessons, in order.
        temperatures: per evaluated head, what its scores are divided by before the softmax; 1 where
            a head has none.
        forgotten: classes that were removed again, as positions in order of arrival.
        spread_losses: per evaluated head, cross-entropy of the images held out or left out in turn,
            summed over all lessons, at each place of ``calibration.GRID``.
        separations: per evaluated head and score, how well known images were told from unknown ones.
        numbered: whether all labels so far were numbers, so that they come back as numbers.
    """

    lessons: tuple[Lesson, ...] = ()
    temperatures: dict[str, float] = field(default_factory=dict)
    forgotten: tuple[int, ...] = ()
    spread_losses: dict[str, tuple[float, ...]] = field(default_factory=dict)
    separations: dict[str, dict[str, Separation]] = field(default_factory=dict)
    numbered: bool = False
