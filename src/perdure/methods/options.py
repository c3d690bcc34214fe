"""Method options: configuration dataclasses of the built-in methods; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen, MultipleOf

from perdure.errors import ConfigError
from perdure.keys import Count, OpenFraction, Positive
from perdure.numerics.rank_rule import SHORTEST_SPECTRUM, RankRule

Above0 = Annotated[float, Gt(0)]
Weight = Annotated[float, Ge(0)]
Strength = Annotated[float, Ge(0), Le(1)]
Blocks = tuple[int, ...]
SomeBlocks = Annotated[tuple[int, ...], MinLen(1)]
FIRST_THREE = (0, 1, 2)
PROTECTION_STATISTICS = ("sensitivity_*", "use_*")
"""Tensors, as patterns of their names, that the guards of ``protect`` keep in any method."""
Vote = Literal["image", "batch"]
"""Whether every image takes the prompts of its own keys, or all those that most of the batch chose."""


@dataclass(frozen=True)
class MethodConfig:
    """Options of a method that has none.

    Ranges are part of a field's type, as in ``Annotated[float, Ge(0)]``.
    """

    def __post_init__(self) -> None:
        """Refuse options that do not go together; an override calls that of its base."""


@dataclass(frozen=True)
class LDAConfig(MethodConfig):
    """Options of heads in closed form on frozen features.

    Attributes:
        layers: class tokens of how many blocks, from the last on, are joined to one feature.
    """

    layers: Positive = 1


# --------------------------------------------------------------- prompts that join as keys and values


@dataclass(frozen=True)
class PromptConfig(MethodConfig):
    """Options shared by the methods whose prompts join a block's attention as keys and values.

    Attributes:
        prompt_length: prompt vectors per block (M).
        prompt_blocks: blocks that get prompts, -1 for the last.
    """

    prompt_length: Positive = 4
    prompt_blocks: Blocks = ()


@dataclass(frozen=True)
class DeepPromptConfig(PromptConfig):
    """Options of the VPT family, whose prompts are the same for every image.

    Attributes:
        prompt_blocks: blocks that get prompts, -1 for the last; empty for all.
        temperature: divisor of the training logits; prediction has none.
    """

    temperature: Above0 = 28.0


@dataclass(frozen=True)
class L2POptions(PromptConfig):
    """Options of L2P, whatever protects old features.

    Attributes:
        prompt_length: vectors per prompt.
        prompt_blocks: blocks whose attention gets the chosen prompts as keys and values, -1 for the
            last; empty: prompts join the input tokens (published).
        pool: prompts in the pool, each with a key.
        top_k: prompts per image.
        key_pull: weight of the pull of chosen keys to the query.
        vote: choice of prompts: ``image``: every image for itself; ``batch``: all take what most of
            the batch chose, as the published program does: breaks batch invariance.
    """

    prompt_length: Positive = 5
    pool: Positive = 10
    top_k: int = 5
    key_pull: Weight = 0.5
    vote: Vote = "image"

    def __post_init__(self) -> None:
        """Refuse more prompts per image than the pool holds."""
        super().__post_init__()
        _check_top_k(self.top_k, self.pool)


@dataclass(frozen=True)
class DeepL2PConfig(L2POptions):
    """Options of L2P with prompts inside blocks, where conditions on keys and values hold."""

    prompt_blocks: Blocks = FIRST_THREE

    def __post_init__(self) -> None:
        """Refuse prompts that join the input."""
        super().__post_init__()
        if not self.prompt_blocks:
            raise ConfigError(
                "prompt_blocks=[]: prompts that join the input travel through all blocks, and no "
                "condition holds for them. Name at least one block."
            )


# ----------------------------------------------------------------- what is done to keep old features


@dataclass(frozen=True)
class SequentialOptions(MethodConfig):
    """Options of training task after task, with nothing protected.

    Attributes:
        lr_after_first: factor on the prompts' learning rate after the first task that trains; 0.05
            is the control for the damping that the published projection brings with it.
    """

    lr_after_first: Weight = 1.0


@dataclass(frozen=True)
class ProtectOptions(MethodConfig):
    """Options of protection that a method can do with or without.

    Attributes:
        protect: what protects old features: ``none``, or ``sensitivity``: updates of prompts are
            slowed or stopped in directions that readouts of old images feel, to first order.
        protect_gram: form of what old readouts feel: ``right``: directions of the width D alone;
            ``kronecker``: and of the prompts of a block; ``full``: of both at once, the 512 most felt.
        protect_strength: c; a direction is slowed by 1/(1 + c λ/λ̄), λ what old readouts feel of it,
            λ̄ the mean over all directions.
        protect_keep: share of directions, the least felt, that updates may take, all others being
            stopped; none: they are slowed by ``protect_strength``.
        protect_metric: how changes of readouts are measured: ``within``: by the inverse within-class
            covariance; ``plain``: by their length.
    """

    protect: Literal["none", "sensitivity"] = "none"
    protect_gram: Literal["right", "kronecker", "full"] = "kronecker"
    protect_strength: Weight = 10.0
    protect_keep: OpenFraction | None = None
    protect_metric: Literal["within", "plain"] = "within"

    def __post_init__(self) -> None:
        """Refuse options of a protection that is not there."""
        super().__post_init__()
        own = ("protect_gram", "protect_strength", "protect_keep", "protect_metric")
        idle = {"none": own, "use": tuple(n for n in own if n != "protect_strength")}
        if self.protect_keep is not None:
            idle["sensitivity"] = ("protect_strength",)
        for name in idle.get(self.protect, ()):
            default = type(self).__dataclass_fields__[name].default
            if getattr(self, name) != default:
                beside = f" with protect_keep={self.protect_keep}" if self.protect_keep else ""
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} has no effect under protect="
                    f"{self.protect}{beside}. Leave it out, or add protect=sensitivity."
                )


@dataclass(frozen=True)
class JointOptions(MethodConfig):
    """Options of joint training.

    Attributes:
        train_after: when to train: ``last``: once, on everything, after the last task; ``each``:
            start anew after every task on the union so far, which fills the whole accuracy matrix.
    """

    train_after: Literal["last", "each"] = "last"


@dataclass(frozen=True)
class NullSpaceOptions(MethodConfig):
    """Options of every projection; the defaults follow NSP²'s released program at 10S-CIFAR-100.

    Attributes:
        eta1: strength of the projection over the prompts' dimensions, 1 full, 0 none (η₁).
        projector: form of the projector: ``damped`` divides Π by its Frobenius norm (published);
            ``orthogonal`` keeps Π.
        rank_rule: rule for the null space's dimension: ``reference`` (the program) or ``paper``
            (eq. 28).
        statistics: weights of images: ``sum`` (the program): mean Grams of batches of
            ``statistics_batch`` images are summed over all batches and tasks; ``mean``: average
            over all images of all tasks.
        statistics_batch: images per batch under ``sum``, in data set order.
    """

    eta1: Strength = 0.97
    projector: Literal["damped", "orthogonal"] = "damped"
    rank_rule: RankRule = "reference"
    statistics: Literal["sum", "mean"] = "sum"
    statistics_batch: Positive = 100


@dataclass(frozen=True)
class NSP2Options(NullSpaceOptions):
    """Options of NSP²'s conditions; the defaults follow the released program at 10S-CIFAR-100.

    Attributes:
        protect: what protects old features: ``null_space``: updates are projected into the null space
            of two conditions. Other protections, and none: method ``finetune`` (of a pool: ``l2p``).
        eta2: strength of the aggregation projection, over the prompts of a block (η₂).
        conditions: NSP²'s conditions: ``published`` without LayerNorm's scales, ``exact`` with
            them.
        ln_weight: weight of the LayerNorm-invariance term from the second task on (λ_LN).
        ln_terms: statistics of a prompt row in the LayerNorm term: ``both``, or ``std`` alone.
    """

    protect: Literal["null_space"] = "null_space"
    eta2: Strength = 0.97
    conditions: Literal["published", "exact"] = "published"
    ln_weight: Weight = 1.0
    ln_terms: Literal["both", "std"] = "both"

    def __post_init__(self) -> None:
        """Refuse too few prompts for the aggregation projection."""
        super().__post_init__()
        length: int = vars(self)["prompt_length"]  # of the prompts that are protected
        if self.eta2 > 0 and length < SHORTEST_SPECTRUM:
            raise ConfigError(
                f"prompt_length={length}: the aggregation projection finds its null "
                f"space at a knee and needs at least {SHORTEST_SPECTRUM} prompts; "
                f"set prompt_length={SHORTEST_SPECTRUM} or eta2=0."
            )


@dataclass(frozen=True)
class PGPOptions(NullSpaceOptions):
    """Options of prompt gradient projection.

    Attributes:
        protect: what protects old features: ``gradient_projection``: updates are orthogonal to old
            input tokens. Other protections, and none: method ``finetune`` (of a pool: ``l2p``).
        inputs: tokens X of the condition X ΔPᵀ = 0: the block's, ``before`` its norm1
            or ``after``.
    """

    protect: Literal["gradient_projection"] = "gradient_projection"
    inputs: Literal["before", "after"] = "before"


# ------------------------------------------------------------------------- both, under one method


@dataclass(frozen=True)
class FinetuneConfig(ProtectOptions, SequentialOptions, DeepPromptConfig):
    """Options of sequential tuning."""


@dataclass(frozen=True)
class L2PConfig(ProtectOptions, L2POptions):
    """Options of L2P."""


@dataclass(frozen=True)
class JointConfig(JointOptions, DeepPromptConfig):
    """Options of joint training."""


@dataclass(frozen=True)
class NSP2Config(NSP2Options, DeepPromptConfig):
    """Options of VPT-NSP²."""


@dataclass(frozen=True)
class PGPConfig(PGPOptions, DeepPromptConfig):
    """Options of VPT-PGP."""


@dataclass(frozen=True)
class L2PNSP2Config(NSP2Options, DeepL2PConfig):
    """Options of L2P-NSP²."""


@dataclass(frozen=True)
class L2PPGPConfig(PGPOptions, DeepL2PConfig):
    """Options of L2P-PGP."""


@dataclass(frozen=True)
class CLIPPromptOptions:
    """Options of prompts on CLIP.

    Attributes:
        prompt_blocks: blocks that get prompts, -1 for the last; the paper's three by default, the
            released program's four are [0, 1, 2, 3].
        temperature: divisor of the training logits, beside the head's own logit scale.
    """

    prompt_blocks: Blocks = FIRST_THREE
    temperature: Above0 = 1.0


@dataclass(frozen=True)
class CLIPNSP2Config(CLIPPromptOptions, NSP2Config):
    """Options of CLIP-NSP²."""

    eta1: Strength = 0.98
    eta2: Strength = 0.98


@dataclass(frozen=True)
class CLIPFinetuneConfig(CLIPPromptOptions, FinetuneConfig):
    """Options of CLIP-Seq."""


@dataclass(frozen=True)
class CLIPJointConfig(CLIPPromptOptions, JointConfig):
    """Options of joint training on CLIP."""


# ------------------------------------------------------------------------ prefixes, and token pools


@dataclass(frozen=True)
class DualPromptConfig(ProtectOptions):
    """Options of DualPrompt.

    Attributes:
        general_blocks: blocks that get the general prefix, -1 for the last.
        general_length: number of keys, and of values, of the general prefix per block.
        expert_blocks: blocks that get the expert prefix.
        expert_length: number of keys, and of values, of an expert prefix per block.
        key_pull: weight of the pull of the task's key to the query.
        vote: choice of expert at test time: ``image``: every image takes the expert of its own
            closest key; ``batch``: all take the one that most of the batch chose: breaks batch
            invariance.
    """

    general_blocks: Blocks = (0, 1)
    general_length: Positive = 5
    expert_blocks: SomeBlocks = (2, 3, 4)
    expert_length: Positive = 20
    key_pull: Weight = 1.0
    vote: Vote = "image"

    def __post_init__(self) -> None:
        """Refuse a protection of prompts that are not there."""
        super().__post_init__()
        if self.protect != "none" and not self.general_blocks:
            raise ConfigError(
                f"protect={self.protect} protects the general prefix, and general_blocks=[] leaves it "
                "out; experts are frozen anyway. Take protect=none."
            )


@dataclass(frozen=True)
class CodaPromptConfig(ProtectOptions):
    """Options of CODA-Prompt.

    Attributes:
        prompt_blocks: blocks that get a prefix, -1 for the last.
        components: components that every task adds per block.
        prompt_length: vectors per component, half of them keys and half of them values.
        orthogonality: weight of the penalty on components, keys and attention vectors.
    """

    prompt_blocks: SomeBlocks = (0, 1, 2, 3, 4)
    components: Positive = 10
    prompt_length: Annotated[int, Ge(2), MultipleOf(2)] = 8
    orthogonality: Weight = 0.1


@dataclass(frozen=True)
class IPromptConfig(ProtectOptions):
    """Options of I-Prompt; every one is a choice of this reconstruction (see its page).

    Attributes:
        prompt_blocks: blocks that have a pool, -1 for the last; empty for the middle third.
        protect: what protects old features: ``none``; ``sensitivity``: updates of prompts are slowed
            or stopped in directions that readouts of old images feel, to first order; ``use``: an
            entry's updates are divided by 1 + c u/ū, u how much old tokens used it.
        pool: size of the pool per block: keys, each with a prompt.
        pool_growth: entries that every later task adds to the pool, the older being frozen.
        pool_limit: size at which a pool stops growing; the entries that came last learn on.
        selection: prompts of a token: ``top1``: the prompt of the most similar key; ``topk``: the
            mean of the ``top_k`` most similar; ``soft``: all, weighted by the softmax of
            similarity/``softness``.
        top_k: prompts per token under ``topk``.
        softness: temperature of ``soft``.
        scale_by_similarity: whether a prompt is multiplied by its key's similarity.
        where: place of the addition: ``attention``: after the attention residual, before the MLP;
            ``mlp``: after it.
        target: tokens that get prompts: ``patches``, or ``cls``: the class token alone, matched by
            its own key.
        key_init: first keys: ``kmeans``: centres of the first task's token keys; ``random``.
        key_pull: weight of the pull of keys to the tokens that chose them.
        keys: keys after the first task: ``frozen``, or ``residual``: learn on.
        readout: vector that is classified: ``cls``, the weighted image ``tokens``, or
            ``cls+tokens``.
        token_weights: weights of the image tokens in the readout: the class token's ``attention``
            in the last block (``uniform`` where there is none), ``similarity`` to the matched keys,
            or ``uniform``.
    """

    protect: Literal["none", "sensitivity", "use"] = "none"  # type: ignore[assignment]
    prompt_blocks: Blocks = ()
    pool: Positive = 20
    pool_growth: Count = 0
    pool_limit: Positive = 100
    selection: Literal["top1", "topk", "soft"] = "top1"
    top_k: int = 5
    softness: Above0 = 0.1
    scale_by_similarity: bool = True
    where: Literal["attention", "mlp"] = "attention"
    target: Literal["patches", "cls"] = "patches"
    key_init: Literal["kmeans", "random"] = "kmeans"
    key_pull: Weight = 0.1
    keys: Literal["frozen", "residual"] = "frozen"
    readout: Literal["cls", "tokens", "cls+tokens"] = "cls+tokens"
    token_weights: Literal["attention", "similarity", "uniform"] = "attention"

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        super().__post_init__()
        if self.selection == "topk":
            _check_top_k(self.top_k, self.pool)
        if self.pool_growth and self.pool_limit <= self.pool:
            raise ConfigError(
                f"pool_limit={self.pool_limit}: a pool of {self.pool} could not grow. Take more than "
                f"pool={self.pool}, or leave pool_growth out."
            )
        if self.pool_growth and self.protect != "none":
            raise ConfigError(
                f"pool_growth={self.pool_growth}, protect={self.protect}: of new entries nothing is "
                "known yet, and they draw old tokens away whatever is protected. Choose one of the two."
            )
        if self.target == "cls" and self.token_weights == "similarity":
            raise ConfigError(
                "token_weights='similarity' weighs patches by their own match, but target='cls' "
                "matches the class token alone. Take token_weights=attention or uniform."
            )


def _check_top_k(top_k: int, pool: int) -> None:
    if not 1 <= top_k <= pool:
        raise ConfigError(f"top_k={top_k}: it must lie in 1 to {pool}, the size of the pool.")
