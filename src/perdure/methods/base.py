"""Method contract: additions to the backbone, loss, statistics, projection of updates."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from perdure.backbones.additions import Additions
from perdure.capabilities import Capability
from perdure.methods.guard import Guard
from perdure.methods.options import MethodConfig
from perdure.numerics.merge import merge
from perdure.traits import Read, Traits
from perdure.types import BackboneSpec, Features, Generators, Loss, Survey, Task, Trace


class Method(nn.Module, abc.ABC):
    """Method: learns additions to a frozen backbone, task after task.

    It holds only what it learns; the engine owns the backbone, the images and the heads. The number
    of tasks is never known in advance. What protects old features is a `Guard` that it may hold.

    Args:
        spec: description of the backbone.
        config: an instance of the class's ``Config``.
        generator: gives the generator of each parameter's initialisation.
    """

    traits: ClassVar[Traits]
    """Of a built-in method, these are in its declaration, in `perdure.methods.catalog`."""
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    checked_with: ClassVar[Mapping[str, Any]] = {}
    learning_only: ClassVar[tuple[str, ...]] = ()

    def __init__(self, spec: BackboneSpec, config: Any, generator: Generators) -> None:
        super().__init__()
        self.spec = spec
        self.config = config
        self.generator = generator
        self.guard: Guard | None = None
        nn.Module.register_state_dict_post_hook(self, _without_guard)
        nn.Module.register_load_state_dict_pre_hook(self, _with_guard)

    def start_task(self, task: Task) -> None:
        """Prepare for a task. The only place where shapes change; replayed on load."""

    def prepare(self, task: Task, survey: Survey) -> bool:
        """Initialise from data before a task's first step; tells whether it did. Not replayed."""
        return False

    @classmethod
    def rows_read(cls, config: Any, spec: BackboneSpec) -> frozenset[Read]:
        """Rows of the last block that the readout needs under these options."""
        return cls.traits.reads

    @classmethod
    def width(cls, config: Any, spec: BackboneSpec) -> int:
        """Length of the readout under these options."""
        return spec.dim

    @classmethod
    def needs(cls, config: Any) -> frozenset[Capability]:
        """Capabilities that the backbone must have under these options."""
        return frozenset({"features"}) if cls.traits.frozen_features else cls.traits.needs

    @classmethod
    def retrains(cls, config: Any) -> bool:
        """Whether a cumulative method starts anew after every task; else it trains once, at the end."""
        return False

    @property
    def first_block(self) -> int:
        """First block that the additions reach; the blocks before it are run once per image."""
        return 0

    def additions(self, query: Float[Tensor, "b d"] | None, task: Task | None) -> Additions:
        """Return the additions for these images; ``task`` is None at test time.

        Args:
            query: class-token features of the plain backbone, where ``traits.needs_query``.
            task: the task being trained.
        """
        return Additions()

    def nothing_added(self) -> Additions:
        """Return additions under which the readout is the plain backbone's, and so never moves."""
        return Additions()

    def image_prompts(
        self, query: Float[Tensor, "b d"] | None, count: int
    ) -> dict[str, Float[Tensor, "b p d"]]:
        """Return the prompts that each image gets, as a copy of its own, for `SensitivityGuard`.

        By name of the parameter that they are of or are summed from.

        Args:
            query: see `additions`.
            count: number b of images.

        Raises:
            NotImplementedError: no guard of this method asks for them.
        """
        raise NotImplementedError(f"{type(self).__name__} tells no prompts of single images")

    def additions_of(
        self, prompts: Mapping[str, Float[Tensor, "b p d"]], query: Float[Tensor, "b d"] | None
    ) -> Additions:
        """Return the test-time additions with these prompts, see `image_prompts`.

        Raises:
            NotImplementedError: no guard of this method asks for them.
        """
        raise NotImplementedError(f"{type(self).__name__} tells no prompts of single images")

    def oracle(self, query: Float[Tensor, "b d"] | None, task: Task) -> Additions:
        """Return the additions for test images whose task is known; for diagnosis alone.

        Only where ``traits.prompts_of_tasks``.

        Raises:
            NotImplementedError: prompts belong to no task.
        """
        raise NotImplementedError(f"the prompts of {type(self).__name__} belong to no task")

    def readout(self, features: Features) -> Float[Tensor, "b d"]:
        """Return the vector that the heads classify; the class token unless overridden."""
        assert features.cls is not None
        return features.cls

    def loss(
        self,
        logits: Float[Tensor, "b c"],
        features: Features,
        labels: Int[Tensor, "b"],
        task: Task,
    ) -> Loss:
        """Return the loss terms.

        Args:
            logits: scores of the current task's classes only.
            features: features of the forward.
            labels: positions within ``task.classes``.
            task: the task being trained.
        """
        held = self.guard.penalties(task) if self.guard is not None else {}
        return Loss(
            {"cross_entropy": F.cross_entropy(logits, labels), **features.penalties, **held}
        )

    def end_task(self, task: Task, survey: Survey) -> None:
        """End a task: update statistics. Must not change the additions."""
        if self.guard is not None:
            self.guard.end_task(task, survey)

    def merge(self, before: Mapping[str, Tensor], task: Task, exponent: float) -> None:
        """Keep less of what the task changed, see `perdure.numerics.merge`.

        Called before `end_task`, without gradients, from the second task on.

        Args:
            before: values, before the task, of the parameters that were there then, by name.
            task: that ends.
            exponent: a of ``merge``, above 0.
        """
        parameters = dict(self.named_parameters())
        for name, old in before.items():
            new = parameters[name]
            new.copy_(merge(old.to(new), new, task.index + 1, exponent))

    def traces(self, task: Task, later: int) -> list[Trace]:
        """Return what remains in the method of a class of this task that heads have forgotten.

        Args:
            task: the task that brought the class.
            later: number of tasks trained after it.
        """
        names = tuple(name for name, _ in self.named_parameters())
        kept = tuple(name for name in self.state_dict() if name not in names)
        trained = len(task.classes) > 1
        statistics = bool(kept and self.stores_statistics)
        found = []
        if names and (trained or (statistics and later)):
            found.append(Trace("prompts and keys, trained on images of it and others", names))
        if kept and statistics:
            what = f"what protects old tasks, with its images in it: {self.stores_statistics}"
            found.append(Trace(what, kept))
        elif kept and trained:
            found.append(Trace("prompts and keys that were trained so and are frozen now", kept))
        return found

    def project(self, name: str, delta: Tensor) -> Tensor:
        """Map an optimiser's update of the named parameter to the one applied; linear in delta."""
        return delta if self.guard is None else self.guard.project(self.get_parameter(name), delta)

    @property
    def stores_statistics(self) -> str:
        """Statistics kept of old images, in words: of the method and of an optional guard."""
        optional = self.guard.stores if self.guard is not None else ""
        return "; ".join(one for one in (self.traits.stores_statistics, optional) if one)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameters to optimise in the current task, with their learning rates."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return [{"params": parameters, "lr": lr}] if parameters else []


def _without_guard(method: Method, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let a guard's tensors stand among the method's own."""
    for name in [name for name in state if name.startswith(f"{prefix}guard.")]:
        state[prefix + name.removeprefix(f"{prefix}guard.")] = state.pop(name)


def _with_guard(method: Method, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Find a guard's tensors there again."""
    held = method.guard.state_dict() if method.guard is not None else {}
    for name in [name for name in held if prefix + name in state]:
        state[f"{prefix}guard.{name}"] = state.pop(prefix + name)
