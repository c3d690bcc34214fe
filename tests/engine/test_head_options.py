"""Heads with options of their own, side by side in one run and in what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from perdure.engine.config import Config, load_config
from perdure.errors import ConfigError
from perdure.experiment import run
from perdure.heads import GaussianHead, LinearHead
from perdure.learner import ContinualClassifier
from perdure.testing import make_trial
from perdure.testing.trial import evaluation_pictures
from tests.tiny import small_config

pytestmark = pytest.mark.usefixtures("unchecked")
HEADS = ("linear(head_inputs=centred)", "gaussian", "gaussian(shrinkage=0.9)")


def config(heads: tuple[str, ...], **changes: Any) -> Config:
    return small_config(**{"method": "finetune", "epochs": 1, **changes}, heads=heads)


def test_own_options_win_over_the_flat_keys_and_one_head_is_trained() -> None:
    trial = make_trial("finetune", heads=HEADS, shrinkage=0.2, head_init="fresh")
    model = trial.run().model
    linear, gaussian, shrunk = model.heads.values()
    assert isinstance(linear, LinearHead)
    assert isinstance(gaussian, GaussianHead)
    assert isinstance(shrunk, GaussianHead)
    assert linear.config.head_inputs == "centred"
    assert linear.config.head_init == "fresh"
    assert (float(gaussian.rho), float(shrunk.rho)) == (0.2, 0.9)
    assert model.trained_head is linear
    assert tuple(model.heads) == HEADS


def test_a_head_learns_as_under_flat_keys() -> None:
    own = make_trial("finetune", heads=["gaussian(shrinkage=0.5)"]).run().model.state()
    flat = make_trial("finetune", heads=["gaussian"], shrinkage=0.5).run().model.state()
    own = {name.replace("(shrinkage=0.5)", ""): value for name, value in own.items()}
    assert own.keys() == flat.keys()
    assert all(torch.equal(value, own[name]) for name, value in flat.items())


@pytest.mark.long
def test_what_a_run_leaves_tells_heads_of_one_kind_apart(tmp_path: Path) -> None:
    finished = run(config(HEADS), tmp_path / "run")
    assert [entry["head"] for entry in finished.entries] == list(HEADS)
    files = {path.name for path in finished.folder.glob("confusion-*.csv")}
    assert files == {
        "confusion-linear,head_inputs=centred.csv",
        "confusion-gaussian.csv",
        "confusion-gaussian,shrinkage=0.9.csv",
    }
    assert load_config(str(finished.folder / "config.toml")).head_names == HEADS


def test_a_saved_model_keeps_heads_of_one_kind_apart(tmp_path: Path) -> None:
    trial = make_trial("finetune", heads=HEADS)
    classifier = ContinualClassifier.from_model(trial.run().model)
    pictures = evaluation_pictures(trial)
    classifier.save(tmp_path / "whole")
    classifier.save(tmp_path / "less", inference_only=True)
    state = classifier.model.state()
    assert "heads.gaussian(shrinkage=0.9).weight" in state
    left_out = classifier.model.learning_only
    assert {"heads.gaussian.scatter", "heads.gaussian(shrinkage=0.9).scatter"} <= left_out
    assert not any(name.endswith(".bias") for name in left_out)
    for folder in ("whole", "less"):
        loaded = ContinualClassifier.load(tmp_path / folder, backbone=trial.backbone)
        for head in HEADS:
            assert torch.equal(loaded.logits(pictures, head), classifier.logits(pictures, head))
    forgotten = classifier.forget_class(str(classifier.classes_[0]))
    assert f"its vectors in the heads {', '.join(HEADS)}, overwritten" in forgotten.removed[1]


def test_overrides_keep_parentheses_together() -> None:
    values = [
        "heads=gaussian, gaussian(shrinkage=0.1), linear(head_inputs=centred,head_init=fresh)"
    ]
    assert load_config("digits/nsp2", values).head_names == (
        "gaussian",
        "gaussian(shrinkage=0.1)",
        "linear(head_init=fresh,head_inputs=centred)",
    )
    one = load_config("digits/nsp2", ["heads=linear(head_inputs=centred,head_init=fresh)"])
    assert one.head_names == ("linear(head_init=fresh,head_inputs=centred)",)


@pytest.mark.parametrize(
    ("heads", "changes", "said"),
    [
        (("gaussian(shrinkage=0.1)", "gaussian( shrinkage=0.10 )"), {}, "each head at most once"),
        (("linear", "linear(head_init=fresh)"), {}, "trains under one 'linear'. Name it once."),
        (("gaussian(shrinkage=validation)",), {}, "needs validation images"),
        (("language(refine_epochs=1)",), {}, "so 'language' would stay untrained"),
        (("gaussian(shrinkag=1)",), {}, "Did you mean 'shrinkage'"),
        (("linear(head_init=fresh)",), {"method": "lda"}, "would stay untrained"),
    ],
)
def test_heads_that_do_not_go_together_are_refused(
    heads: tuple[str, ...], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as found:
        config(heads, **changes)
    assert said in str(found.value)


def test_a_fixed_head_may_have_options() -> None:
    assert config(("gaussian(shrinkage=0.5)",), method="lda").built_heads.keys() == {
        "gaussian(shrinkage=0.5)"
    }
