"""Methods: one file each, found here by name."""

from perdure.methods import (
    clip,
    coda_prompt,
    dualprompt,
    finetune,
    frozen,
    iprompt,
    joint,
    l2p,
    l2p_projected,
    nsp2,
    pgp,
)
from perdure.methods.base import METHODS, Method, MethodConfig

__all__ = [
    "METHODS",
    "Method",
    "MethodConfig",
    "clip",
    "coda_prompt",
    "dualprompt",
    "finetune",
    "frozen",
    "iprompt",
    "joint",
    "l2p",
    "l2p_projected",
    "nsp2",
    "pgp",
]
