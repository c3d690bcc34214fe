"""CLIP methods: prompts in CLIP's image tower, learned under a language head."""

from __future__ import annotations

from perdure.methods.base import Method
from perdure.methods.catalog import METHODS
from perdure.methods.finetune import Finetune
from perdure.methods.joint import Joint
from perdure.methods.nsp2 import NSP2


@METHODS.register("clip_nsp2")
class CLIPNSP2(NSP2):
    """CLIP-NSP²: NSP²'s conditions on prompts in the first blocks, one logit scale for all tasks."""


@METHODS.register("clip_finetune")
class CLIPFinetune(Finetune):
    """CLIP-Seq: the prompts of CLIP-NSP² without projection and without the LayerNorm term."""


@METHODS.register("clip_joint")
class CLIPJoint(Joint):
    """The upper bound on CLIP: the same prompts trained once on the union of all tasks."""


@METHODS.register("clip_zero_shot")
class CLIPZeroShot(Method):
    """CLIP as it is: nothing added, nothing learned."""
