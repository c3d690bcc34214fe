"""Joint training: the upper bound, prompts trained on all classes at once, old images included."""

from __future__ import annotations

from perdure.methods.catalog import METHODS
from perdure.methods.deep_prompts import DeepPromptMethod
from perdure.methods.options import JointConfig


@METHODS.register("joint")
class Joint(DeepPromptMethod):
    """Deep prompts and one linear layer trained once on the union of all tasks."""

    @classmethod
    def retrains(cls, config: JointConfig) -> bool:
        """Whether it starts anew after every task, by ``train_after``."""
        return config.train_after == "each"
