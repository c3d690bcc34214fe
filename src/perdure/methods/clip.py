"""Prompts in the image tower of CLIP, learned under a head that compares images with texts."""

from __future__ import annotations

from perdure.methods.base import Method
from perdure.methods.catalog import METHODS
from perdure.methods.deep_prompts import DeepPromptMethod
from perdure.methods.finetune import Finetune
from perdure.methods.joint import Joint
from perdure.methods.nsp2 import NSP2Method
from perdure.methods.options import CLIPFinetuneConfig, CLIPJointConfig, CLIPNSP2Config

PAPER = "Lu et al., NeurIPS 2024, arXiv 2406.05658"
GAUSSIANS = "per class one mean and one D × D factor of its covariance (unless refine_epochs=0)"


@METHODS.register("clip_nsp2")
class CLIPNSP2(NSP2Method, DeepPromptMethod):
    """CLIP-NSP²: NSP²'s conditions on prompts in the first blocks, one logit scale for all tasks."""

    config: CLIPNSP2Config


@METHODS.register("clip_finetune")
class CLIPFinetune(Finetune):
    """CLIP-Seq: the prompts of CLIP-NSP² without projection and without the LayerNorm term."""

    config: CLIPFinetuneConfig


@METHODS.register("clip_joint")
class CLIPJoint(Joint):
    """The upper bound on CLIP: the same prompts trained once on the union of all tasks."""

    config: CLIPJointConfig


@METHODS.register("clip_zero_shot")
class CLIPZeroShot(Method):
    """CLIP as it is: nothing added, nothing learned."""
