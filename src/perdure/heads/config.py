"""Head options: configuration dataclasses of the heads; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le


@dataclass(frozen=True)
class HeadOptions:
    """Options of a head that has none."""


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
class GaussianConfig(HeadOptions):
    """Options of ``gaussian``.

    Attributes:
        shrinkage: shrinkage of the Gaussian head's covariance: ``analytic`` (oracle-approximating),
            ``loo`` (most right answers to training images that are left out in turn, over all tasks
            so far), ``validation`` (chosen on the current task's validation split), or a number in
            (0, 1].
    """

    shrinkage: Literal["analytic", "loo", "validation"] | Annotated[float, Gt(0), Le(1)] = (
        "analytic"
    )


@dataclass(frozen=True)
class ClassVectorConfig(HeadOptions):
    """Options of ``zero_shot``.

    Attributes:
        class_embeddings: class vectors of the heads ``language`` and ``zero_shot``:
            ``text``, or ``mean``: the mean image of the class under the plain backbone (ours).
    """

    class_embeddings: Literal["text", "mean"] = "text"


@dataclass(frozen=True)
class LanguageConfig(ClassVectorConfig):
    """Options of ``language``.

    Attributes:
        refine_epochs: passes over drawn features that refine the image projection of ``language``
            after every task; 0 for none, and then nothing is stored of old images.
    """

    refine_epochs: Annotated[int, Ge(0)] = 50


@dataclass(frozen=True)
class HeadConfig(LanguageConfig, GaussianConfig, LinearConfig):
    """Options of all heads, over which a head's own win, and the texts that they share.

    Attributes:
        text_features: source of text features: a text tower of open_clip as ``MODEL/TAG``, or a
            ``.safetensors`` file with one vector per class under the class's name.
        templates: captions of every class for the text tower.
    """

    text_features: str = "ViT-B-16/openai"
    templates: str = "photo"
