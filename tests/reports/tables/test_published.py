"""Published numbers: what is said of a pair follows from the run, for every reason there is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from perdure.methods import METHODS
from perdure.reports.results.runs import FinishedRun, by_stream
from perdure.reports.tables.against_published import Pair, PublishedComparison, against_paper
from perdure.reports.tables.comparison import compare
from perdure.reports.tables.published import _content, _published
from tests.reports.run_folders import finished_run

TASKS, IMAGES = 10, 1000
THEIRS = {
    "epochs": 100,
    "batch_size": 256,
    "temperature": 28.0,
    "transform": "nsp2_cifar",
    "img_size": 224,
}
"""Keys in which the run of Lu et al. at 10S-CIFAR-100 is not by default."""


def cifar(folder: Path, method: str = "nsp2", *, seed: int = 2024, **given: Any) -> FinishedRun:
    """Return a run at 10S-CIFAR-100, in their setting but for what is given."""
    half = [[0.5 if on <= after else None for on in range(TASKS)] for after in range(TASKS)]
    changes = {
        "stream": "cifar100",
        "accuracy_matrix": half,
        "accuracy_curve": None,
        "confusion": None,
        "class_names": None,
        "task_sizes": [10] * TASKS,
        "test_counts": [IMAGES] * TASKS,
        "last_accuracy_task_mean": 0.5,
        **given.pop("changes", {}),
    }
    config = THEIRS if method in ("nsp2", "finetune") else {}
    return finished_run(folder, method, seed=seed, changes=changes, **(config | given))


def said(*runs: FinishedRun) -> PublishedComparison:
    (stream,) = by_stream(runs)
    return against_paper(stream, compare(stream.entries))


def pair(found: PublishedComparison, name: str, benchmark: str = "10S-CIFAR-100") -> Pair:
    (one,) = (
        pair
        for pair in found.pairs
        if (pair.published.name, pair.published.benchmark.title) == (name, benchmark)
    )
    return one


def test_the_data_are_whole() -> None:
    listed = list(_published(_content()))
    assert len(listed) == 111
    for one in listed:
        assert one.method is None or one.method in METHODS
        assert 0 < one.accuracy < 100
        assert one.benchmark.classes == sum(one.benchmark.sizes)
        assert not math.isnan(one.forgetting or 0)
        assert one.source
    names = {(one.name, one.benchmark.title, one.source) for one in listed}
    assert len(names) == len(listed)
    (main,) = (one for one in listed if (one.name, one.accuracy) == ("VPT-NSP²", 91.74))
    assert (main.deviation, main.forgetting, main.setting["eta1"]) == (0.63, 3.28, 0.97)


def test_the_same_setting_compares_without_reserve(tmp_path: Path) -> None:
    one = pair(said(cifar(tmp_path)), "VPT-NSP²")
    assert one.ours is not None
    assert (one.obstacles, one.caveats) == ((), ())


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"weights": "random"}, "random weights of vit_base_patch16_224.augreg_in21k"),
        ({"weights": "mine.npz"}, "weights from 'mine.npz', of which nobody can tell"),
        ({"img_size": 64}, "images of 64 px, not 224"),
        ({"images_per_class": 50}, "at most 50 training images per class, not 50,000 in all"),
        ({"validation_fraction": 0.25}, "25 % of the training images held out"),
        ({"imbalance": 100}, "a stream of imbalance 100, not of new classes with all their images"),
        ({"changes": {"backbone": "test_vit"}}, "backbone test_vit, not vit_base_patch16_224"),
        ({"changes": {"test_counts": [10] * TASKS}}, "100 test images, not 10,000"),
        ({"changes": {"stream": "digits"}}, "data set digits, not cifar100"),
        (
            {"changes": {"task_sizes": [5] * TASKS}},
            "10 tasks of 5 classes, not 10 tasks of 10 classes",
        ),
    ],
)
def test_what_makes_a_pair_not_comparable(
    tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    found = said(cifar(tmp_path, **given))
    (obstacle,) = pair(found, "VPT-NSP²").obstacles
    assert obstacle.startswith(reason)
    assert reason in found.others().markdown()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"epochs": 5}, "epochs 5, not 100"),
        ({"eta2": 0.5}, "eta2 0.5, not 0.97"),
        ({"transform": "plain"}, "transform plain, not nsp2_cifar"),
        ({"seed": 1}, "class orders of seed 1, not 2024 2025 2026"),
        ({"heads": ("gaussian",)}, "head gaussian, not linear"),
    ],
)
def test_what_is_said_of_another_recipe(tmp_path: Path, given: dict[str, Any], reason: str) -> None:
    found = said(cifar(tmp_path, **given))
    one = pair(found, "VPT-NSP²")
    assert (one.obstacles, one.caveats) == ((), (reason,))
    assert reason in found.comparable().markdown()


def test_an_ablation_is_told_from_the_full_method(tmp_path: Path) -> None:
    found = said(cifar(tmp_path, eta2=0.0, ln_weight=0.0))
    assert pair(found, "VPT-NSP², projection 1 alone").caveats == ()
    assert pair(found, "VPT-NSP²").caveats == ("eta2 0, not 0.97", "ln_weight 0, not 1")


def test_methods_that_were_not_run_are_listed_on_the_same_data(tmp_path: Path) -> None:
    found = said(cifar(tmp_path))
    other = pair(found, "RanPAC")
    assert other.ours is None
    assert (other.obstacles, other.caveats) == ((), ("not run here",))
    assert pair(found, "L2P").obstacles == ("their weights are not stated",)
    shown = {one.published.benchmark.stream for one in found.pairs if one.published.method is None}
    assert shown == {"cifar100"}
    assert found.left_out > 0


def test_seeds_show_mean_and_deviation(tmp_path: Path) -> None:
    runs = [
        cifar(tmp_path / f"{seed}", seed=seed, changes={"last_accuracy_task_mean": accuracy})
        for seed, accuracy in ((2024, 0.9), (2025, 0.92))
    ]
    found = said(*runs)
    assert "| nsp2 · linear | 91.00 ± 1.41 |" in found.comparable().markdown()
    (record,) = (
        one
        for one in found.records()
        if (one["published"], one["benchmark"]) == ("VPT-NSP²", "10S-CIFAR-100")
    )
    assert record["comparable"]
    assert (record["accuracy"], record["our_accuracy"]) == pytest.approx((0.9174, 0.91))


def test_a_run_without_its_configuration_compares_with_nothing(tmp_path: Path) -> None:
    run = cifar(tmp_path)
    blind = FinishedRun(run.folder, run.entries, {}, {})
    found = said(blind)
    assert found.comparable().rows == []
    assert pair(found, "VPT-NSP²").obstacles == ("the run's config.toml is not at hand",)


def test_a_method_without_any_number_is_named(tmp_path: Path) -> None:
    (note,) = said(finished_run(tmp_path, "iprompt")).notes
    assert note.startswith(
        "I-Prompt (Han et al., WACV 2025): no published number could be obtained"
    )
