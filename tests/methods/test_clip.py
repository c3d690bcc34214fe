"""Methods on CLIP: NSP²'s machinery under the language head, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from perdure.engine.config import make_config
from perdure.engine.model import Model
from perdure.errors import BackboneError, ConfigError
from perdure.heads import LanguageHead
from perdure.methods import METHODS
from perdure.methods.nsp2 import NSP2
from perdure.testing import make_trial
from tests.reference.small_vits import frozen

PROMPTED = ["clip_finetune", "clip_joint", "clip_nsp2"]


def model(method: str, backbone: str = "clip", **options: Any) -> Model:
    return Model(frozen(backbone), make_config({"method": method, **options}))


@pytest.mark.parametrize("name", PROMPTED)
def test_options_are_the_papers(name: str) -> None:
    config: Any = make_config({"method": name}).method
    assert config.prompt_blocks == (0, 1, 2)
    assert config.prompt_length == 4
    assert config.temperature == 1.0
    if name == "clip_nsp2":
        assert (config.eta1, config.eta2) == (0.98, 0.98)
        assert config.conditions == "published"


def test_blocks_of_the_released_program() -> None:
    made = make_trial("clip_nsp2", prompt_blocks=[0, 1, 2, 3], images=2).run().model
    assert list(made.method.additions(None, None).tokens) == [0, 1, 2, 3]


def test_machinery_is_that_of_nsp2() -> None:
    """Nothing of it is written again."""
    cls = METHODS["clip_nsp2"]
    assert issubclass(cls, NSP2)
    own = set(vars(cls)) - {"__doc__", "__module__", "__abstractmethods__", "_abc_impl"}
    assert own == set(vars(METHODS.declared["clip_nsp2"]))


@pytest.mark.long
def test_sequential_tuning_and_null_space_part_after_the_first_task() -> None:
    """Same prompts, same steps; what differs is projection and the LayerNorm term."""
    for sizes, same in (((4,), True), ((2, 2), False)):
        ours, theirs = (
            make_trial(name, sizes=sizes).run().model for name in ("clip_nsp2", "clip_finetune")
        )
        for name, prompts in theirs.method.named_parameters():
            assert torch.equal(ours.method.get_parameter(name), prompts) is same


def test_logit_scale_and_prompts_are_trained() -> None:
    trial = make_trial("clip_finetune")
    made = trial.run().model
    head = made.heads["language"]
    assert isinstance(head, LanguageHead)
    fresh = Model(trial.backbone, trial.config)
    assert float(head.scale.value.detach()) != pytest.approx(math.log(100), abs=1e-4)
    for name, prompts in fresh.method.named_parameters():
        assert not torch.equal(made.method.get_parameter(name), prompts)


def test_zero_shot_learns_nothing_and_reads_the_plain_backbone() -> None:
    trial = make_trial("clip_zero_shot")
    made = trial.run().model
    assert list(made.state()) == ["heads.zero_shot.text"]


@pytest.mark.long
def test_other_heads_are_evaluated_beside() -> None:
    heads = ["language", "gaussian", "zero_shot"]
    outcome = make_trial("clip_nsp2", heads=heads).run()
    assert list(outcome.counts) == heads
    alone = make_trial("clip_nsp2", heads=["gaussian"]).run()
    assert list(alone.model.heads) == ["gaussian", "language"], "it is trained under all the same"


def test_a_single_class_is_learned_beside_a_head_in_closed_form() -> None:
    with pytest.raises(
        ConfigError, match=r"single class .* Add heads=language,gaussian, or choose"
    ):
        make_trial("clip_nsp2", sizes=(1, 2)).run()
    outcome = make_trial("clip_nsp2", sizes=(1, 2), heads=["language", "gaussian"]).run()
    assert outcome.counts["language"].after.tolist() == [0, 1]
    zero_shot = make_trial("clip_zero_shot", sizes=(1, 1)).run().counts["zero_shot"]
    assert zero_shot.after.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "head"),
    [
        *(({"method": name}, "language") for name in PROMPTED),
        ({"method": "clip_zero_shot"}, "zero_shot"),
        ({"method": "nsp2", "heads": ["linear", "zero_shot"]}, "zero_shot"),
    ],
)
def test_backbones_without_projection_are_refused(values: dict[str, Any], head: str) -> None:
    values = {**values, "class_embeddings": "mean"}
    text = rf"Head '{head}' of method '{values['method']}' needs projection, .* 'test_vit' lacks"
    with pytest.raises(BackboneError, match=text):
        model(values.pop("method"), "test_vit", **values)
    assert model("clip_nsp2", "clip").trained_head is not None


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"method": "clip_nsp2", "heads": ["linear"]},
            r"'clip_nsp2' trains under 'language', so 'linear' would stay untrained\. Name language",
        ),
        (
            {"method": "nsp2", "heads": ["linear", "language"]},
            r"'nsp2' trains under 'linear', so 'language' would stay untrained",
        ),
        ({"method": "clip_zero_shot", "heads": ["language"]}, r"heads=\['zero_shot'\] only"),
        ({"method": "clip_nsp2", "refine_epochs": -1}, r"refine_epochs=-1"),
        ({"method": "clip_nsp2", "templates": "imagnet"}, r"Did you mean 'imagenet'\?"),
        ({"method": "clip_nsp2", "class_embeddings": "means"}, r"Did you mean 'mean'\?"),
        ({"method": "clip_nsp2", "eta1": 1.1}, r"eta1=1\.1: it must be 0 or more and at most 1\."),
        ({"method": "clip_nsp2", "prompt_length": 2}, r"set prompt_length=3 or eta2=0\."),
        ({"method": "clip_finetune", "temperature": 0.0}, r"temperature=0\.0: it must be above 0"),
        ({"method": "clip_finetune", "lr_after_first": -1.0}, r"lr_after_first=-1\.0"),
        ({"method": "clip_zero_shot", "prompt_length": 3}, r"Unknown key 'prompt_length'"),
    ],
)
def test_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make_config(values)
