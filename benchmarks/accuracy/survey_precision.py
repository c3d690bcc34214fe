"""Surveys in bf16 against float32: ranks of null spaces, drift that heads follow, last accuracy.

One run of `nsp2` per survey precision on the same stream; training computes in bf16 in both.

Usage: python benchmarks/accuracy/survey_precision.py data=digits tasks=B0-Inc2 img_size=32
       python benchmarks/accuracy/survey_precision.py data=PHOTOS tasks=B0-Inc20 img_size=64
"""

from __future__ import annotations

import sys
from typing import Any

from perdure.engine.build import make_backbone, make_stream
from perdure.engine.config import make_config
from perdure.engine.run import Outcome, Run
from perdure.methods.null_space import Gram, NullSpaceGuard
from perdure.metrics import last_accuracy
from perdure.numerics.subspace import null_space

RECIPE: dict[str, Any] = {
    "method": "nsp2",
    "backbone": "clip_vit_base_patch16",
    "transform": "plain",
    "epochs": 1,
    "batch_size": 16,
    "lr": 0.003,
    "precision": "bf16",
    "heads": "linear,gaussian,gaussian(drift=linear)",
    "images_per_class": 10,
    "test_images_per_class": 10,
}


def ranks(outcome: Outcome) -> dict[str, int]:
    """Ranks of the null spaces after the last task, by the Gram's name."""
    guard = outcome.model.method.guard
    assert isinstance(guard, NullSpaceGuard)
    grams = [Gram(side, block) for block in guard.prompts for side in (guard.RIGHT, guard.LEFT)]
    rule = guard.options.rank_rule
    return {str(gram): null_space(guard.condition(gram)[0], rule).shape[1] for gram in grams}


def main(words: list[str]) -> None:
    """Run both, and print what differs."""
    given = dict(word.split("=", 1) for word in words)
    outcomes = {}
    for survey in ("fp32", "bf16"):
        config = make_config({**RECIPE, **given, "survey_precision": survey})
        outcomes[survey] = Run(config, make_stream(config), make_backbone(config))()
    for survey, outcome in outcomes.items():
        last = {head: f"{last_accuracy(counts):.4f}" for head, counts in outcome.counts.items()}
        print(f"{survey}: last accuracy {last}, {outcome.seconds:.0f} s")
    wide, narrow = (ranks(outcome) for outcome in outcomes.values())
    apart = [abs(wide[name] - narrow[name]) for name in wide]
    for side in ("affinity", "aggregation"):
        both = [(wide[name], narrow[name]) for name in wide if name.startswith(side)]
        print(f"ranks {side}, float32 and bf16: {both}")
    print(f"{sum(map(bool, apart))} of {len(apart)} ranks differ, by {max(apart)} at most")
    for one, other in zip(*(outcome.drift for outcome in outcomes.values()), strict=True):
        print("drift", one, other)


if __name__ == "__main__":
    main(sys.argv[1:])
