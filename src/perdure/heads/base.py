"""Head contract: a classifier of features that grows with the classes."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from perdure.heads.config import HeadOptions, StatisticsConfig
from perdure.numerics.evidence import Evidence
from perdure.numerics.feature_drift import FeatureDrift
from perdure.numerics.gaussians import views_of
from perdure.types import BackboneSpec, Generators, Survey, Task, Trace


class Head(nn.Module, abc.ABC):
    """Head: a classifier of features over all classes seen so far.

    Args:
        spec: the backbone whose features it classifies.
        config: an instance of the class's ``Config``.
        generator: gives the generator of each initialisation.

    Attributes:
        Config: its options; of a built-in head this and the next four are in its declaration, see
            `HeadDeclaration`.
        closed_form: whether it is fitted to a task without gradients, so that one class is enough.
        needs_projection: whether it needs the backbone's own image projection.
        recipe: of a trained head, keys of a run that suit small data.
        learning_only: tensors of its state, as patterns of their names, that prediction never reads:
            a model saved for inference only is without them.
        fixed: options under which it chooses nothing by its data.
        sized_by_images: tensors of its state, as patterns, whose sizes depend on how many images it
            has taken in; where it is loaded, it takes their sizes over.
    """

    Config: ClassVar[type[HeadOptions]] = HeadOptions
    closed_form: ClassVar[bool] = True
    needs_projection: ClassVar[bool] = False
    recipe: ClassVar[Mapping[str, Any]] = {}
    learning_only: ClassVar[tuple[str, ...]] = ()
    fixed: ClassVar[Mapping[str, Any]] = {}
    sized_by_images: ClassVar[tuple[str, ...]] = ()

    def __init__(self, spec: BackboneSpec, config: Any, generator: Generators) -> None:
        super().__init__()
        self.dim = spec.dim
        self.config = config
        self.generator = generator

    @property
    def stores_statistics(self) -> str:
        """What it keeps of old images, in words; empty for nothing, or where traits tell it."""
        return ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said of what it chose by its data, each in a sentence's words."""
        return ()

    @abc.abstractmethod
    def start_task(self, task: Task) -> None:
        """Grow by the task's classes. The only place where shapes change; replayed on load."""

    def prepare(self, task: Task, survey: Survey) -> bool:
        """Initialise from data before a task's first step; tells whether it did. Not replayed."""
        return False

    def space(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Features as its statistics hold them: a map that moves these is fitted here."""
        return features

    @abc.abstractmethod
    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Score every class seen so far, in order of arrival."""

    @abc.abstractmethod
    def end_task(self, task: Task, survey: Survey) -> None:
        """Take in the finished task, where the head is fitted in closed form."""

    @property
    def drift(self) -> str:
        """How its statistics follow the features: its option ``drift``, ``none`` where it has none."""
        return self.config.drift if isinstance(self.config, StatisticsConfig) else "none"

    def follow(self, drift: FeatureDrift) -> None:
        """Move what is kept of the first ``drift.known`` labels, as the features have moved.

        Called right before `end_task`, on heads whose ``drift`` is not ``none``. Rows of forgotten
        classes stay zero.

        Args:
            drift: of the task that ends; `FeatureDrift.moved` gives the moments as they are now.
        """
        raise NotImplementedError(f"{type(self).__name__} has the option drift, but cannot follow")

    def refuses(self, labels: Sequence[int]) -> str:
        """Return why more images of these classes cannot be taken in; empty where they can."""
        return "it takes in the images of a class together, when the class is new"

    def take_in(self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]) -> None:
        """Take in more images of classes that the head knows, as if they had been there before.

        Only where `refuses` has nothing to say.

        Args:
            features: readouts, one row per image, or one per view of each; see `taught`.
            labels: classes in order of arrival.
        """
        raise NotImplementedError(f"{type(self).__name__} takes in no more images")

    @property
    def mirrored(self) -> bool:
        """Whether it is taught mirror images, too: its option ``mirrored``."""
        return bool(getattr(self.config, "mirrored", False))

    def taught(self, features: Float[Tensor, "n *v d"]) -> Float[Tensor, "n *w d"]:
        """Return what it learns of images that it is given: all views if `mirrored`, else the plain."""
        return features if self.mirrored else views_of(features)[:, 0]

    @property
    def leaves_out(self) -> bool:
        """Whether it can answer images that it took in as if it had not: `scores_left_out`."""
        return type(self).scores_left_out is not Head.scores_left_out

    def scores_left_out(
        self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]
    ) -> tuple[Bool[Tensor, "n"], Float[Tensor, "j c"]]:
        """Score images that it took in, each as if it had taken in all others only.

        What it chose by its data stays as it is. Only where `leaves_out`, and as long as their
        features are as they were.

        Args:
            features: readouts as they were taken in; of several views the first is scored.
            labels: classes in order of arrival.

        Returns:
            Which images have such an answer (those whose class has another image), and their
            scores, otherwise as from `logits`, up to a number that all classes share.
        """
        raise NotImplementedError(f"{type(self).__name__} leaves no image out")

    def class_means(self) -> Float[Tensor, "c d"] | None:
        """Mean features of the classes that it knows; None where it has none of plain features."""
        return None

    @property
    def leaves_class_out(self) -> bool:
        """Whether `evidence_class_left_out` is what a head without the class would say."""
        return True

    def evidence(self, features: Float[Tensor, "n d"]) -> Evidence:
        """What says whether images are of any class that it knows."""
        return Evidence(self.logits(features), whole=True)

    def evidence_left_out(
        self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]
    ) -> tuple[Bool[Tensor, "n"], Evidence]:
        """Evidence of images that it took in, each as if it had taken in all others only.

        As `scores_left_out`, which says which images have such an answer.
        """
        judged, scores = self.scores_left_out(features, labels)
        return judged, Evidence(scores, whole=True)

    def evidence_class_left_out(
        self, features: Float[Tensor, "n *v d"], labels: Int[Tensor, "n"]
    ) -> Evidence:
        """Evidence of images of one class that it took in, as if it had taken in none of them.

        The scores of the class itself mean nothing. What a head knows of a class is its output
        alone, unless it says otherwise here.

        Args:
            features: readouts of the class's images at hand, as they were taken in.
            labels: labels of the class, one per image.
        """
        return self.evidence(views_of(features)[:, 0])

    def forget(self, label: int) -> list[Trace]:
        """Overwrite the class's own tensors, and return what of it remains in shared ones.

        Its output stays, so that those of other classes keep their places; what it says means
        nothing any more. A head that has no such method of its own overwrites nothing.

        Args:
            label: position of the class in order of arrival.
        """
        return [
            Trace("all that the head holds: it cannot take a class out", tuple(self.state_dict()))
        ]


class TrainedHead(Head):
    """Head under which methods train, on the classes of the current task alone.

    Attributes:
        learned: what a task trains of it, in words.
    """

    closed_form: ClassVar[bool] = False
    learned: ClassVar[str]

    def refuses(self, labels: Sequence[int]) -> str:
        """Refuse: the head is trained, not fitted."""
        return "it is trained on a task's images together, and they are gone"

    @abc.abstractmethod
    def task_logits(self, features: Float[Tensor, "b d"], task: Task) -> Float[Tensor, "b k"]:
        """Score one task's classes only; what training minimises the loss of."""

    @abc.abstractmethod
    def trained(self, task: Task) -> nn.Module:
        """Part of the head that the task trains along with the method."""


def set_known_means(means: Float[Tensor, "c d"], moved: Float[Tensor, "k d"]) -> None:
    """Set the first rows to moved ones, but those of forgotten classes, which are zero."""
    known = means[: len(moved)]
    known.copy_(torch.where(known.any(dim=1, keepdim=True), moved.to(known), 0))
