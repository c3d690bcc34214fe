"""Heads: components that turn features into scores of the classes seen so far, found in `HEADS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.lazy import lazy_names

if TYPE_CHECKING:
    from perdure.heads.base import Head, TrainedHead
    from perdure.heads.catalog import HEADS
    from perdure.heads.choice import HeadChoice, choose_head
    from perdure.heads.config import HeadConfig, HeadOptions
    from perdure.heads.gaussian import GaussianHead
    from perdure.heads.language import LanguageHead, ZeroShotHead
    from perdure.heads.linear import LinearHead
    from perdure.heads.nearest_mean import NearestMeanHead
    from perdure.heads.ridge import RidgeHead
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "HEADS",
    "GaussianHead",
    "Head",
    "HeadChoice",
    "HeadConfig",
    "HeadOptions",
    "LanguageHead",
    "LinearHead",
    "NearestMeanHead",
    "RidgeHead",
    "TrainedHead",
    "ZeroShotHead",
    "choose_head",
]
