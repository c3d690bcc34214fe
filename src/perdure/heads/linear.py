"""Linear head: one layer per task, trained with the prompts on that task's classes only."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perdure.heads.base import TrainedHead
from perdure.heads.catalog import HEADS
from perdure.heads.config import LinearConfig
from perdure.types import BackboneSpec, Generators, Survey, Task, Trace


@HEADS.register("linear")
class LinearHead(TrainedHead):
    """One linear layer per task, concatenated at prediction: no task id, no temperature.

    With ``head_inputs="centred"`` every layer scores (x − μ)/σ: mean and spread of the training
    features of all tasks so far, those of earlier tasks as they were when these ended.
    """

    learned: ClassVar[str] = "one linear layer"

    config: LinearConfig

    def __init__(self, spec: BackboneSpec, config: LinearConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.layers = nn.ModuleList()
        self._centred = config.head_inputs == "centred"
        if self._centred:
            self.register_buffer("images", torch.zeros(()))
            self.register_buffer("feature_sum", torch.zeros(spec.dim))
            self.register_buffer("square_sum", torch.zeros(spec.dim))

    @property
    def stores_statistics(self) -> str:
        """The sums that inputs are centred with."""
        return "sum and sum of squares of the features" if self._centred else ""

    def start_task(self, task: Task) -> None:
        """Add the task's layer: U(±1/√D), or a copy of the first task's layer (`LinearConfig`)."""
        # nn.Linear's own initialisation would draw from torch's global generator
        layer = nn.utils.skip_init(nn.Linear, self.dim, len(task.classes))
        bound = self.dim**-0.5
        for name, parameter in layer.named_parameters():
            random = self.generator(f"head.linear.{task.index}.{name}")
            with torch.no_grad():
                parameter.uniform_(-bound, bound, generator=random)
        if self.config.head_init == "reference" and task.index == 1:
            first = {name: value.detach() for name, value in self.layers[0].named_parameters()}
            if first["weight"].shape == layer.weight.shape:
                layer.load_state_dict(first)
        if self._centred:
            layer.register_buffer("offset", torch.zeros(self.dim))
            layer.register_buffer("spread", torch.ones(()))
        self.layers.append(layer)

    def prepare(self, task: Task, survey: Survey) -> bool:
        """Set what the task's layer takes off its inputs, where they are centred."""
        if not self._centred:
            return False
        images, total, squares = self._sums(survey)
        layer, mean = self.layers[task.index], total / images
        variance = (squares / images - mean**2).mean()
        layer.get_buffer("offset").copy_(mean)
        if variance > 0:
            layer.get_buffer("spread").copy_(variance.sqrt())
        return True

    def task_logits(self, features: Float[Tensor, "b d"], task: Task) -> Float[Tensor, "b k"]:
        """Score one task's classes only; what training minimises the loss of."""
        return self._scores(self.layers[task.index], features)

    def trained(self, task: Task) -> nn.Module:
        """The task's layer."""
        return self.layers[task.index]

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Score every class seen so far."""
        return torch.cat([self._scores(layer, features) for layer in self.layers], dim=1)

    def end_task(self, task: Task, survey: Survey) -> None:
        """Count in the task's features, where inputs are centred; nothing is fitted."""
        if self._centred:
            for name, value in zip(
                ("images", "feature_sum", "square_sum"), self._sums(survey), strict=True
            ):
                self.get_buffer(name).copy_(value)

    def forget(self, label: int) -> list[Trace]:
        """Overwrite the class's row; the other rows of its layer were trained against it."""
        index, row = self._place(label)
        layer = self.layers[index]
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter[row] = 0
        traces = []
        if _rows(layer) > 1:
            touched = [index]
            if self.config.head_init == "reference" and index == 0 and len(self.layers) > 1:
                touched.append(1)
            traces.append(
                Trace(
                    "the layer of its task, whose other rows were trained to be told from it",
                    tuple(f"layers.{i}.{name}" for i in touched for name in ("weight", "bias")),
                )
            )
        if self._centred:
            layers = range(index, len(self.layers))
            shifted = [f"layers.{i}.{name}" for i in layers for name in self.layers[i].state_dict()]
            what = (
                "mean and spread of all features, which its layer and later ones were trained less"
            )
            sums = ("images", "feature_sum", "square_sum")
            traces.append(Trace(what, (*sums, *shifted)))
        return traces

    def _place(self, label: int) -> tuple[int, int]:
        """The layer that scores a class, and the row in it."""
        for index, layer in enumerate(self.layers):
            if label < _rows(layer):
                return index, label
            label -= _rows(layer)
        raise IndexError(f"there is no class {label}")

    def _sums(self, survey: Survey) -> tuple[Tensor, Tensor, Tensor]:
        """Number, sum and sum of squares of the features so far, with those of the survey."""
        features, _ = survey.features()
        return (
            self.get_buffer("images") + len(features),
            self.get_buffer("feature_sum") + features.sum(0),
            self.get_buffer("square_sum") + features.square().sum(0),
        )

    def _scores(self, layer: nn.Module, features: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        if self._centred:
            features = (features - layer.get_buffer("offset")) / layer.get_buffer("spread")
        scores: Tensor = layer(features)
        return scores


def _rows(layer: nn.Module) -> int:
    return len(layer.get_parameter("bias"))
