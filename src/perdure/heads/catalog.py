"""Head registry: names and declarations of the built-in heads; needs no torch.

A head's options are in `perdure.heads.config`, its class in the module named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perdure.heads.config import (
    ClassVectorConfig,
    GaussianConfig,
    HeadOptions,
    LanguageConfig,
    LinearConfig,
    RidgeConfig,
    StatisticsConfig,
)
from perdure.registry import Declaration, Registry

if TYPE_CHECKING:
    from perdure.heads.base import Head


@dataclass(frozen=True)
class HeadDeclaration(Declaration):
    """Attributes of a head's class that are known without importing it.

    Attributes:
        Config: its options.
        closed_form: whether it is fitted to a task without gradients, so that one class is enough.
        needs_projection: whether it needs the backbone's own image projection.
        learning_only: tensors of its state, as patterns of their names, that prediction never reads.
        recipe: of a trained head, keys of a run that suit small data, by which a classifier learns.
    """

    Config: type[HeadOptions] = HeadOptions
    closed_form: bool = True
    needs_projection: bool = False
    learning_only: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        """Whether methods train under it, on the classes of the current task alone."""
        return not self.closed_form


HEADS: Registry[type[Head], HeadDeclaration] = Registry("head", HeadDeclaration)

HEADS.declare(
    "linear",
    "perdure.heads.linear",
    HeadDeclaration(
        Config=LinearConfig,
        closed_form=False,
        learning_only=("images", "feature_sum", "square_sum"),
        # The settings of demo/nsp2.
        recipe={"batch_size": 16, "lr": 0.01, "head_inputs": "centred", "temperature": 5.0},
    ),
)
HEADS.declare(
    "gaussian",
    "perdure.heads.gaussian",
    HeadDeclaration(
        Config=GaussianConfig,
        learning_only=(
            "means",
            "counts",
            "scatter",
            "rho",
            "gram.*",
            "left_out.*",
            "misses",
            "given_back",
        ),
    ),
)
HEADS.declare(
    "ridge",
    "perdure.heads.ridge",
    HeadDeclaration(
        Config=RidgeConfig,
        learning_only=("gram.*", "sums", "counts", "ratio", "left_out.*"),
    ),
)
HEADS.declare(
    "ncm",
    "perdure.heads.nearest_mean",
    HeadDeclaration(
        Config=StatisticsConfig,
        learning_only=("counts",),
    ),
)
HEADS.declare(
    "language",
    "perdure.heads.language",
    HeadDeclaration(
        Config=LanguageConfig,
        closed_form=False,
        needs_projection=True,
        learning_only=("means_*", "factors_*"),
        # The settings of digits/clip_nsp2.
        recipe={"batch_size": 16, "lr": 0.001},
    ),
)
HEADS.declare(
    "zero_shot",
    "perdure.heads.language",
    HeadDeclaration(
        Config=ClassVectorConfig,
        needs_projection=True,
    ),
)
