"""Heads: components that turn features into scores of the classes seen so far."""

from perdure.heads.base import HEADS, Head, HeadConfig, TrainedHead
from perdure.heads.gaussian import GaussianHead, NearestMeanHead
from perdure.heads.language import LanguageHead, ZeroShotHead
from perdure.heads.linear import LinearHead

__all__ = [
    "HEADS",
    "GaussianHead",
    "Head",
    "HeadConfig",
    "LanguageHead",
    "LinearHead",
    "NearestMeanHead",
    "TrainedHead",
    "ZeroShotHead",
]
