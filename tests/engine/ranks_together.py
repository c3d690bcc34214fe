"""Ranks as forked processes of a test, which meet over gloo and hand back what they found."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from perdure.backbones import frozen
from perdure.engine.ranks import ALONE, Group, Ranks
from perdure.engine.run import Run
from perdure.testing import trial

SIZES = (2, 2, 2)
"""Three tasks of sixteen images: batches of 5, 5, 5 and 1, and two of a survey, none for rank 2."""
RUN: dict[str, Any] = {"batch_size": 5, "eval_batch_size": 12, "checkpoint_every": 2}


def together(count: int, work: Callable[[Ranks], Any], folder: Path) -> list[Any]:
    """Return what ``work`` gives on each rank, in processes forked from this one."""
    folder.mkdir(parents=True)
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=_rank, args=(r, count, work, folder)) for r in range(count)]
    for one in started:
        one.start()
    for one in started:
        one.join()
    failed = "\n".join(one.read_text() for one in sorted(folder.glob("*.txt")))
    assert not any(one.exitcode for one in started), failed
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(count)]


def _rank(rank: int, count: int, work: Callable[[Ranks], Any], folder: Path) -> None:
    try:
        torch.set_num_threads(1)
        if count > 1:
            dist.init_process_group(
                "gloo",
                init_method=f"file://{folder / 'meet'}",
                rank=rank,
                world_size=count,
                timeout=timedelta(seconds=60),
            )
        ranks = Group(rank, count, torch.device("cpu")) if count > 1 else ALONE
        torch.save(work(ranks), folder / f"{rank}.pt")
    except BaseException:
        (folder / f"{rank}.txt").write_text(traceback.format_exc())
        raise
    if dist.is_initialized():  # unless the work has ended it
        dist.destroy_process_group()


def learned(
    ranks: Ranks, method: str, folder: Path | None = None, **options: Any
) -> tuple[dict[str, torch.Tensor], Any]:
    """Run a method over the tasks, and return its state and counts."""
    made = trial.make_trial(method, **{"sizes": SIZES, **RUN, **options})
    outcome = Run(made.config, made.stream, made.backbone, folder, ranks=ranks)()
    return outcome.model.state(), {head: vars(one) for head, one in outcome.counts.items()}


def in_float64() -> None:
    """Let this process compute in float64 wherever it would in float32."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    torch.float32 = torch.float64  # type: ignore[misc]
    frozen.DTYPES["fp32"] = torch.float64
    trial._built.clear()  # a backbone that tests before this one have left here is in float32
