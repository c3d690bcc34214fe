"""The contract of a head: it classifies features and grows with classes."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor, nn

from perdure.registry import Declaration, Registry
from perdure.types import BackboneSpec, Generators, Survey, Task, Trace


@dataclass(frozen=True)
class HeadConfig:
    """What a user may set of the heads.

    Attributes:
        head_init: ``reference``: as NSP²'s released program, the second task's linear head continues
            from the first's weights when both have equally many classes; ``fresh``: each head starts
            from its own default initialisation.
        head_inputs: what the linear heads score: ``features`` as they are (the papers), or
            ``centred``: less the mean of the first task's training features before training, over
            their spread. Features share a large offset; without it the layers of small tasks learn
            in few steps, and their scores compare.
        shrinkage: of the Gaussian head's covariance: ``analytic`` (oracle-approximating) or
            ``validation`` (chosen on the current task's validation split).
        class_embeddings: what stands for a class in the heads ``language`` and ``zero_shot``:
            ``text``, or ``mean``: the mean image of the class under the plain backbone (ours).
        text_features: where texts come from: a text tower of open_clip as ``MODEL/TAG``, or a
            ``.safetensors`` file with one vector per class under the class's name.
        templates: the captions that a text tower gets for every class.
        refine_epochs: passes over drawn features that refine the image projection of ``language``
            after every task; 0 for none, and then nothing is stored of old images.
    """

    head_init: Literal["reference", "fresh"] = "reference"
    head_inputs: Literal["features", "centred"] = "features"
    shrinkage: Literal["analytic", "validation"] = "analytic"
    class_embeddings: Literal["text", "mean"] = "text"
    text_features: str = "ViT-B-16/openai"
    templates: str = "photo"
    refine_epochs: Annotated[int, Ge(0)] = 50


class Head(nn.Module, abc.ABC):
    """Classifies features of all classes seen so far.

    Args:
        spec: the backbone whose features it classifies.
        config: the heads' options.
        generator: gives the generator of each initialisation.

    Attributes:
        closed_form: whether it is fitted to a task without gradients, so that one class is enough.
        needs_projection: whether it needs the backbone's own image projection.
        learning_only: tensors of its state, as patterns of their names, that prediction never reads:
            a model saved for inference only is without them.
    """

    closed_form: ClassVar[bool]
    needs_projection: ClassVar[bool] = False
    learning_only: ClassVar[tuple[str, ...]] = ()

    def __init__(self, spec: BackboneSpec, config: HeadConfig, generator: Generators) -> None:
        super().__init__()
        self.dim = spec.dim
        self.config = config
        self.generator = generator

    @property
    def stores_statistics(self) -> str:
        """What it keeps of old images, in words; empty for nothing, or where traits tell it."""
        return ""

    @abc.abstractmethod
    def start_task(self, task: Task) -> None:
        """Grow by the task's classes. The only place where shapes change; replayed on load."""

    def prepare(self, task: Task, survey: Survey) -> bool:
        """Initialise from data before a task's first step; tells whether it did. Not replayed."""
        return False

    @abc.abstractmethod
    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Score every class seen so far, in order of arrival."""

    @abc.abstractmethod
    def end_task(self, task: Task, survey: Survey) -> None:
        """Take in the finished task, where the head is fitted in closed form."""

    @abc.abstractmethod
    def refuses(self, labels: Sequence[int]) -> str:
        """Say why more images of these classes cannot be taken in; empty where they can."""

    def take_in(self, features: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> None:
        """Take in more images of classes that the head knows, as if they had been there before.

        Only where `refuses` has nothing to say.

        Args:
            features: readouts, one row per image.
            labels: classes in order of arrival.
        """
        raise NotImplementedError(f"{type(self).__name__} takes in no more images")

    @abc.abstractmethod
    def forget(self, label: int) -> list[Trace]:
        """Overwrite what is held of a class alone, and say what of it stays in the rest.

        Its output stays, so that those of other classes keep their places; what it says means
        nothing any more.

        Args:
            label: position of the class in order of arrival.
        """


class TrainedHead(Head):
    """A head that methods train under, on the classes of the current task alone.

    Attributes:
        learned: what a task trains of it, in words.
    """

    closed_form: ClassVar[bool] = False
    learned: ClassVar[str]

    def refuses(self, labels: Sequence[int]) -> str:
        """It is trained, not fitted."""
        return "it is trained on a task's images together, and they are gone"

    @abc.abstractmethod
    def task_logits(self, features: Float[Tensor, "b d"], task: Task) -> Float[Tensor, "b k"]:
        """Score one task's classes only; what training minimises the loss of."""

    @abc.abstractmethod
    def trained(self, task: Task) -> nn.Module:
        """The part that the task trains along with the method."""


HEADS: Registry[type[Head], Declaration] = Registry("head", Declaration)
