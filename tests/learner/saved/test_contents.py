"""Sizes of saved models: what prediction reads, and what only learning on does."""

from __future__ import annotations

import re
from typing import Any

from perdure.engine.model import Model
from perdure.learner.saved.contents import Sizes
from perdure.testing import make_trial


def learning_only(method: str, **options: Any) -> set[str]:
    """What a model declares, numbers replaced by N."""
    trial = make_trial(method, **options)
    model = Model(trial.backbone, trial.config)
    model.start_task(trial.stream.tasks[0].task)
    return {re.sub(r"\d+", "N", name) for name in model.learning_only}


def test_what_only_learning_reads() -> None:
    null_space = {"method.gram_inputs_N", "method.projector_inputs_N", "method.images_seen"}
    parts = ("weight", "bias", "layer.weight", "layer.bias")
    linear = {f"heads.linear.{part}" for part in parts}
    moments = {f"heads.gaussian.{name}" for name in ("means", "counts", "scatter", "rho")}
    assert learning_only("finetune") == learning_only("iprompt") == set()
    assert learning_only("ncm") == {"heads.ncm.counts"}
    assert learning_only("pgp") == null_space
    assert learning_only("pgp", heads="gaussian") == null_space | linear | moments
    assert {"method.gram_affinity_N", "method.old_mean_N", "method.projector_aggregation_N"} < (
        learning_only("nsp2")
    )
    assert learning_only("clip_finetune") == {
        "heads.language.means_N",
        "heads.language.factors_N",
    }


def test_sizes_in_words() -> None:
    assert str(Sizes(1500, 70_700_000)) == "70.7 MB (1.5 kB to predict, 70.7 MB more to learn on)"
