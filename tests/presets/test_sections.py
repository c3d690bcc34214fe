"""Preset files: which sections hold, in which order, and what a wrong name is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.engine.config import load_config, read_preset
from perdure.errors import ConfigError, UnknownNameError
from perdure.presets import sections
from perdure.presets.sections import expand, find_preset, preset_names

SHOP = """
recipes = ["house"]
presets = ["shop-{a,b}/{nsp2,finetune}", "shop-a/nsp2-loud"]

["*"]
about = "Everything"
data = "digits"
epochs = 3
lr = 0.5

["shop-b/*"]
about = "B"
tasks = "B0-Inc5"
eta1 = 0.5
epochs = 4
"""
HOUSE = """
["*/nsp2*"]
about = "NSP²"
lr = 0.25

["*-loud"]
about = "Loud"
eta1 = 1.0
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder of preset files in place of the package's."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "shop.toml").write_text(SHOP)
    (tmp_path / "recipes" / "house.toml").write_text(HOUSE)
    monkeypatch.setattr(sections.resources, "files", lambda _: tmp_path)
    sections.preset_files.cache_clear()
    yield tmp_path
    sections.preset_files.cache_clear()


def test_expand() -> None:
    assert expand("plain") == ["plain"]
    assert expand("{a,b}-{1,2}/x") == ["a-1/x", "a-2/x", "b-1/x", "b-2/x"]


@pytest.mark.usefixtures("shop")
def test_the_section_that_holds_for_fewer_presets_wins() -> None:
    assert preset_names() == [
        "shop-a/nsp2",
        "shop-a/finetune",
        "shop-b/nsp2",
        "shop-b/finetune",
        "shop-a/nsp2-loud",
    ]
    shared = {"data": "digits"}
    assert read_preset("shop-a/finetune") == shared | {"method": "finetune", "epochs": 3, "lr": 0.5}
    assert read_preset("shop-a/nsp2") == shared | {"method": "nsp2", "epochs": 3, "lr": 0.25}
    own = {"tasks": "B0-Inc5", "epochs": 4}
    assert read_preset("shop-b/nsp2") == shared | own | {"method": "nsp2", "lr": 0.25, "eta1": 0.5}
    loud = read_preset("shop-a/nsp2-loud")
    assert (loud["method"], loud["eta1"]) == ("nsp2", 1.0)
    assert find_preset("shop-a/nsp2-loud").about == ("Loud", "NSP²", "Everything")


@pytest.mark.usefixtures("shop")
def test_a_key_passes_by_the_methods_that_lack_it() -> None:
    assert read_preset("shop-b/finetune") == {
        "method": "finetune",
        "data": "digits",
        "tasks": "B0-Inc5",
        "epochs": 4,
        "lr": 0.5,
    }


def test_a_key_that_no_method_of_its_section_has_is_refused(shop: Path) -> None:
    with (shop / "shop.toml").open("a") as file:
        file.write('\n["shop-a/finetune"]\neta1 = 0.5\n')
    with pytest.raises(
        UnknownNameError, match=r"Unknown key 'eta1' in section 'shop-a/finetune' of shop\.toml"
    ):
        read_preset("shop-a/finetune")
    assert read_preset("shop-a/nsp2")["method"] == "nsp2"


def test_the_benchmarks_own_file_wins_over_a_recipe(shop: Path) -> None:
    with (shop / "shop.toml").open("a") as file:
        file.write('\n["*/nsp2*"]\nepochs = 7\n\n["shop-b/nsp2"]\nepochs = 99\n')
    assert read_preset("shop-a/nsp2")["epochs"] == 7
    assert read_preset("shop-b/nsp2")["epochs"] == 99
    assert read_preset("shop-b/finetune")["epochs"] == 4


@pytest.mark.parametrize(
    ("file", "more", "said"),
    [
        (
            "shop.toml",
            '["*/nsp2*"]\nlr = 0.125\n',
            r"lr in section '\*/nsp2\*' of recipes/house\.toml has no effect: section '\*/nsp2\*' of "
            r"shop\.toml holds for fewer presets, or stands later, and sets it too",
        ),
        (
            "recipes/house.toml",
            '["*"]\ntasks = "B0-Inc2"\nepochs = 1\n',
            r"epochs in section '\*' of recipes/house\.toml has no effect: section '\*' of shop\.toml",
        ),
    ],
)
def test_a_key_without_effect_is_refused(shop: Path, file: str, more: str, said: str) -> None:
    with (shop / file).open("a") as opened:
        opened.write(f"\n{more}")
    with pytest.raises(ConfigError, match=said):
        read_preset("shop-a/nsp2")


def test_old_keys_of_a_section_are_understood(shop: Path) -> None:
    text = (shop / "shop.toml").read_text("utf-8").replace("data =", "stream =")
    (shop / "shop.toml").write_text(text, "utf-8")
    assert read_preset("shop-a/nsp2")["data"] == "digits"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("digits/nps2", "Did you mean 'digits/nsp2'? Known of digits: nsp2, finetune, "),
        ("digit/nsp2", "Did you mean 'digits/nsp2'? Benchmarks: cifar100, cub200, demo, "),
        ("cifar-10s/nsp2", "Did you mean 'cifar100-10s/nsp2'?"),
        ("cifar100-10s/nsp2-full_", "Did you mean 'cifar100-10s/nsp2-full'?"),
        (
            "cifar100/nsp2",
            "There is: cifar100-10s/nsp2, cifar100-20s/nsp2, cifar100-50s/nsp2. `perdure ls ",
        ),
        ("cifar100-b0-inc40/l2p", "Did you mean 'cifar100-b0-inc20/l2p'? There is: cifar100-b0-"),
        ("cub200/nsp2", "There is: cub200-b0-inc5/…, cub200-b0-inc10/…, "),
        ("foo/bar", "Unknown preset 'foo/bar'. Benchmarks: "),
    ],
)
def test_an_unknown_name_is_told_what_comes_closest(given: str, said: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_config(given)
    text = str(caught.value)
    assert text.startswith(f"Unknown preset '{given}'.")
    assert said in text
    assert len(text) < 500
    assert text.endswith("`perdure ls presets` lists the presets.")


def test_a_word_is_no_preset() -> None:
    with pytest.raises(ConfigError, match=r"A preset is benchmark/method, as digits/nsp2"):
        load_config("cifar100")
