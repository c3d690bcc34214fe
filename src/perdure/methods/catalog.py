"""Method registry: names and declarations of the built-in methods; needs no torch.

A method's options are in `perdure.methods.options`, its class in the module named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perdure.methods.options import (
    CLIPFinetuneConfig,
    CLIPJointConfig,
    CLIPNSP2Config,
    CodaPromptConfig,
    DualPromptConfig,
    FinetuneConfig,
    IPromptConfig,
    JointConfig,
    L2PConfig,
    L2PNSP2Config,
    L2PPGPConfig,
    MethodConfig,
    NSP2Config,
    PGPConfig,
)
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
    Config: type[MethodConfig]
    tuned: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    learning_only: tuple[str, ...] = ()
    checked_with: Mapping[str, Any] = field(default_factory=dict)


METHODS: Registry[type[Method], MethodDeclaration] = Registry("method", MethodDeclaration)

NULL_SPACE_STATISTICS = ("gram_*", "projector_*", "images_seen")
NSP2_STATISTICS = (*NULL_SPACE_STATISTICS, "old_mean_*", "old_std_*")
TEMPERATURE = {"temperature": (1.0, 5.0, 28.0)}
KEY_PULL = {"key_pull": (0.1, 0.5, 1.0)}
CLIP_NSP2 = "Lu et al., NeurIPS 2024, arXiv 2406.05658"
GAUSSIANS = "per class one mean and one D × D factor of its covariance (unless refine_epochs=0)"


METHODS.declare(
    "nsp2",
    "perdure.methods.nsp2",
    MethodDeclaration(
        Config=NSP2Config,
        traits=Traits(
            paper="Lu et al., NeurIPS 2024, arXiv 2406.05658",
            summary="prompt updates projected into the null space of old tasks' features",
            projects_updates=True,
            protects_features=True,
            stores_statistics="per block one D × D and one M × M Gram of old features",
        ),
        tuned=TEMPERATURE,
        learning_only=NSP2_STATISTICS,
    ),
)
METHODS.declare(
    "pgp",
    "perdure.methods.pgp",
    MethodDeclaration(
        Config=PGPConfig,
        traits=Traits(
            paper="Qiao et al., ICLR 2024 (PGP); VPT-PGP in Lu et al., NeurIPS 2024",
            summary="prompt updates orthogonal to old tasks' input tokens",
            projects_updates=True,
            stores_statistics="per block one D × D Gram of old tokens",
        ),
        tuned=TEMPERATURE,
        learning_only=NULL_SPACE_STATISTICS,
    ),
)
METHODS.declare(
    "finetune",
    "perdure.methods.finetune",
    MethodDeclaration(
        Config=FinetuneConfig,
        traits=Traits(
            paper="Jia et al., ECCV 2022 (VPT-Deep); VPT-Seq in Lu et al., NeurIPS 2024",
            summary="deep prompts trained task after task, nothing protected",
        ),
        tuned=TEMPERATURE,
    ),
)
METHODS.declare(
    "joint",
    "perdure.methods.joint",
    MethodDeclaration(
        Config=JointConfig,
        traits=Traits(
            paper="upper bound in Lu et al., NeurIPS 2024",
            summary="the same prompts trained once on all classes: the upper bound, sees old images",
            cumulative=True,
        ),
        tuned=TEMPERATURE,
        checked_with={"train_after": "each"},
    ),
)
METHODS.declare(
    "iprompt",
    "perdure.methods.iprompt",
    MethodDeclaration(
        Config=IPromptConfig,
        traits=Traits(
            paper="Han, Na, Hwang, WACV 2025, arXiv 2403.11537 (reconstruction)",
            summary="prompts matched to image tokens inside the layer and added to them, in one pass",
            reads=frozenset({"cls", "tokens", "cls_attention"}),
            selects=True,
        ),
        tuned={"pool": (10, 20, 40)},
    ),
)
METHODS.declare(
    "l2p",
    "perdure.methods.l2p",
    MethodDeclaration(
        Config=L2PConfig,
        traits=Traits(
            paper="Wang et al., CVPR 2022 (L2P)",
            summary="prompts chosen from a pool by a plain pass's features join the input",
            reads=frozenset({"input"}),
            needs_query=True,
            selects=True,
        ),
        tuned=KEY_PULL,
    ),
)
METHODS.declare(
    "l2p_nsp2",
    "perdure.methods.l2p_projected",
    MethodDeclaration(
        Config=L2PNSP2Config,
        traits=Traits(
            paper="Lu et al., NeurIPS 2024 (L2P-NSP²); Wang et al., CVPR 2022 (L2P)",
            summary="a pool of deep prompts, updates projected into the null space of old features",
            needs_query=True,
            projects_updates=True,
            protects_features=True,
            stores_statistics=(
                "per block one D × D Gram and one M × M per pool entry; one D × D of queries"
            ),
            selects=True,
        ),
        tuned=KEY_PULL,
        learning_only=NSP2_STATISTICS,
    ),
)
METHODS.declare(
    "l2p_pgp",
    "perdure.methods.l2p_projected",
    MethodDeclaration(
        Config=L2PPGPConfig,
        traits=Traits(
            paper="Qiao et al., ICLR 2024 (PGP); L2P-PGP in Lu et al., NeurIPS 2024",
            summary="a pool of deep prompts, updates orthogonal to old tasks' input tokens",
            needs_query=True,
            projects_updates=True,
            stores_statistics="per block one D × D Gram of old tokens; one D × D of queries",
            selects=True,
        ),
        tuned=KEY_PULL,
        learning_only=NULL_SPACE_STATISTICS,
    ),
)
METHODS.declare(
    "dualprompt",
    "perdure.methods.dualprompt",
    MethodDeclaration(
        Config=DualPromptConfig,
        traits=Traits(
            paper="Wang et al., ECCV 2022 (DualPrompt)",
            summary="general prefixes, and per task an expert prefix chosen by a plain pass's features",
            needs_query=True,
            selects=True,
            prompts_of_tasks=True,
            state_growth="per task",
        ),
        tuned={"expert_length": (5, 10, 20)},
    ),
)
METHODS.declare(
    "coda_prompt",
    "perdure.methods.coda_prompt",
    MethodDeclaration(
        Config=CodaPromptConfig,
        traits=Traits(
            paper="Smith et al., CVPR 2023 (CODA-Prompt)",
            summary="prefixes summed from components by attention on a plain pass's features",
            needs_query=True,
            selects=True,
            prompts_of_tasks=True,
            state_growth="per task",
        ),
        tuned={"orthogonality": (0.0, 0.1, 1.0)},
    ),
)
METHODS.declare(
    "linear",
    "perdure.methods.frozen",
    MethodDeclaration(
        Config=MethodConfig,
        traits=Traits(
            paper="linear probing",
            summary="frozen features, one linear layer per task",
            frozen_features=True,
            fixed_heads=True,
        ),
    ),
)
METHODS.declare(
    "ncm",
    "perdure.methods.frozen",
    MethodDeclaration(
        Config=MethodConfig,
        traits=Traits(
            paper="nearest class mean",
            summary="frozen features, nearest class mean",
            trains=False,
            frozen_features=True,
            heads=("ncm",),
            fixed_heads=True,
        ),
    ),
)
METHODS.declare(
    "lda",
    "perdure.methods.frozen",
    MethodDeclaration(
        Config=MethodConfig,
        traits=Traits(
            paper="linear discriminant analysis",
            summary="frozen features, class means and one pooled covariance",
            trains=False,
            frozen_features=True,
            heads=("gaussian",),
            fixed_heads=True,
        ),
    ),
)
METHODS.declare(
    "clip_nsp2",
    "perdure.methods.clip",
    MethodDeclaration(
        Config=CLIPNSP2Config,
        traits=Traits(
            paper=CLIP_NSP2,
            summary="CLIP with prompts in its first blocks, updates projected as in nsp2",
            projects_updates=True,
            protects_features=True,
            stores_statistics=f"per block one D × D and one M × M Gram of old features; {GAUSSIANS}",
            heads=("language",),
            trained_head="language",
        ),
        tuned=TEMPERATURE,
        learning_only=NSP2_STATISTICS,
    ),
)
METHODS.declare(
    "clip_finetune",
    "perdure.methods.clip",
    MethodDeclaration(
        Config=CLIPFinetuneConfig,
        traits=Traits(
            paper=f"CLIP-Seq in {CLIP_NSP2}",
            summary="CLIP with prompts in its first blocks, trained task after task",
            stores_statistics=GAUSSIANS,
            heads=("language",),
            trained_head="language",
        ),
        tuned=TEMPERATURE,
    ),
)
METHODS.declare(
    "clip_joint",
    "perdure.methods.clip",
    MethodDeclaration(
        Config=CLIPJointConfig,
        traits=Traits(
            paper=f"upper bound in {CLIP_NSP2}",
            summary="the prompts of CLIP trained once on all classes: the upper bound, sees old images",
            stores_statistics=GAUSSIANS,
            cumulative=True,
            heads=("language",),
            trained_head="language",
        ),
        tuned=TEMPERATURE,
        checked_with={"train_after": "each"},
    ),
)
METHODS.declare(
    "clip_zero_shot",
    "perdure.methods.clip",
    MethodDeclaration(
        Config=MethodConfig,
        traits=Traits(
            paper="Radford et al., ICML 2021",
            summary="CLIP without any learning: images compared with texts",
            trains=False,
            frozen_features=True,
            heads=("zero_shot",),
            fixed_heads=True,
        ),
    ),
)
