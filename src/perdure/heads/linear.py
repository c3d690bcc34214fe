"""Linear head: one layer per task, trained with the prompts on that task's classes only."""

from __future__ import annotations

from typing import Any, ClassVar

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

    The newest task's layer is a module; those of finished tasks are the rows of one matrix, so that
    looking through the state costs no more with every task.

    With ``head_inputs="centred"`` every layer scores (x − μ)/σ: mean and spread of the training
    features of all tasks so far, those of earlier tasks as they were when these ended.
    """

    learned: ClassVar[str] = "one linear layer"

    config: LinearConfig
    layer: nn.Linear | None
    weight: Tensor
    bias: Tensor
    offsets: Tensor
    spreads: Tensor

    def __init__(self, spec: BackboneSpec, config: LinearConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.layer = None
        self.sizes: list[int] = []
        self.register_buffer("weight", torch.zeros(0, spec.dim))
        self.register_buffer("bias", torch.zeros(0))
        self._centred = config.head_inputs == "centred"
        if self._centred:
            self.register_buffer("offsets", torch.zeros(0, spec.dim))
            self.register_buffer("spreads", torch.zeros(0))
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
        layer, last = nn.utils.skip_init(nn.Linear, self.dim, len(task.classes)), self.layer
        bound = self.dim**-0.5
        for name, parameter in layer.named_parameters():
            random = self.generator(f"head.linear.{task.index}.{name}")
            with torch.no_grad():
                parameter.uniform_(-bound, bound, generator=random)
        if last is not None:
            if (
                self.config.head_init == "reference"
                and task.index == 1
                and last.weight.shape == layer.weight.shape
            ):
                layer.load_state_dict(last.state_dict())
            self.weight = torch.cat([self.weight, last.weight.detach()])
            self.bias = torch.cat([self.bias, last.bias.detach()])
        if self._centred:
            self.offsets = torch.cat([self.offsets, self.offsets.new_zeros(1, self.dim)])
            self.spreads = torch.cat([self.spreads, self.spreads.new_ones(1)])
        self.sizes.append(len(task.classes))
        self.layer = layer

    def prepare(self, task: Task, survey: Survey) -> bool:
        """Set what the task's layer takes off its inputs, where they are centred."""
        if not self._centred:
            return False
        images, total, squares = self._sums(survey)
        mean = total / images
        variance = (squares / images - mean**2).mean()
        self.offsets[task.index] = mean
        if variance > 0:
            self.spreads[task.index] = variance.sqrt()
        return True

    def task_logits(self, features: Float[Tensor, "b d"], task: Task) -> Float[Tensor, "b k"]:
        """Score one task's classes only; what training minimises the loss of."""
        return self._scores(features, task.index, *self._layer(task.index))

    def trained(self, task: Task) -> nn.Module:
        """The newest task's layer.

        Raises:
            ValueError: the task is an earlier one, whose layer is finished.
        """
        if self.layer is None or task.index != len(self.sizes) - 1:
            raise ValueError(f"task {task.index} is not the newest: nothing of it is trained")
        return self.layer

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Score every class seen so far."""
        assert self.layer is not None, "a task was started"
        weight = torch.cat([self.weight, self.layer.weight])
        bias = torch.cat([self.bias, self.layer.bias])
        if not self._centred:
            return nn.functional.linear(features, weight, bias)
        sizes = torch.tensor(self.sizes, device=weight.device)
        centre = self.offsets[-1]  # near all of them, so that no large numbers cancel
        moved = (self.offsets - centre).repeat_interleave(sizes, dim=0)
        scores = nn.functional.linear(features - centre, weight) - (moved * weight).sum(dim=1)
        return scores / self.spreads.repeat_interleave(sizes) + bias

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
        with torch.no_grad():
            for tensor in self._layer(index):
                tensor[row] = 0
        last = len(self.sizes) - 1
        traces = []
        if self.sizes[index] > 1:
            touched = {index}
            if self.config.head_init == "reference" and index == 0 and last > 0:
                touched.add(1)
            finished = ("weight", "bias") if touched - {last} else ()
            newest = ("layer.weight", "layer.bias") if last in touched else ()
            traces.append(
                Trace(
                    "the layer of its task, whose other rows were trained to be told from it",
                    (*finished, *newest),
                )
            )
        if self._centred:
            what = (
                "mean and spread of all features, which its layer and later ones were trained less"
            )
            rows = ("layer.weight", "layer.bias", *(("weight", "bias") if index < last else ()))
            sums = ("images", "feature_sum", "square_sum", "offsets", "spreads")
            traces.append(Trace(what, (*sums, *rows)))
        return traces

    def _layer(self, index: int) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k"]]:
        """Weight and bias of a task's layer, as views."""
        if index == len(self.sizes) - 1:
            assert self.layer is not None, "a task was started"
            return self.layer.weight, self.layer.bias
        first = sum(self.sizes[:index])
        rows = slice(first, first + self.sizes[index])
        return self.weight[rows], self.bias[rows]

    def _place(self, label: int) -> tuple[int, int]:
        """The task that a class is of, and its row in the task's layer."""
        for index, size in enumerate(self.sizes):
            if label < size:
                return index, label
            label -= size
        raise IndexError(f"there is no class {label}")

    def _sums(self, survey: Survey) -> tuple[Tensor, Tensor, Tensor]:
        """Number, sum and sum of squares of the features so far, with those of the survey."""
        features, _ = survey.features()
        return (
            self.get_buffer("images") + len(features),
            self.get_buffer("feature_sum") + features.sum(0),
            self.get_buffer("square_sum") + features.square().sum(0),
        )

    def _scores(
        self,
        features: Float[Tensor, "b d"],
        index: int,
        weight: Float[Tensor, "k d"],
        bias: Float[Tensor, "k"],
    ) -> Float[Tensor, "b k"]:
        if self._centred:
            features = (features - self.offsets[index]) / self.spreads[index]
        return nn.functional.linear(features, weight, bias)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take a state in, also one of before, which held the layer of every task by itself."""
        if f"{prefix}layers.0.weight" in state_dict:
            last = len(self.sizes) - 1
            for part in ("weight", "bias"):
                rows = [state_dict.pop(f"{prefix}layers.{i}.{part}") for i in range(last + 1)]
                state_dict[f"{prefix}layer.{part}"] = rows.pop()
                state_dict[prefix + part] = torch.cat(rows) if rows else getattr(self, part)
            for part in ("offset", "spread") if self._centred else ():
                values = [state_dict.pop(f"{prefix}layers.{i}.{part}") for i in range(last + 1)]
                state_dict[f"{prefix}{part}s"] = torch.stack(values)
        super()._load_from_state_dict(state_dict, prefix, *args)
