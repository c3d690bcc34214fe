"""Methods: one file each, found here by name."""

from perdure.methods import finetune, frozen, joint, nsp2
from perdure.methods.base import METHODS, Method, MethodConfig

__all__ = ["METHODS", "Method", "MethodConfig", "finetune", "frozen", "joint", "nsp2"]
