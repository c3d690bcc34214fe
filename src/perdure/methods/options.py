"""Options of the built-in methods; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perdure.errors import ConfigError
from perdure.numerics.rank_rule import SHORTEST_SPECTRUM, RankRule

Vote = Literal["image", "batch"]

FIRST_THREE = (0, 1, 2)


@dataclass(frozen=True)
class MethodConfig:
    """Options of a method that has none."""

    def __post_init__(self) -> None:
        """Refuse values that make no sense; every class calls the next one's."""


@dataclass(frozen=True)
class PromptConfig(MethodConfig):
    """Options shared by the methods whose prompts join a block's attention as keys and values.

    Attributes:
        prompt_length: prompt vectors per block (M).
        prompt_blocks: blocks that get prompts, -1 for the last.
    """

    prompt_length: int = 4
    prompt_blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: prompt_length below 1.
        """
        super().__post_init__()
        if self.prompt_length < 1:
            raise ConfigError(f"prompt_length={self.prompt_length}: it must be 1 or more.")


@dataclass(frozen=True)
class DeepPromptConfig(PromptConfig):
    """Options of the VPT family, whose prompts are the same for every image.

    Attributes:
        prompt_blocks: blocks that get prompts, -1 for the last; empty for all.
        temperature: the training logits are divided by it; prediction has none.
    """

    temperature: float = 28.0

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: a temperature that is not positive.
        """
        super().__post_init__()
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature}: it must be above 0.")


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


@dataclass(frozen=True)
class JointConfig(DeepPromptConfig):
    """Options of joint training.

    Attributes:
        train_after: ``last``: train once, on everything, after the last task; ``each``: start anew
            after every task on the union so far, which fills the whole accuracy matrix.
    """

    train_after: Literal["last", "each"] = "last"


@dataclass(frozen=True)
class NullSpaceConfig(PromptConfig):
    """Options of every projection; the defaults follow NSP²'s released program at 10S-CIFAR-100.

    Attributes:
        eta1: strength of the projection over the prompts' dimensions, 1 full, 0 none (η₁).
        projector: ``damped`` divides Π by its Frobenius norm (published); ``orthogonal`` keeps Π.
        rank_rule: where the null space begins: ``reference`` (the program) or ``paper`` (eq. 28).
        statistics: ``sum``: batches of ``statistics_batch`` images add their means, over all tasks;
            ``mean``: the plain mean over all images of all tasks.
        statistics_batch: images per batch under ``sum``, in data set order.
    """

    eta1: float = 0.97
    projector: Literal["damped", "orthogonal"] = "damped"
    rank_rule: RankRule = "reference"
    statistics: Literal["sum", "mean"] = "sum"
    statistics_batch: int = 100

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: a strength outside [0, 1], or a batch without images.
        """
        super().__post_init__()
        if not 0 <= self.eta1 <= 1:
            raise ConfigError(f"eta1={self.eta1}: it must lie in 0 to 1.")
        if self.statistics_batch < 1:
            raise ConfigError(f"statistics_batch={self.statistics_batch}: it must be 1 or more.")


@dataclass(frozen=True)
class NSP2Options(NullSpaceConfig):
    """Options of NSP²'s conditions; the defaults follow the released program at 10S-CIFAR-100.

    Attributes:
        eta2: strength of the aggregation projection, over the prompts of a block (η₂).
        conditions: ``published`` drops the LayerNorm scales from both conditions; ``exact`` keeps them.
        ln_weight: weight of the LayerNorm-invariance term from the second task on (λ_LN).
        ln_terms: which statistics of a prompt row it holds: ``both``, or ``std`` alone.
    """

    eta2: float = 0.97
    conditions: Literal["published", "exact"] = "published"
    ln_weight: float = 1.0
    ln_terms: Literal["both", "std"] = "both"

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: a strength outside [0, 1], a negative weight, or too few prompts for a knee.
        """
        super().__post_init__()
        if not 0 <= self.eta2 <= 1:
            raise ConfigError(f"eta2={self.eta2}: it must lie in 0 to 1.")
        if not self.ln_weight >= 0:
            raise ConfigError(f"ln_weight={self.ln_weight}: it must be 0 or more.")
        if self.eta2 > 0 and self.prompt_length < SHORTEST_SPECTRUM:
            raise ConfigError(
                f"prompt_length={self.prompt_length}: the aggregation projection finds its null "
                f"space at a knee and needs at least {SHORTEST_SPECTRUM} prompts; "
                f"set prompt_length={SHORTEST_SPECTRUM} or eta2=0."
            )


