"""Model: frozen backbone, method and heads, and the tasks they have learned."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from perdure.backbones.additions import Additions
from perdure.backbones.convert import not_finite
from perdure.backbones.frozen import FrozenBackbone, exact_device
from perdure.capabilities import CAPABILITIES, Capability
from perdure.engine.anchors import Anchors
from perdure.engine.config import Config
from perdure.engine.ranks import ALONE, Ranks
from perdure.errors import BackboneError, CheckpointError, ConfigError
from perdure.heads import HEADS, Head, TrainedHead
from perdure.methods import METHODS, Method
from perdure.randomness import generator
from perdure.types import BackboneSpec, CachedTokens, Features, Loss, Observer, Survey, Task


def check_backbone(spec: BackboneSpec, method: type[Method], config: Config) -> None:
    """Check that the method can work on a backbone.

    Raises:
        BackboneError: the reason, by name.
    """
    name = config.training.method
    if missing := sorted(method.needs(config.method) & spec.lacks.keys()):
        raise BackboneError(f"Method '{name}' {_lacking(missing[0], spec)}")
    guided = [
        head
        for head, choice in config.built_heads.items()
        if HEADS.declared[choice.kind].needs_projection
    ]
    if guided and spec.projection is None:
        raise BackboneError(f"Head '{guided[0]}' of method '{name}' {_lacking('projection', spec)}")


def _lacking(capability: Capability, spec: BackboneSpec) -> str:
    """Say what is missing, why, where it is, and what would run here."""
    entry = CAPABILITIES[capability]
    able = [
        name
        for name, declared in METHODS.declared.items()
        if not METHODS[name].needs(declared.Config()) & spec.lacks.keys()
        and not any(HEADS.declared[head].needs_projection for head in declared.traits.heads)
    ]
    return (
        f"needs {capability}, {entry.meaning}, which '{spec.name}' lacks: "
        f"{spec.lacks[capability]}. Backbones that have it: {', '.join(entry.examples)}. "
        f"Methods that run on '{spec.name}': {', '.join(able)}."
    )


def check_text(task: Task, backbone: FrozenBackbone, config: Config) -> None:
    """Check that text features fit the backbone's image projection.

    Raises:
        ConfigError: the task has none although a head needs them, or they are of another width.
    """
    if not config.needs_text:
        return
    if task.text_features is None:
        raise ConfigError(
            "class_embeddings='text', but the stream's tasks carry no text features. Attach them "
            "with perdure.engine.build.with_text, or take class_embeddings=mean."
        )
    assert backbone.spec.projection is not None, "check_backbone has seen to it"
    ours, theirs = len(backbone.spec.projection[0]), task.text_features.shape[1]
    if ours != theirs:
        raise ConfigError(
            f"text_features={config.heads.text_features!r}: these vectors have {theirs} numbers, "
            f"but the image projection of '{backbone.name}' gives {ours}. Name the text tower that "
            "was trained with this backbone, or take class_embeddings=mean."
        )


class Model:
    """Backbone, method and heads, with the tasks they have learned.

    Training happens under the head that the method's traits name; the heads that predict may be
    others.

    Args:
        backbone: shared, frozen, owned by the caller.
        config: names method and heads and their options.
        ranks: the processes that learn it together.

    Attributes:
        anchors: class moments in the plain backbone's features, where a head follows by them.
        inference_only: whether it came back without what only learning reads, and cannot learn on.
    """

    def __init__(self, backbone: FrozenBackbone, config: Config, ranks: Ranks = ALONE) -> None:
        cls = config.method_class
        check_backbone(backbone.spec, cls, config)
        self.backbone = backbone
        self.config = config
        self.ranks = ranks
        self._read = cls.rows_read(config.method, backbone.spec)
        # No method of ours: a copy of a head would hold a copy of everything here.
        self._random = functools.partial(generator, config.training.seed, "init")
        self.method = cls(backbone.spec, config.method, self._random).to(backbone.device)
        self.heads: dict[str, Head] = {name: self.new_head(name) for name in config.built_heads}
        moves = cls.traits.trains and not cls.traits.frozen_features
        anchored = moves and any(
            self.heads[head].drift in ("anchored", "mixed") for head in config.head_names
        )
        self.anchors = Anchors(backbone.spec.dim).to(backbone.device) if anchored else None
        self.tasks: list[Task] = []
        self.inference_only = False

    def new_head(self, name: str) -> Head:
        """Return an evaluated or trained head of the configuration that has learned nothing."""
        choice, spec = self.config.built_heads[name], replace(self.backbone.spec, dim=self.width)
        return HEADS[choice.kind](spec, choice.options(self.config.heads), self._random)

    @property
    def width(self) -> int:
        """Length of the readouts that heads are given."""
        return self.method.width(self.config.method, self.backbone.spec)

    def copy(self) -> Model:
        """Return a copy with its own tensors; the backbone is shared."""
        spec = self.backbone.spec
        shared = {id(thing): thing for thing in (spec, spec.projection)}
        twin = copy.copy(self)
        twin.method = copy.deepcopy(self.method, dict(shared))
        twin.heads = {name: copy.deepcopy(h, dict(shared)) for name, h in self.heads.items()}
        twin.anchors = copy.deepcopy(self.anchors)
        twin.tasks = list(self.tasks)
        return twin

    @property
    def survey_backbone(self) -> FrozenBackbone:
        """The backbone that surveys compute with, as ``survey_precision`` says.

        ``auto`` is float32 where a head follows drift: between two tasks features move by less than
        bf16 rounds them, and a map would be fitted to roundings.
        """
        wanted = self.config.runtime.survey_precision
        follows = any(self.heads[name].drift != "none" for name in self.config.head_names)
        fp32 = wanted == "fp32" or (wanted == "auto" and follows)
        return self.backbone.float32 if fp32 else self.backbone

    @property
    def trained_head(self) -> TrainedHead | None:
        """The head whose loss training minimises; None where nothing is trained."""
        if not self.method.traits.trains:
            return None
        return next((head for head in self.heads.values() if isinstance(head, TrainedHead)), None)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Class name of every label; a class has a label per domain."""
        return tuple(itertools.chain.from_iterable(task.names for task in self.tasks))

    def check_can_learn(self) -> None:
        """Refuse to train a model that was saved for inference only.

        Raises:
            CheckpointError: the model was saved for inference only.
        """
        if self.inference_only:
            raise CheckpointError(
                "This model was saved for inference only: what learning on needs was left out. Go on "
                "with the complete model it was made from, saved without inference_only."
            )

    def adapted(self, task: Task | None = None) -> bool:
        """Whether prompts are fixed: by ``adapt = first``, once a task of several classes trained them.

        Args:
            task: one that was started or is about to be, and is not counted; None counts all.
        """
        if self.config.training.adapt == "all" or not self.method.traits.trains:
            return False
        earlier = self.tasks if task is None else self.tasks[: task.index]
        return any(len(one.classes) > 1 for one in earlier)

    def features_fixed(self, task: Task | None = None) -> bool:
        """Whether features stay as they are: nothing is added to the backbone, or `adapted`."""
        return self.method.traits.frozen_features or self.adapted(task)

    @property
    def mirrored(self) -> bool:
        """Whether an evaluated head is taught mirror images, too."""
        return any(self.heads[name].mirrored for name in self.config.head_names)

    def start_task(self, task: Task) -> None:
        """Start a task: heads grow, and the method where its prompts go on learning.

        Raises:
            CheckpointError: the model was saved for inference only.
        """
        self.check_can_learn()
        if not self.adapted(task):
            self.method.start_task(task)
        _settle(self.method, self.backbone.device)
        for head in self.heads.values():
            head.start_task(task)
            _settle(head, exact_device(self.backbone.device))
        if self.anchors is not None:
            self.anchors.start_task(task)
        self.tasks.append(task)

    def prepare(self, task: Task, survey: Survey) -> bool:
        """Initialise method and heads from data; tells whether any did."""
        parts: list[Method | Head] = [self.method, *self.heads.values()]
        parts = parts[1:] if self.adapted(task) else parts
        return any([part.prepare(task, survey) for part in parts])  # noqa: C419  each is to run

    def task_layer(self, task: Task) -> nn.Module | None:
        """The trained head's part for the current task."""
        return self.trained_head.trained(task) if self.trained_head is not None else None

    def query(
        self, images: UInt8[Tensor, "b 3 s s"] | CachedTokens, survey: bool = False
    ) -> Float[Tensor, "b d"] | None:
        """Class tokens of the plain backbone, where the method asks for them; they never change.

        Args:
            images: pixels, 0 to 255, or tokens cached at a block.
            survey: compute as surveys do.
        """
        return self.plain(images, survey).cls if self.method.traits.needs_query else None

    @torch.no_grad()
    def plain(
        self, images: UInt8[Tensor, "b 3 s s"] | CachedTokens, survey: bool = False
    ) -> Features:
        """Features of the plain backbone: the class token.

        Args:
            images: pixels, 0 to 255, or tokens cached at a block.
            survey: compute as surveys do.
        """
        backbone = self.survey_backbone if survey else self.backbone
        return backbone(images if isinstance(images, CachedTokens) else backbone.normalise(images))

    def forward(
        self,
        images: UInt8[Tensor, "b 3 s s"] | CachedTokens,
        task: Task | None = None,
        observer: Observer | None = None,
        float32: bool = False,
        survey: bool = False,
        query: Float[Tensor, "b d"] | None = None,
        oracle: Task | None = None,
        additions: Additions | None = None,
    ) -> tuple[Float[Tensor, "b d"], Features]:
        """Run the backbone with the method's additions.

        Args:
            images: pixels, 0 to 255, or tokens cached at a block.
            task: the task being trained, None at test time.
            observer: for surveys.
            float32: compute in float32 whatever the run's precision.
            survey: compute as surveys do.
            query: the plain backbone's class tokens of these images where they are known already.
            oracle: the images' true task, for a diagnosis; never given to predict.
            additions: the method's, where they are worked out already.

        Returns:
            The readout that heads classify, and all features read.
        """
        backbone = self.backbone.float32 if float32 else self.backbone
        backbone = self.survey_backbone if survey else backbone
        pixels = images if isinstance(images, CachedTokens) else backbone.normalise(images)
        if additions is None:
            if query is None and self.method.traits.needs_query:
                with torch.no_grad():
                    query = backbone(pixels).cls
            if oracle is None:
                additions = self.method.additions(query, task)
            else:
                additions = self.method.oracle(query, oracle)
        features = backbone(pixels, additions, self._read, observer)
        # Statistics and heads compute in float64.
        return self.method.readout(features).to(exact_device(backbone.device)), features

    def training_loss(
        self,
        images: UInt8[Tensor, "b 3 s s"] | CachedTokens | None,
        labels: Int[Tensor, "b"],
        task: Task,
        readout: Float[Tensor, "b d"] | None = None,
        query: Float[Tensor, "b d"] | None = None,
    ) -> Loss:
        """Compute the method's loss on a batch of the current task.

        Args:
            images: pixels, 0 to 255, or tokens cached at a block; None where the readout
                is known.
            labels: classes in order of arrival.
            task: the task being trained.
            readout: frozen features of these images where they are known already.
            query: class tokens of these images under the plain backbone, where known already.
        """
        head = self.trained_head
        assert head is not None, "a method that trains has a head to train under"
        features = Features()
        if readout is None:
            assert images is not None, "without a readout there is something to compute it from"
            fixed = self.adapted(task)
            with torch.set_grad_enabled(not fixed):
                readout, features = self.forward(images, None if fixed else task, query=query)
        local = labels.to(readout.device) - task.classes[0]
        return self.method.loss(head.task_logits(readout, task), features, local, task)

    @torch.no_grad()
    def logits(
        self,
        images: UInt8[Tensor, "b 3 s s"],
        heads: Sequence[str] | None = None,
    ) -> dict[str, Float[Tensor, "b c"]]:
        """Score all labels so far; the task is not given.

        Args:
            images: pixels, 0 to 255.
            heads: evaluated heads to score under; all of them by default.
        """
        return self.head_logits(self.forward(images)[0], heads)

    @torch.no_grad()
    def head_logits(
        self, readout: Float[Tensor, "b d"], heads: Sequence[str] | None = None
    ) -> dict[str, Float[Tensor, "b c"]]:
        """Score readouts under these evaluated heads; under all of them by default."""
        names = self.config.head_names if heads is None else heads
        return {name: self.heads[name].logits(readout) for name in names}

    @property
    def learning_only(self) -> frozenset[str]:
        """Names of the tensors that prediction never reads; see `Config.learning_only`."""
        names = [prefix + name for prefix, part in self._parts() for name in part.state_dict()]
        return self.config.learning_only(names)

    def state(self) -> dict[str, Tensor]:
        """Return all learned tensors and statistics by name, without the backbone."""
        found = {
            prefix + k: v for prefix, part in self._parts() for k, v in part.state_dict().items()
        }
        left_out = self.learning_only if self.inference_only else frozenset()
        return {k: v for k, v in found.items() if k not in left_out}

    def load(self, state: Mapping[str, Tensor], *, inference_only: bool = False) -> None:
        """Load a state returned by `state`, after the same tasks were started.

        Args:
            state: by name.
            inference_only: whether it is without the tensors that only learning reads. They are
                emptied here, so that nothing can compute with what was never learned.

        Raises:
            CheckpointError: a tensor is missing, of another shape or not known, or holds numbers
                that are not finite.
        """
        if broken := not_finite(state):
            raise CheckpointError(
                f"The saved state holds NaN or infinity in {broken}: nothing it predicts would mean "
                "anything. Take it from a backup, or train again."
            )
        left_out = self.learning_only if inference_only else frozenset()
        taken = 0
        for prefix, part in self._parts():
            own = {
                k.removeprefix(prefix): v
                for k, v in state.items()
                if k.startswith(prefix) and k not in left_out
            }
            taken += len(own)
            for name, value in part.state_dict(keep_vars=True).items():
                if prefix + name in left_out:
                    value.data = own[name] = value.new_empty(0)
            try:
                part.load_state_dict(own, strict=True)
            except RuntimeError as error:
                raise CheckpointError(
                    f"The saved {prefix.rstrip('.')} does not fit: {error}"
                ) from None
        if taken != len(state):
            raise CheckpointError(f"{len(state) - taken} saved tensors belong to nothing here.")
        self.inference_only = inference_only

    def _parts(self) -> Iterator[tuple[str, nn.Module]]:
        """Return method and heads by the prefix of their tensors' names."""
        yield "method.", self.method
        for name, head in self.heads.items():
            yield f"heads.{name}.", head
        if self.anchors is not None:
            yield "anchors.", self.anchors


def _settle(part: nn.Module, device: torch.device) -> None:
    """Move what is not on a device there; asking first is cheaper where a task has added little."""
    if any(one.device != device for one in itertools.chain(part.parameters(), part.buffers())):
        part.to(device)
