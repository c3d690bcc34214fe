"""Configuration: flat keys, overrides, and errors that say what to type."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import perdure
from perdure.engine.config import NEUTRAL, load_config, make_config, parts_of, read_overrides
from perdure.errors import ConfigError, UnknownNameError
from perdure.keys import keys_of
from perdure.methods import METHODS


def test_no_key_has_two_meanings() -> None:
    for name in METHODS:
        keys = keys_of(*parts_of(name))
        assert len(keys) == len(set(keys)), name


def test_neutral_keys_alone_leave_the_hash() -> None:
    config = make_config({"method": "nsp2"})
    other = {"device": "cuda", "eval_batch_size": 7, "workers": 3, "checkpoint_every": 9}
    other |= {"logger": "tensorboard", "chosen_on": "first_task", "devices": 2, "nodes": 3}
    assert other.keys() == {*NEUTRAL}
    assert config.replace(**other).hash() == config.hash()
    for key, value in {"epochs": 3, "data": "synthetic", "precision": "fp32", "eta1": 0.5}.items():
        assert config.replace(**{key: value}).hash() != config.hash(), key


def test_the_batch_decides_where_its_images_vote() -> None:
    for name in ("l2p", "dualprompt"):
        alone, voting = (make_config({"method": name, "vote": vote}) for vote in ("image", "batch"))
        assert alone.replace(eval_batch_size=7).hash() == alone.hash()
        assert voting.replace(eval_batch_size=7).hash() != voting.hash()
        assert voting.replace(workers=3).hash() == voting.hash()


WITHOUT_TORCH = """
import sys
from perdure.engine.config import load_config
from perdure.errors import UnknownNameError
config = load_config("cifar100-10s/nsp2", ["heads=linear,gaussian", "data=synthetic:4x8"])
assert config.head_names == ("linear", "gaussian") and not config.needs_text
try:
    config.replace(epoch=3)
except UnknownNameError as error:
    assert "Did you mean 'epochs'?" in str(error)
for module in ("methods", "heads", "streams", "language", "learner", "backbones.catalog"):
    __import__(f"perdure.{module}")
heavy = {"torch", "torchvision", "timm", "sklearn", "matplotlib", "PIL", "numpy", "pandas"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_a_configuration_is_checked_without_torch() -> None:
    path = {**os.environ, "PYTHONPATH": str(Path(perdure.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True, env=path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "nps2"}, "Did you mean 'nsp2'"),
        ({"method": "nsp2", "epoch": 3}, "Did you mean 'epochs'"),
        ({"method": "finetune", "eta1": 0.5}, "Unknown key"),
        ({"method": "nsp2", "epochs": 0}, "epochs=0"),
        ({"method": "nsp2", "epochs": "many"}, "epochs='many'"),
        ({"method": "nsp2", "schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"method": "nsp2", "eta1": 1.5}, "at most 1"),
        ({"method": "nsp2", "prompt_length": 2}, "at least 3"),
        ({"method": "nsp2", "temperature": 0}, "above 0"),
        ({"method": "nsp2", "heads": ["gausian"]}, "Did you mean 'gaussian'"),
        ({"method": "nsp2", "heads": ["linear", "linear"]}, "at most once"),
        ({"method": "ncm", "heads": ["linear"]}, "Leave heads out"),
        ({"method": "lda", "heads": ["linear"]}, "Name heads in closed form"),
        ({"method": "nsp2", "validation_fraction": 1.0}, "validation_fraction=1.0"),
        ({}, "method=NAME"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(values)


def test_overrides_are_typed(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text('method = "nsp2"\nepochs = 5\n')
    config = load_config(
        str(preset),
        ["epochs=2", "lr=0.5", "heads=linear,gaussian", "prompt_blocks=0,1", "img_size=none"],
    )
    assert config.training.epochs == 2
    assert config.training.lr == 0.5
    assert config.head_names == ("linear", "gaussian")
    assert config.method.prompt_blocks == (0, 1)  # type: ignore[attr-defined]
    assert config.training.img_size is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("image_column=1", "1"),
        ("class_order=2024", "2024"),
        ("drift_images=/photos, 2024", "/photos, 2024"),
        ("weights=true", "true"),
        ("tasks=10", "10"),
        ("tasks=4,3,3", (4, 3, 3)),
        ("image_column=none", None),
    ],
)
def test_what_is_typed_for_a_text_stays_one(text: str, value: object) -> None:
    keys = read_overrides(["data=table:t.csv", "drift=linear", "heads=gaussian", text])
    config = make_config({"method": "finetune", **keys, "heads": "linear,gaussian"})
    assert config.flat().get(text.partition("=")[0]) == value


def test_override_without_equals_is_refused(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text('method = "nsp2"\n')
    with pytest.raises(ConfigError, match="key=value"):
        load_config(str(preset), ["epochs"])


def test_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No file"):
        load_config(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("method = ")
    with pytest.raises(ConfigError, match="TOML"):
        load_config(str(tmp_path / "bad.toml"))


def test_unknown_preset() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'digits/nsp2'"):
        load_config("digits/nps2")
    with pytest.raises(ConfigError, match="benchmark/method"):
        load_config("zzz")


def test_hash_ignores_what_does_not_change_results() -> None:
    base = make_config({"method": "nsp2"})
    assert base.hash() == base.replace(workers=2, eval_batch_size=7, checkpoint_every=1).hash()
    assert base.hash() != base.replace(seed=1).hash()
    assert base.hash() != base.replace(eta1=0.5).hash()
