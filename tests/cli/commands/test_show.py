"""``perdure ls`` and ``perdure show``."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from perdure.cli.commands.ls import LISTS
from perdure.cli.config_keys import describe_keys, type_in_words
from perdure.engine.config import PARTS, TrainingConfig, load_config
from perdure.heads import HEADS
from perdure.methods import METHODS
from perdure.presets.sections import expand, preset_names
from perdure.streams import SOURCES, TRANSFORMS
from tests.cli.command import Perdure

NAMES = {
    "heads": set(HEADS),
    "methods": set(METHODS),
    "presets": set(preset_names()),
    "data": set(SOURCES),
    "transforms": set(TRANSFORMS),
}


def test_every_kind_is_listed() -> None:
    assert set(LISTS) == {*NAMES, "backbones"}


@pytest.mark.parametrize("kind", LISTS)
def test_ls(perdure: Perdure, kind: str, tmp_path: Path) -> None:
    said = perdure("ls", kind, "--json")
    assert (said.code, said.err) == (0, "")
    items = json.loads(said.out)
    assert all(item["name"] and item["summary"] for item in items)
    names = [item["name"] for item in items]
    assert len(set(names)) == len(names)
    if kind in NAMES:
        assert set(names) == NAMES[kind]
    for_people = perdure("ls", kind, "/" if kind == "presets" else "")
    lines = for_people.out.splitlines()
    first = [line.split()[0] for line in lines if line]
    if kind == "backbones":
        assert [word for word in first if word in names] == names
        assert first.count("name") == len({item["use"] for item in items})
    else:
        assert first == ["name", *names]
    assert not any(line.endswith(" ") for line in lines)
    assert not (tmp_path / "cache").exists()


def test_ls_presets_is_a_page_that_names_them_all(perdure: Perdure) -> None:
    said = perdure("ls", "presets")
    head, *lines = said.out.splitlines()
    assert head.split() == ["benchmark", "presets"]
    assert len(lines) <= 40
    assert [name for line in lines for name in expand(line.split()[-1])] == preset_names()
    assert said.err.startswith(f"{len(preset_names())} presets; ")


@pytest.mark.parametrize(
    ("text", "count"),
    [("cifar100", 81), ("cifar100-10s/", 26), ("/iprompt", 31), ("/nsp2-dino", 4)],
)
def test_ls_narrows(perdure: Perdure, text: str, count: int) -> None:
    items = json.loads(perdure("ls", "presets", text, "--json").out)
    assert len(items) == count
    assert all(text in item["name"] for item in items)
    lines = perdure("ls", "presets", text).out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *(item["name"] for item in items)]


def test_ls_of_a_text_that_no_name_has(perdure: Perdure) -> None:
    said = perdure("ls", "presets", "fashion-mnist")
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "error: None of the presets has 'fashion-mnist' in its name. Did you mean "
        "'fashion_mnist'? `perdure ls presets` lists all.\n"
    )
    assert json.loads(perdure("ls", "backbones", "dinov2", "--json").out)


def test_ls_backbones_knows_what_is_at_hand(perdure: Perdure, tmp_path: Path) -> None:
    def at_hand() -> dict[str, bool]:
        return {
            item["name"]: item["at_hand"]
            for item in json.loads(perdure("ls", "backbones", "--json").out)
        }

    assert at_hand()["clip_vit_base_patch16"] is False
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    (tmp_path / "cache" / "weights" / "clip_vit_base_patch16.safetensors").touch()
    assert at_hand()["clip_vit_base_patch16"] is True
    assert "vit_base_patch16_224.augreg_in21k" in at_hand()


def test_ls_methods_says_who_sees_old_images(perdure: Perdure) -> None:
    items = {item["name"]: item for item in json.loads(perdure("ls", "methods", "--json").out)}
    assert [name for name, item in items.items() if item["sees_old_images"]] == [
        "clip_joint",
        "joint",
    ]
    assert "NeurIPS 2024" in items["nsp2"]["paper"]
    assert "mean and one D × D factor" in items["clip_finetune"]["keeps_of_old_images"]


def test_ls_of_an_unknown_kind(perdure: Perdure) -> None:
    said = perdure("ls", "method")
    assert (said.code, said.out) == (2, "")
    assert "Unknown kind 'method'. Did you mean 'methods'?" in said.err


@pytest.mark.parametrize("method", sorted(METHODS))
def test_show_method(perdure: Perdure, method: str) -> None:
    said = perdure("show", method)
    assert said.code == 0
    assert METHODS[method].traits.summary in said.out
    assert METHODS[method].traits.paper in said.out
    for option in describe_keys(METHODS[method].Config):
        line = next(line for line in said.out.splitlines() if line.startswith(f"{option.name} "))
        assert option.type in line
        assert option.about in line


@pytest.mark.parametrize("config", [*PARTS, *(method.Config for method in METHODS.values())])
def test_every_option_is_explained(config: type[Any]) -> None:
    for option in describe_keys(config):
        assert len(option.about) > 10, f"{config.__name__}: {option.name} is not explained"
        assert "typing" not in option.type, option.type


def test_options_of_methods_do_not_hide_keys_of_runs() -> None:
    shared = {option.name for part in PARTS for option in describe_keys(part)}
    for name, method in METHODS.items():
        assert not shared & {option.name for option in describe_keys(method.Config)}, name


def test_type_in_words() -> None:
    assert type_in_words(tuple[float, ...]) == "list of numbers"
    assert type_in_words(str | tuple[int, ...]) == "text | list of integers"
    words = {option.name: option.type for option in describe_keys(TrainingConfig)}
    assert words["schedule"] == "milestones | cosine | constant"
    assert words["img_size"] == "integer | none"
    assert words["cache_queries"] == "true | false"


def test_show_run_lists_the_keys_of_every_run(perdure: Perdure) -> None:
    said = perdure("show", "run", "--json")
    (item,) = json.loads(said.out)
    options = {option["name"]: option for option in item["options"]}
    assert options["epochs"] == {
        "name": "epochs",
        "type": "integer",
        "default": 10,
        "about": "passes over a task's training images.",
    }
    assert {"shrinkage", "head_init", "method"} <= set(options)
    assert "Keys of every run" in perdure("show", "run").out


@pytest.mark.parametrize("name", ["digits/nsp2", "demo/lda", "cifar100-10s/nsp2-b1+ln"])
def test_show_preset_prints_a_file_that_runs(perdure: Perdure, tmp_path: Path, name: str) -> None:
    said = perdure("show", name)
    assert said.code == 0
    assert f"# perdure run {name}" in said.out
    file = tmp_path / "shown.toml"
    file.write_text(said.out)
    assert load_config(str(file)).hash() == load_config(name).hash()
    chosen = said.out.partition("# defaults")[0]
    assert set(tomllib.loads(chosen)) == set(
        json.loads(perdure("show", name, "--json").out)[0]["set_by_preset"]
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "cifar100-10s/nsp2",
            [
                "# VPT-NSP²",
                "# published: last_accuracy_task_mean 91.74 ± 0.63 %, forgetting 3.28 points",
                "#   as VPT-NSP², Lu et al., NeurIPS 2024, arXiv 2406.05658: main results",
                "#   on which hardware, and in what time, is stated in none of our sources",
            ],
        ),
        (
            "imagenet_r-10s/nsp2-b1",
            [
                "# Table 3: projection 1 (affinity) alone",
                "# published: last_accuracy_task_mean 78.05 %, forgetting 8.14 points",
                "#   as VPT-NSP², projection 1 alone, Lu et al., NeurIPS 2024, arXiv 2406.05658: "
                "Table 3, ablation",
            ],
        ),
        (
            "cifar100-b0-inc10/l2p",
            [
                "#   as L2P, listed by Lu et al., NeurIPS 2024, arXiv 2406.05658: comparison with "
                "other methods; its setting is not stated",
            ],
        ),
        ("digits/nsp2", ["# published: no score, hardware or time that is known to us"]),
    ],
)
def test_show_preset_says_what_is_published(
    perdure: Perdure, name: str, expected: list[str]
) -> None:
    lines = perdure("show", name).out.splitlines()
    assert [line for line in expected if line not in lines] == []


def test_show_preset_of_iprompt_has_no_score(perdure: Perdure) -> None:
    said = perdure("show", "imagenet_r-b100-inc20/iprompt")
    assert "# published: no score, hardware or time that is known to us" in said.out
    assert "no published number could be obtained" in said.out
    (item,) = json.loads(perdure("show", "cifar100-b0-inc5/iprompt", "--json").out)
    assert item["published"] == []
    assert any("could not be obtained" in line for line in item["about"])


def test_show_preset_as_json_has_fractions(perdure: Perdure) -> None:
    (item,) = json.loads(perdure("show", "domainnet200-10s/clip_nsp2", "--json").out)
    (published,) = item["published"]
    assert published["accuracy"] == pytest.approx(0.7704)
    assert published["forgetting"] == pytest.approx(0.1833)
    assert published["deviation"] is None
    assert published["seeds"] == [2024, 2025, 2026]
    assert item["benchmark"] == "domainnet200"


def test_show_everything_of_one_name(perdure: Perdure) -> None:
    kinds = [item["kind"] for item in json.loads(perdure("show", "nsp2", "--json").out)]
    assert kinds == ["method", "transform"]
    assert [item["kind"] for item in json.loads(perdure("show", "linear", "--json").out)] == [
        "head",
        "method",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("folder", "FOLDER/train/CLASS/*"),
        ("fashion_mnist", "60,000 training"),
        ("clip_vit_base_patch16", "MIT"),
        ("vit_base_patch16_224.augreg_in21k", "the papers' backbone"),
        ("vit_small_patch16_224", "vit_small_patch16_224.augreg_in21k_ft_in1k"),
        ("gaussian", "pooled covariance"),
        ("nsp2_cifar", "CIFAR-10 policy"),
    ],
)
def test_show_others(perdure: Perdure, name: str, expected: str) -> None:
    said = perdure("show", name)
    assert (said.code, said.err) == (0, "")
    assert expected in said.out
    assert "Raises" not in said.out


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("nps2", "nsp2"),
        ("gausian", "gaussian"),
        ("clip_vit_base_patch_16", "clip_vit_base_patch16"),
        ("fashion", "fashion_mnist"),
        ("flipcrop", "flip_crop"),
    ],
)
def test_show_of_an_unknown_name(perdure: Perdure, given: str, meant: str) -> None:
    said = perdure("show", given)
    assert (said.code, said.out) == (2, "")
    assert f"Unknown name '{given}'. Did you mean '{meant}'?" in said.err


def test_show_of_an_unknown_preset(perdure: Perdure) -> None:
    said = perdure("show", "digit/nsp2")
    assert (said.code, said.out) == (2, "")
    assert "Unknown preset 'digit/nsp2'. Did you mean 'digits/nsp2'?" in said.err