@dataclass(frozen=True)
class NSP2Config(NSP2Options, DeepPromptConfig):
    """Options of VPT-NSP²."""


@dataclass(frozen=True)
class PGPOptions(NullSpaceConfig):
    """Options of prompt gradient projection.

    Attributes:
        inputs: which tokens X the condition X ΔPᵀ = 0 speaks of: the block's, ``before`` its norm1
            or ``after``.
    """

    inputs: Literal["before", "after"] = "before"


@dataclass(frozen=True)
class PGPConfig(PGPOptions, DeepPromptConfig):
    """Options of VPT-PGP."""


@dataclass(frozen=True)
class L2PConfig(PromptConfig):
    """Options of L2P.

    Attributes:
        prompt_length: vectors per prompt.
        prompt_blocks: blocks whose attention gets the chosen prompts as keys and values, -1 for the
            last; empty: prompts join the input tokens (published).
        pool: prompts in the pool, each with a key.
        top_k: prompts per image.
        key_weight: weight of the pull of chosen keys to the query.
        selection: ``image``: every image chooses for itself; ``batch``: all take what most of the
            batch chose, as the published program does: breaks batch invariance.
    """

    prompt_length: int = 5
    pool: int = 10
    top_k: int = 5
    key_weight: float = 0.5
    selection: Vote = "image"

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: more prompts per image than the pool holds, or a weight below 0.
        """
        super().__post_init__()
        if not 1 <= self.top_k <= self.pool:
            raise ConfigError(
                f"top_k={self.top_k}: it must lie in 1 to {self.pool}, the size of the pool."
            )
        if not self.key_weight >= 0:
            raise ConfigError(f"key_weight={self.key_weight}: it must be 0 or more.")


@dataclass(frozen=True)
class DeepL2PConfig(L2PConfig):
    """Options of L2P with prompts inside blocks, where conditions on keys and values hold."""

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: no block.
        """
        super().__post_init__()
        if not self.prompt_blocks:
            raise ConfigError(
                "prompt_blocks=[]: prompts that join the input travel through all blocks, and no "
                "condition holds for them. Name at least one block."
            )


@dataclass(frozen=True)
class L2PNSP2Config(NSP2Options, DeepL2PConfig):
    """Options of L2P-NSP²."""

    prompt_length: int = 5
    prompt_blocks: tuple[int, ...] = FIRST_THREE


@dataclass(frozen=True)
class L2PPGPConfig(PGPOptions, DeepL2PConfig):
    """Options of L2P-PGP."""

    prompt_length: int = 5
    prompt_blocks: tuple[int, ...] = FIRST_THREE


@dataclass(frozen=True)
class DualPromptConfig(MethodConfig):
    """Options of DualPrompt.

    Attributes:
        general_blocks: blocks that get the general prefix, -1 for the last.
        general_length: its keys, and its values, per block.
        expert_blocks: blocks that get the expert prefix.
        expert_length: its keys, and its values, per block.
        key_weight: weight of the pull of the task's key to the query.
        selection: at test time, ``image``: every image takes the expert of its own closest key;
            ``batch``: all take the one that most of the batch chose: breaks batch invariance.
    """

    general_blocks: tuple[int, ...] = (0, 1)
    general_length: int = 5
    expert_blocks: tuple[int, ...] = (2, 3, 4)
    expert_length: int = 20
    key_weight: float = 1.0
    selection: Vote = "image"

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: a length below 1, a weight below 0, or no block for the experts.
        """
        for key in ("general_length", "expert_length"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key}={getattr(self, key)}: it must be 1 or more.")
        if not self.key_weight >= 0:
            raise ConfigError(f"key_weight={self.key_weight}: it must be 0 or more.")
        if not self.expert_blocks:
            raise ConfigError("expert_blocks=[]: at least one block must get the expert prefix.")


@dataclass(frozen=True)
class CodaPromptConfig(MethodConfig):
    """Options of CODA-Prompt.

    Attributes:
        prompt_blocks: blocks that get a prefix, -1 for the last.
        components: components that every task adds per block.
        prompt_length: vectors per component, half of them keys and half of them values.
        orthogonality: weight of the penalty on components, keys and attention vectors.
    """

    prompt_blocks: tuple[int, ...] = (0, 1, 2, 3, 4)
    components: int = 10
    prompt_length: int = 8
    orthogonality: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: no block, no component, an odd length or a negative weight.
        """
        if not self.prompt_blocks:
            raise ConfigError("prompt_blocks=[]: at least one block must get a prefix.")
        if self.components < 1:
            raise ConfigError(f"components={self.components}: it must be 1 or more.")
        if self.prompt_length <= 0 or self.prompt_length % 2:
            raise ConfigError(
                f"prompt_length={self.prompt_length}: it must be even and 2 or more, half for keys "
                "and half for values."
            )
        if not self.orthogonality >= 0:
            raise ConfigError(f"orthogonality={self.orthogonality}: it must be 0 or more.")


