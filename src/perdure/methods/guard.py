"""Guard contract: protection of old features while a method's prompts learn on."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from perdure.types import Survey, Task


class Guard(nn.Module, abc.ABC):
    """Guard: protects the features of earlier tasks; a method holds one.

    In the method's state, its tensors stand among the method's own, under the names they have here.
    """

    stores: ClassVar[str] = ""
    """Statistics that it keeps of old images, in words; empty where the method's traits name them."""

    @abc.abstractmethod
    def end_task(self, task: Task, survey: Survey) -> None:
        """Take in what must be kept of the finished task."""

    def penalties(self, task: Task) -> Mapping[str, Float[Tensor, ""]]:
        """Terms of the loss that hold old features where they are."""
        return {}

    def project(self, parameter: nn.Parameter, delta: Tensor) -> Tensor:
        """Map an optimiser's update to one that spares old features; linear in ``delta``."""
        return delta
