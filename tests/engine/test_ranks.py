"""Several processes learn what one learns, and say why they cannot."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from perdure.engine.checkpoint import MANIFEST, Checkpoints
from perdure.engine.events import Event
from perdure.engine.ranks import Group, Ranks, refuse_differences
from perdure.engine.run import Run
from perdure.errors import ConfigError, OutputError, RankError
from perdure.streams import Subset
from perdure.testing.trial import make_trial
from tests.engine.ranks_together import RUN, SIZES, in_float64, learned, together

pytestmark = [
    pytest.mark.usefixtures("unchecked"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.timeout(900),  # processes that wait for each other, beside others at work
]

BOTH = ["linear", "gaussian"]
CASES: dict[str, dict[str, Any]] = {
    "nsp2": {"heads": BOTH},
    "iprompt": {"heads": BOTH},
    "coda_prompt": {"heads": BOTH},
    "l2p": {"heads": BOTH},
    "clip_nsp2": {"temperature": 28.0},  # at CLIP's own scale nothing is left to learn here
    "pgp": {"drift": "linear", "heads": ["linear", "gaussian"]},
    "dualprompt": {"protect": "sensitivity", "cache_queries": True},
    "l2p_nsp2": {"transform": "flip_crop"},
    "finetune": {"protect": "sensitivity", "drift": "anchored", "heads": BOTH},
    "joint": {"head_inputs": "centred"},
    "lda": {"heads": ["gaussian", "ridge"]},
}
FIRST = ("nsp2", "iprompt", "coda_prompt", "l2p", "clip_nsp2")
"""Those of the default suite; the others are like them."""


def group(rank: int, count: int) -> Group:
    """A rank that has met nobody: for what needs no exchange."""
    return Group(rank, count, torch.device("cpu"))


@given(st.integers(1, 7), st.integers(1, 40), st.integers(1, 9))
def test_shares_and_shards_cut_everything_once(count: int, size: int, batch: int) -> None:
    ranks = [group(rank, count) for rank in range(count)]
    positions = list(range(100, 100 + size))
    weights = [one.weight(size) for one in ranks]
    shares = [one.share(positions) for one in ranks]
    assert sum(weights) == pytest.approx(1)
    assert [p for s, w in zip(shares, weights, strict=True) if w for p in s] == positions
    assert all(shares), "a rank without images of its own computes one that weighs nothing"
    subset = Subset(None, np.arange(7, 7 + size), torch.arange(size))  # type: ignore[arg-type]
    cuts = [one.shard(subset, batch) for one in ranks]
    assert np.array_equal(np.concatenate([part.indices for part, _ in cuts]), subset.indices)
    assert all(start % batch == 0 for _, start in cuts)
    assert [s for part, s in cuts if len(part)] == sorted({s for part, s in cuts if len(part)})


def compared(alone: Any, several: list[Any], tolerance: float) -> None:
    """Assert that all ranks have the same, and what one process has."""
    for state, counts in several:
        for name, value in state.items():
            assert torch.equal(value, several[0][0][name]), f"{name} differs between ranks"
        for head, tables in counts.items():
            for name, table in tables.items():
                assert np.array_equal(table, alone[1][head][name]), (head, name)
    for name, value in alone[0].items():
        theirs = several[0][0][name]
        if not value.is_floating_point():
            assert torch.equal(value, theirs), name
            continue
        if "sensitivity_basis" in name:
            # Where eigenvalues lie within rounding of the largest, any turn of their vectors is as
            # good: what is the same is the Gram that they are taken from.
            distance = _distance(_gram(alone[0], name), _gram(several[0][0], name))
        else:
            distance = _distance(value, theirs)
        assert distance < tolerance, (name, distance)


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / one.norm().clamp(min=1e-30))


def _gram(state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """The matrix of which a state holds eigenvectors, and eigenvalues beside them."""
    basis, values = state[name], state[name.replace("sensitivity_basis", "sensitivity_values")]
    return (basis * values) @ basis.T


def doubled(ranks: Ranks, names: tuple[str, ...]) -> dict[str, Any]:
    in_float64()
    return {name: learned(ranks, name, **CASES[name]) for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_every_method_learns_the_same_on_ranks(name: str, count: int, tmp_path: Path) -> None:
    work = functools.partial(doubled, names=(name,))
    alone = together(1, work, tmp_path / "1")[0]
    several = together(count, work, tmp_path / str(count))
    compared(alone[name], [one[name] for one in several], 1e-9)


def resumed(ranks: Ranks, folder: Path, stop: int) -> Any:
    """Learn with checkpoints; rank 0 fails at a training step, for -1 at none."""
    in_float64()
    steps = 0

    def watch(event: Event) -> None:
        nonlocal steps
        steps += event.fields.get("phase") == "training"
        if steps == stop and ranks.first:
            raise StopIteration

    made = make_trial("nsp2", sizes=SIZES, heads=BOTH, **RUN)
    run = Run(made.config, made.stream, made.backbone, folder, watch, ranks)
    try:
        outcome = run()
    except (StopIteration, RankError) as error:
        return type(error).__name__
    return outcome.model.state(), {head: vars(one) for head, one in outcome.counts.items()}


@pytest.mark.long
def test_run_stops_with_a_rank_and_goes_on_with_other_numbers(tmp_path: Path) -> None:
    """Rank 0 fails in the second task; the other says so, and three processes end the run."""
    alone = together(1, functools.partial(resumed, folder=tmp_path / "a", stop=-1), tmp_path / "1")[
        0
    ]
    stopped = functools.partial(resumed, folder=tmp_path / "b", stop=7)
    assert sorted(map(str, together(2, stopped, tmp_path / "2"))) == ["RankError", "StopIteration"]
    ended = together(3, functools.partial(resumed, folder=tmp_path / "b", stop=-1), tmp_path / "3")
    compared(alone, ended, 1e-9)


def filled(ranks: Ranks, folder: Path) -> tuple[str, float]:
    """Learn until the disk of rank 0 is full, at the fourth checkpoint; tells what is said and when."""
    writes, fsync = 0, os.fsync
    full = time.monotonic()

    def fail(number: int) -> None:
        nonlocal writes, full
        writes += Path(f"/proc/self/fd/{number}").readlink().parent == folder
        if writes > 6:  # a file and the manifest each
            full = time.monotonic()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    if ranks.first:
        os.fsync = fail
    in_float64()
    with pytest.raises((OutputError, RankError)) as caught:
        learned(ranks, "nsp2", folder, heads=BOTH)
    if ranks.first:
        dist.destroy_process_group()  # as the end of the process does
        return str(caught.value), full
    return str(caught.value), time.monotonic()


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks up names of open files")
def test_full_disk_of_the_first_rank_stops_all_and_the_run_goes_on(tmp_path: Path) -> None:
    """Rank 0 names the file, the other says that it stops, and the checkpoints before are whole."""
    folder = tmp_path / "b"
    (first, full), (second, stopped) = together(
        2, functools.partial(filled, folder=folder), tmp_path / "2"
    )
    assert f"Cannot write '{folder}" in first
    assert "the disk is full" in first
    assert "Rank 1 of 2 stops: another rank has ended" in second
    assert stopped - full < 30
    point = Checkpoints(folder, json.loads((folder / MANIFEST).read_text())["config_hash"]).latest()
    assert point is not None
    assert point.begun or point.stages_done
    work = functools.partial(resumed, stop=-1)
    alone = together(1, functools.partial(work, folder=tmp_path / "a"), tmp_path / "1")[0]
    compared(alone, together(2, functools.partial(work, folder=folder), tmp_path / "3"), 1e-9)


def differing(ranks: Ranks) -> str:
    with pytest.raises(ConfigError) as caught:
        refuse_differences(ranks, {"torch": f"2.{ranks.rank}", "lr": 0.1}, "versions and keys")
    return str(caught.value)


def test_ranks_that_differ_are_refused_naming_the_difference(tmp_path: Path) -> None:
    for text in together(2, differing, tmp_path / "2"):
        assert "same versions and keys: torch is 2.0 on rank 0 and 2.1 on rank 1." in text


def failing(ranks: Ranks) -> tuple[str, str]:
    def make() -> None:
        raise ConfigError("the folder is taken")

    with pytest.raises((ConfigError, RankError)) as caught:
        ranks.from_first(make)
    return type(caught.value).__name__, str(caught.value)


def test_what_the_first_rank_refuses_all_refuse(tmp_path: Path) -> None:
    first, second = together(2, failing, tmp_path / "2")
    assert first == ("ConfigError", "the folder is taken")
    assert second == ("RankError", "Rank 1 stops, because rank 0 does: the folder is taken")


def test_batches_that_cannot_be_shared_are_refused() -> None:
    made = make_trial("nsp2", batch_size=2)
    with pytest.raises(ConfigError, match="batch_size=2 is shared by 3 processes"):
        Run(made.config, made.stream, made.backbone, ranks=group(0, 3))
    voting = make_trial("l2p", vote="batch")
    with pytest.raises(ConfigError, match="vote=batch: the images of a batch choose"):
        Run(voting.config, voting.stream, voting.backbone, ranks=group(0, 2))


STEPS = 4
"""Of an epoch of sixteen images: batches of 5, 5, 5 and 1."""


def summed(ranks: Ranks) -> dict[str, Any]:
    """Gradients and loss terms of every step of an epoch in which nothing moves, by method."""
    steps: dict[str, list[Any]] = {name: [] for name in FIRST}
    sum_gradients = ranks.sum_gradients
    for name, told in steps.items():

        def noting(parameters: Any, terms: Any, weight: float, told: list[Any] = told) -> Any:
            terms = sum_gradients(parameters, terms, weight)
            told.append(([p.grad for p in parameters], terms))
            if len(told) == STEPS:
                raise StopIteration
            return terms

        ranks.sum_gradients = noting  # type: ignore[method-assign]
        with contextlib.suppress(StopIteration):
            learned(ranks, name, **CASES[name], sizes=(2,), lr=1e-30)
    return steps


@pytest.mark.long
def test_summed_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    """In float32; of the last batch's one image, all ranks but one compute with weight 0."""
    alone = together(1, summed, tmp_path / "1")[0]
    for count in (2, 3):
        for steps in together(count, summed, tmp_path / str(count)):
            for name in FIRST:
                assert len(steps[name]) == STEPS
                for (ours, terms), (theirs, expected) in zip(steps[name], alone[name], strict=True):
                    assert terms == pytest.approx(expected, rel=1e-5, abs=1e-6), name
                    largest = max(float(one.norm()) for one in theirs if one is not None)
                    for one, other in zip(ours, theirs, strict=True):
                        assert (one is None) == (other is None), name
                        if one is not None:
                            apart = float((one - other).norm())
                            assert apart <= 1e-5 * float(other.norm()) + 1e-7 * largest, name


def one_step(ranks: Ranks) -> dict[str, Any]:
    found = {}
    for name in FIRST:
        options = {**CASES[name], "sizes": (2,), "images": 4, "batch_size": 8}
        found[name] = learned(ranks, name, **options)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_one_step_in_float32_is_the_same_within_rounding(count: int, tmp_path: Path) -> None:
    alone = together(1, one_step, tmp_path / "1")[0]
    several = together(count, one_step, tmp_path / str(count))
    for name in FIRST:
        for key, value in alone[name][0].items():
            if "projector" in key or not value.is_floating_point():
                continue  # the null space of a task is compared in float64
            distance = float((value - several[0][name][0][key]).norm() / value.norm())
            # Adam's first step is g / (|g| + 1e-8): a component of about 1e-8 or less, as most are of
            # I-Prompt's keys, moves by its rounding. The gradients themselves agree, see above.
            bound = {"iprompt": 1e-3, "coda_prompt": 1e-4}.get(name, 1e-5)
            assert not value.any() or distance < bound, (name, key, distance)
