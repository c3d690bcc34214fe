"""Prompts in the image tower of CLIP, learned under a head that compares images with texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from perdure.methods.base import METHODS, Method
from perdure.methods.deep_prompts import DeepPromptConfig, DeepPromptMethod
from perdure.methods.finetune import Finetune, FinetuneConfig
from perdure.methods.joint import Joint, JointConfig
from perdure.methods.nsp2 import NSP2Method, NSP2Options
from perdure.types import Traits

PAPER = "Lu et al., NeurIPS 2024, arXiv 2406.05658"
GAUSSIANS = "per class one mean and one D × D factor of its covariance (unless refine_epochs=0)"


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


@METHODS.register("clip_nsp2")
class CLIPNSP2(NSP2Method, DeepPromptMethod):
    """CLIP-NSP²: NSP²'s conditions on prompts in the first blocks, one logit scale for all tasks."""

    traits: ClassVar[Traits] = Traits(
        paper=PAPER,
        summary="CLIP with prompts in its first blocks, updates projected as in nsp2",
        projects_updates=True,
        protects_features=True,
        stores_statistics=f"per block one D × D and one M × M Gram of old features; {GAUSSIANS}",
        heads=("language",),
        trained_head="language",
    )
    Config = CLIPNSP2Config
    config: CLIPNSP2Config


@METHODS.register("clip_finetune")
class CLIPFinetune(Finetune):
    """CLIP-Seq: the prompts of CLIP-NSP² without projection and without the LayerNorm term."""

    traits: ClassVar[Traits] = Traits(
        paper=f"CLIP-Seq in {PAPER}",
        summary="CLIP with prompts in its first blocks, trained task after task",
        stores_statistics=GAUSSIANS,
        heads=("language",),
        trained_head="language",
    )
    Config = CLIPFinetuneConfig
    config: CLIPFinetuneConfig


@METHODS.register("clip_joint")
class CLIPJoint(Joint):
    """The upper bound on CLIP: the same prompts trained once on the union of all tasks."""

    traits: ClassVar[Traits] = Traits(
        paper=f"upper bound in {PAPER}",
        summary="the prompts of CLIP trained once on all classes: the upper bound, sees old images",
        stores_statistics=GAUSSIANS,
        cumulative=True,
        heads=("language",),
        trained_head="language",
    )
    Config = CLIPJointConfig
    config: CLIPJointConfig


@METHODS.register("clip_zero_shot")
class CLIPZeroShot(Method):
    """CLIP as it is: nothing added, nothing learned."""

    traits: ClassVar[Traits] = Traits(
        paper="Radford et al., ICML 2021",
        summary="CLIP without any learning: images compared with texts",
        trains=False,
        frozen_features=True,
        heads=("zero_shot",),
        fixed_heads=True,
    )