@dataclass(frozen=True)
class IPromptConfig(MethodConfig):
    """Options of I-Prompt; every one is a choice of this reconstruction (see its page).

    Attributes:
        prompt_blocks: blocks that have a pool, -1 for the last; empty for the middle third.
        pool: keys, and prompts, per block.
        selection: ``top1``: the prompt of the most similar key; ``topk``: the mean of the ``top_k``
            most similar; ``soft``: all, weighted by the softmax of similarity/``softness``.
        top_k: prompts per token under ``topk``.
        softness: temperature of ``soft``.
        scale_by_similarity: whether a prompt is multiplied by its key's similarity.
        where: ``attention``: added after the attention residual, before the MLP; ``mlp``: after it.
        target: ``patches``, or ``cls``: the class token alone, matched by its own key.
        key_init: ``kmeans``: centres of the first task's token keys; ``random``.
        key_weight: weight of the pull of keys to the tokens that chose them.
        keys: what keys do after the first task: ``frozen``, or ``residual``: learn on.
        readout: what is classified: ``cls``, the weighted image ``tokens``, or ``cls+tokens``.
        token_weights: of the image tokens in what is classified: the class token's ``attention`` in
            the last block (``uniform`` where there is none), ``similarity`` to the matched keys, or
            ``uniform``.
    """

    prompt_blocks: tuple[int, ...] = ()
    pool: int = 20
    selection: Literal["top1", "topk", "soft"] = "top1"
    top_k: int = 5
    softness: float = 0.1
    scale_by_similarity: bool = True
    where: Literal["attention", "mlp"] = "attention"
    target: Literal["patches", "cls"] = "patches"
    key_init: Literal["kmeans", "random"] = "kmeans"
    key_weight: float = 0.1
    keys: Literal["frozen", "residual"] = "frozen"
    readout: Literal["cls", "tokens", "cls+tokens"] = "cls+tokens"
    token_weights: Literal["attention", "similarity", "uniform"] = "attention"

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: an empty pool, more prompts per token than the pool holds, a weight below 0,
                a softness that is not positive, token weights that the target does not give.
        """
        if self.pool < 1:
            raise ConfigError(f"pool={self.pool}: it must be 1 or more.")
        if not 1 <= self.top_k <= self.pool and self.selection == "topk":
            raise ConfigError(
                f"top_k={self.top_k}: it must lie in 1 to {self.pool}, the size of the pool."
            )
        if not self.softness > 0:
            raise ConfigError(f"softness={self.softness}: it must be above 0.")
        if self.target == "cls" and self.token_weights == "similarity":
            raise ConfigError(
                "token_weights='similarity' weighs patches by their own match, but target='cls' "
                "matches the class token alone. Take token_weights=attention or uniform."
            )
        if not self.key_weight >= 0:
            raise ConfigError(f"key_weight={self.key_weight}: it must be 0 or more.")


@dataclass(frozen=True)
class CLIPPromptConfig(DeepPromptConfig):
    """Options of prompts in CLIP's image tower; the logit scale stands in for a temperature.

    Attributes:
        prompt_blocks: blocks that get prompts, -1 for the last; the paper's three by default, the
            released program's four are [0, 1, 2, 3].
    """

    prompt_blocks: tuple[int, ...] = (0, 1, 2)
    temperature: float = 1.0


# A base's defaults win over those of the bases behind it: CLIP's come first.
@dataclass(frozen=True)
class CLIPNSP2Config(CLIPPromptConfig, NSP2Options):
    """Options of CLIP-NSP²."""

    eta1: float = 0.98
    eta2: float = 0.98


@dataclass(frozen=True)
class CLIPFinetuneConfig(CLIPPromptConfig, FinetuneConfig):
    """Options of CLIP-Seq."""


@dataclass(frozen=True)
class CLIPJointConfig(CLIPPromptConfig, JointConfig):
    """Options of joint training on CLIP."""
