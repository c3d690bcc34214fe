"""Head options: configuration dataclasses of the heads; needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from perdure.errors import ConfigError
from perdure.keys import Positive

MOST_GRAM_BYTES = 1 << 30
"""Memory that the Gram matrix of random features may take; solving takes twice as much besides."""
_NUMBER = 8


@dataclass(frozen=True)
class HeadOptions:
    """Options of a head that has none."""


Drift = Literal["none", "mean", "local", "linear", "linear+local", "anchored", "mixed"]
"""How statistics follow the features, see `StatisticsConfig`."""


@dataclass(frozen=True)
class StatisticsConfig(HeadOptions):
    """Options of a head that keeps statistics of features, as ``ncm``.

    Attributes:
        drift: how the statistics of old classes follow features that prompts go on moving: ``none``
            (they stay as measured), ``mean``, ``local``, ``linear``, ``linear+local`` (maps fitted on
            the current task's images), ``anchored`` (a map from the plain backbone's features, where
            statistics are kept too), or ``mixed`` (the mean of ``anchored`` and ``linear``).
    """

    drift: Drift = field(default="none", kw_only=True)


@dataclass(frozen=True)
class LinearConfig(HeadOptions):
    """Options of ``linear``.

    Attributes:
        head_init: first weights of a linear layer: ``reference``: the second task's continue from
            the first's when both have equally many classes (NSP²'s released program); ``fresh``:
            each is drawn anew.
        head_inputs: inputs of the linear layers: ``features`` as they are (the papers), or
            ``centred``: less the mean of the training features of all tasks so far, over their
            spread. Features share a large offset; without it the layers of small tasks learn in few
            steps, and their scores compare.
    """

    head_init: Literal["reference", "fresh"] = "reference"
    head_inputs: Literal["features", "centred"] = "features"


@dataclass(frozen=True)
class LiftConfig(StatisticsConfig):
    """Options of heads that may have random features in front.

    Attributes:
        lift: random features in front of the heads ``gaussian`` and ``ridge``: ``none``, ``relu``
            (a random projection's positive part, RanPAC) or ``cosine`` (random Fourier features of
            a Gaussian kernel).
        lift_width: number of random features.
        lift_gamma: γ of the kernel of ``lift = "cosine"``: ``median`` (one over the median squared
            distance of the first lesson's features), or a number.
    """

    lift: Literal["none", "relu", "cosine"] = "none"
    lift_width: Positive = 5000
    lift_gamma: Literal["median"] | Annotated[float, Gt(0)] = "median"

    def __post_init__(self) -> None:
        """Refuse random features that could not be held, or not follow.

        Raises:
            ConfigError: their Gram matrix would take more than `MOST_GRAM_BYTES`; or statistics of
                lifted features are to follow a map of features.
        """
        if self.lift != "none" and self.drift != "none":
            raise ConfigError(
                f"drift={self.drift} with lift={self.lift}: statistics of random features cannot "
                "follow a map of features. Take adapt=first, under which features stay, or lift=none."
            )
        # One more column: a bias.
        size = _NUMBER * (self.lift_width + 1) ** 2
        if self.lift != "none" and size > MOST_GRAM_BYTES:
            raise ConfigError(
                f"lift_width={self.lift_width}: the Gram matrix of so many random features takes "
                f"{size:,} bytes, allowed are {MOST_GRAM_BYTES:,}. Take lift_width="
                f"{math.isqrt(MOST_GRAM_BYTES // _NUMBER) - 1} at most."
            )


@dataclass(frozen=True)
class RidgeConfig(LiftConfig):
    """Options of ``ridge``.

    Attributes:
        ridge_ratio: penalty of the ridge head, as a multiple of the mean squared feature, summed over
            images: ``loo`` (most right answers to training images that are left out in turn, over
            all tasks so far), or a number.
    """

    ridge_ratio: Literal["loo"] | Annotated[float, Gt(0)] = "loo"


@dataclass(frozen=True)
class GaussianConfig(LiftConfig):
    """Options of ``gaussian``.

    Attributes:
        shrinkage: shrinkage of the Gaussian head's covariance: ``analytic`` (oracle-approximating),
            ``loo`` (most right answers to training images that are left out in turn, over all tasks
            so far), ``validation`` (chosen on the current task's validation split), or a number in
            (0, 1].
        mirrored: whether the statistics of the Gaussian head are of mirror images, too (left and
            right changed), each view counting for half an image. It costs a pass over a task's
            images; where left and right make the class, leave it off.
        mean_shrinkage: how far class means are drawn together: 0 (they stay as they are), or a factor
            on the sampling error that is expected of them. Fewer images, more shrinkage.
        drift_debias: share of the score that a class is expected to lose by errors of the maps it
            follows, and is given back: 0 (nothing) to 1. Without, new classes are favoured. With
            ``drift`` at ``linear`` or ``mixed``.
    """

    shrinkage: Literal["analytic", "loo", "validation"] | Annotated[float, Gt(0), Le(1)] = (
        "analytic"
    )
    mirrored: bool = False
    mean_shrinkage: Annotated[float, Ge(0)] = 0.0
    drift_debias: Annotated[float, Ge(0), Le(1)] = 0.0


@dataclass(frozen=True)
class ClassVectorConfig(HeadOptions):
    """Options of ``zero_shot``.

    Attributes:
        class_embeddings: class vectors of the heads ``language`` and ``zero_shot``:
            ``text``, or ``mean``: the mean image of the class under the plain backbone (ours).
    """

    class_embeddings: Literal["text", "mean"] = "text"


@dataclass(frozen=True)
class LanguageConfig(StatisticsConfig, ClassVectorConfig):
    """Options of ``language``.

    Attributes:
        refine_epochs: passes over drawn features that refine the image projection of ``language``
            after every task; 0 for none, and then nothing is stored of old images.
    """

    refine_epochs: Annotated[int, Ge(0)] = 50


@dataclass(frozen=True)
class HeadConfig(LanguageConfig, RidgeConfig, GaussianConfig, LinearConfig):
    """Options of all heads, over which a head's own win, and the texts that they share.

    Attributes:
        text_features: source of text features: a text tower of open_clip as ``MODEL/TAG``, or a
            ``.safetensors`` file with one vector per class under the class's name.
        templates: captions of every class for the text tower.
    """

    text_features: str = "ViT-B-16/openai"
    templates: str = "photo"
