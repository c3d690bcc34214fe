"""Sequential visual prompt tuning: prompts trained on one task after another, nothing protected."""

from __future__ import annotations

from typing import Any

from perdure.methods.catalog import METHODS
from perdure.methods.deep_prompts import DeepPromptMethod
from perdure.methods.options import FinetuneConfig
from perdure.methods.sensitivity import sensitivity_guard
from perdure.types import BackboneSpec, Generators, Task


@METHODS.register("finetune")
class Finetune(DeepPromptMethod):
    """VPT-Seq of the NSP² paper: deep prompts and one linear layer per task, trained in sequence."""

    config: FinetuneConfig

    def __init__(self, spec: BackboneSpec, config: FinetuneConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self._trained = self._trained_before = False
        shapes = dict.fromkeys(self.prompts.matrices, (config.prompt_length, spec.dim))
        self.guard = sensitivity_guard(config, self.prompts.matrices, shapes, generator)

    def start_task(self, task: Task) -> None:
        """Remember whether a task before trained, for the learning rate."""
        self._trained_before = self._trained
        self._trained |= len(task.classes) > 1  # a task of one class takes no step

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """The prompts, their learning rate cut after the first task that trains, if so configured."""
        factor = self.config.lr_after_first if self._trained_before else 1.0
        return [{"params": list(self.parameters()), "lr": lr * factor}]
