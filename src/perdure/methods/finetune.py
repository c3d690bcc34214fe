"""Sequential visual prompt tuning: prompts trained on one task after another, nothing protected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from perdure.errors import ConfigError
from perdure.methods.base import METHODS
from perdure.methods.deep_prompts import DeepPromptConfig, DeepPromptMethod
from perdure.types import BackboneSpec, Generators, Task, Traits


@dataclass(frozen=True)
class FinetuneConfig(DeepPromptConfig):
    """Options of sequential tuning.

    Attributes:
        lr_after_first: factor on the prompts' learning rate from the second task on; 0.05 is the
            control for the damping that the published projection brings with it.
    """

    lr_after_first: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: a negative factor, or what `DeepPromptConfig` refuses.
        """
        super().__post_init__()
        if not self.lr_after_first >= 0:
            raise ConfigError(f"lr_after_first={self.lr_after_first}: it must be 0 or more.")


@METHODS.register("finetune")
class Finetune(DeepPromptMethod):
    """VPT-Seq of the NSP² paper: deep prompts and one linear layer per task, trained in sequence."""

    traits: ClassVar[Traits] = Traits(
        paper="Jia et al., ECCV 2022 (VPT-Deep); VPT-Seq in Lu et al., NeurIPS 2024",
        summary="deep prompts trained task after task, nothing protected",
    )
    Config = FinetuneConfig
    config: FinetuneConfig

    def __init__(self, spec: BackboneSpec, config: FinetuneConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self._task = 0

    def start_task(self, task: Task) -> None:
        """Remember which task it is, for the learning rate."""
        self._task = task.index

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """The prompts, their learning rate cut from the second task on if so configured."""
        factor = self.config.lr_after_first if self._task > 0 else 1.0
        return [{"params": list(self.parameters()), "lr": lr * factor}]
