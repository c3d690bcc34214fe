"""Method registry: names and declarations of the built-in methods; needs no torch.

A method's options are in `perdure.methods.options`, its class in the module named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perdure.capabilities import Capability
from perdure.methods import options
from perdure.registry import Declaration, Registry
from perdure.traits import Traits

if TYPE_CHECKING:
    from perdure.methods.base import Method


@dataclass(frozen=True)
class MethodDeclaration(Declaration):
    """Attributes of a method's class that are known without importing it.

    Attributes:
        traits: its properties.
        Config: its options.
        tuned: options that `perdure tune` searches beside the learning rate, with the values to try.
        learning_only: tensors of its state, as patterns of their names, that prediction never reads: a
            model saved for inference is without them.
        checked_with: options under which the conformance suite sees more of it than by default.
    """

    traits: Traits
    Config: type[options.MethodConfig] = options.MethodConfig
    tuned: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    learning_only: tuple[str, ...] = ()
    checked_with: Mapping[str, Any] = field(default_factory=dict)


METHODS: Registry[type[Method], MethodDeclaration] = Registry("method", MethodDeclaration)

NULL_SPACE_STATISTICS = ("gram_*", "projector_*", "images_seen")
NSP2_STATISTICS = (*NULL_SPACE_STATISTICS, "old_mean_*", "old_std_*")
TEMPERATURE = {"temperature": (1.0, 5.0, 28.0)}
KEY_PULL = {"key_pull": (0.1, 0.5, 1.0)}
CLIP_NSP2 = "Lu et al., NeurIPS 2024, arXiv 2406.05658"
NULL_SPACE = frozenset[Capability]({"key_value_prompts", "linear_keys"})
GAUSSIANS = "per class one mean and one D × D factor of its covariance (unless refine_epochs=0)"


def _declare(module: str, **methods: MethodDeclaration) -> None:
    for name, declaration in methods.items():
        METHODS.declare(name, f"perdure.methods.{module}", declaration)


_declare(
    "nsp2",
    nsp2=MethodDeclaration(
        Traits(
            paper="Lu et al., NeurIPS 2024, arXiv 2406.05658",
            summary="prompt updates projected into the null space of old tasks' features",
            needs=NULL_SPACE,
            projects_updates=True,
            protects_features=True,
            stores_statistics="per block one D × D and one M × M Gram of old features",
        ),
        options.NSP2Config,
        tuned=TEMPERATURE,
        learning_only=NSP2_STATISTICS,
    ),
)
_declare(
    "pgp",
    pgp=MethodDeclaration(
        Traits(
            paper="Qiao et al., ICLR 2024 (PGP); VPT-PGP in Lu et al., NeurIPS 2024",
            summary="prompt updates orthogonal to old tasks' input tokens",
            projects_updates=True,
            stores_statistics="per block one D × D Gram of old tokens",
        ),
        options.PGPConfig,
        tuned=TEMPERATURE,
        learning_only=NULL_SPACE_STATISTICS,
    ),
)
_declare(
    "finetune",
    finetune=MethodDeclaration(
        Traits(
            paper="Jia et al., ECCV 2022 (VPT-Deep); VPT-Seq in Lu et al., NeurIPS 2024",
            summary="deep prompts trained task after task, nothing protected",
        ),
        options.FinetuneConfig,
        tuned=TEMPERATURE,
    ),
)
_declare(
    "joint",
    joint=MethodDeclaration(
        Traits(
            paper="upper bound in Lu et al., NeurIPS 2024",
            summary="the same prompts trained once on all classes: the upper bound, sees old images",
            cumulative=True,
        ),
        options.JointConfig,
        tuned=TEMPERATURE,
        checked_with={"train_after": "each"},
    ),
)
_declare(
    "iprompt",
    iprompt=MethodDeclaration(
        Traits(
            paper="Han, Na, Hwang, WACV 2025, arXiv 2403.11537 (reconstruction)",
            summary="prompts matched to image tokens inside the layer and added to them, in one pass",
            reads=frozenset({"cls", "tokens", "cls_attention"}),
            needs=frozenset({"keys", "tokens"}),
            selects=True,
        ),
        options.IPromptConfig,
        tuned={"pool": (10, 20, 40)},
    ),
)
_declare(
    "l2p",
    l2p=MethodDeclaration(
        Traits(
            paper="Wang et al., CVPR 2022 (L2P)",
            summary="prompts chosen from a pool by a plain pass's features join the input",
            reads=frozenset({"input"}),
            needs=frozenset({"input_tokens"}),
            needs_query=True,
            selects=True,
        ),
        options.L2PConfig,
        tuned=KEY_PULL,
    ),
)
_declare(
    "l2p_projected",
    l2p_nsp2=MethodDeclaration(
        Traits(
            paper="Lu et al., NeurIPS 2024 (L2P-NSP²); Wang et al., CVPR 2022 (L2P)",
            summary="a pool of deep prompts, updates projected into the null space of old features",
            needs=NULL_SPACE,
            needs_query=True,
            projects_updates=True,
            protects_features=True,
            stores_statistics=(
                "per block one D × D Gram and one M × M per pool entry; one D × D of queries"
            ),
            selects=True,
        ),
        options.L2PNSP2Config,
        tuned=KEY_PULL,
        learning_only=NSP2_STATISTICS,
    ),
    l2p_pgp=MethodDeclaration(
        Traits(
            paper="Qiao et al., ICLR 2024 (PGP); L2P-PGP in Lu et al., NeurIPS 2024",
            summary="a pool of deep prompts, updates orthogonal to old tasks' input tokens",
            needs_query=True,
            projects_updates=True,
            stores_statistics="per block one D × D Gram of old tokens; one D × D of queries",
            selects=True,
        ),
        options.L2PPGPConfig,
        tuned=KEY_PULL,
        learning_only=NULL_SPACE_STATISTICS,
    ),
)
_declare(
    "dualprompt",
    dualprompt=MethodDeclaration(
        Traits(
            paper="Wang et al., ECCV 2022 (DualPrompt)",
            summary="general prefixes, and per task an expert prefix chosen by a plain pass's features",
            needs_query=True,
            selects=True,
            prompts_of_tasks=True,
            state_growth="per task",
        ),
        options.DualPromptConfig,
        tuned={"expert_length": (5, 10, 20)},
    ),
)
_declare(
    "coda_prompt",
    coda_prompt=MethodDeclaration(
        Traits(
            paper="Smith et al., CVPR 2023 (CODA-Prompt)",
            summary="prefixes summed from components by attention on a plain pass's features",
            needs_query=True,
            selects=True,
            prompts_of_tasks=True,
            state_growth="per task",
        ),
        options.CodaPromptConfig,
        tuned={"orthogonality": (0.0, 0.1, 1.0)},
    ),
)
_declare(
    "frozen",
    linear=MethodDeclaration(
        Traits(
            paper="linear probing",
            summary="frozen features, one linear layer per task",
            frozen_features=True,
            fixed_heads=True,
        ),
    ),
    ncm=MethodDeclaration(
        Traits(
            paper="nearest class mean",
            summary="frozen features, nearest class mean",
            trains=False,
            frozen_features=True,
            heads=("ncm",),
            fixed_heads=True,
        ),
    ),
    lda=MethodDeclaration(
        Traits(
            paper="linear discriminant analysis",
            summary="frozen features, class means and one pooled covariance, or any closed-form head",
            trains=False,
            frozen_features=True,
            heads=("gaussian",),
        ),
        options.LDAConfig,
    ),
)
_declare(
    "clip",
    clip_nsp2=MethodDeclaration(
        Traits(
            paper=CLIP_NSP2,
            summary="CLIP with prompts in its first blocks, updates projected as in nsp2",
            needs=NULL_SPACE,
            projects_updates=True,
            protects_features=True,
            stores_statistics=f"per block one D × D and one M × M Gram of old features; {GAUSSIANS}",
            heads=("language",),
            trained_head="language",
        ),
        options.CLIPNSP2Config,
        tuned=TEMPERATURE,
        learning_only=NSP2_STATISTICS,
    ),
    clip_finetune=MethodDeclaration(
        Traits(
            paper=f"CLIP-Seq in {CLIP_NSP2}",
            summary="CLIP with prompts in its first blocks, trained task after task",
            stores_statistics=GAUSSIANS,
            heads=("language",),
            trained_head="language",
        ),
        options.CLIPFinetuneConfig,
        tuned=TEMPERATURE,
    ),
    clip_joint=MethodDeclaration(
        Traits(
            paper=f"upper bound in {CLIP_NSP2}",
            summary="the prompts of CLIP trained once on all classes: the upper bound, sees old images",
            stores_statistics=GAUSSIANS,
            cumulative=True,
            heads=("language",),
            trained_head="language",
        ),
        options.CLIPJointConfig,
        tuned=TEMPERATURE,
        checked_with={"train_after": "each"},
    ),
    clip_zero_shot=MethodDeclaration(
        Traits(
            paper="Radford et al., ICML 2021",
            summary="CLIP without any learning: images compared with texts",
            trains=False,
            frozen_features=True,
            heads=("zero_shot",),
            fixed_heads=True,
        ),
    ),
)
