"""Ranks: one task learned by one process and by several of one thread each, in pairs in turn.

    python benchmarks/speed/ranks.py [--method NAME] [--processes N] [--pairs N]

Weights and images are random: time does not depend on them. The bytes are those that a rank hands to
all-reduce at each training step, and to broadcasts and objects over the task.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from perdure.engine.build import make_backbone, make_stream
from perdure.engine.config import Config, make_config
from perdure.engine.events import Event
from perdure.engine.ranks import ALONE, Group
from perdure.engine.run import Run

Measured = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", default="nsp2")
    parser.add_argument("--backbone", default="clip_vit_base_patch16")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    args = parser.parse_args()
    config = make_config(
        {
            "method": args.method,
            "backbone": args.backbone,
            "weights": "random",
            "precision": "fp32",
            "device": "cpu",
            "data": "synthetic:2x224",
            "images_per_class": args.images // 2,
            "test_images_per_class": args.images // 2,
            "tasks": "2",
            "epochs": 2,
            "batch_size": args.batch_size,
            "eval_batch_size": args.batch_size // 2,
            "class_embeddings": "mean",
        }
    )
    one, several = [], []
    for _ in range(args.pairs):
        one.append(measured(config, 1))
        several.append(measured(config, args.processes))
    print(f"{args.method}, {args.backbone}, batches of {args.batch_size}, one thread a process")
    for phase in ("training", "all"):
        ratios = sorted(a[phase] / b[phase] for a, b in zip(one, several, strict=True))
        print(
            f"{phase}: {args.processes} processes are {statistics.median(ratios):.2f} x one "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    print(f"bytes per step, all-reduced: {several[0]['step']:,.0f}")
    print(f"bytes over the task, broadcast: {several[0]['broadcast']:,.0f}")


def measured(config: Config, count: int) -> Measured:
    """Learn the task on so many processes, and return rank 0's seconds and bytes."""
    fork = multiprocessing.get_context("fork")
    results: Queue[Measured] = fork.Queue()
    with tempfile.TemporaryDirectory() as folder:
        started = [
            fork.Process(target=learn, args=(config, rank, count, Path(folder) / "meet", results))
            for rank in range(count)
        ]
        for one in started:
            one.start()
        found = results.get()
        for one in started:
            one.join()
    return found


def learn(config: Config, rank: int, count: int, meet: Path, results: Queue[Measured]) -> None:
    torch.set_num_threads(1)
    sizes: dict[str, list[int]] = {"all_reduce": [], "broadcast": []}
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=count)
        for name, seen in sizes.items():
            setattr(dist, name, counting(getattr(dist, name), seen))
    ranks = Group(rank, count, torch.device("cpu")) if count > 1 else ALONE
    run = Run(
        config, make_stream(config), make_backbone(config), sink=(watch := Watch()), ranks=ranks
    )
    if count > 1:
        dist.barrier()
    begun = time.perf_counter()
    run()
    if rank == 0:
        seconds = time.perf_counter() - begun
        steps = sizes["all_reduce"] or [0]
        results.put(
            {
                "all": seconds,
                "training": watch.seconds,
                "step": max(steps),
                "broadcast": sum(sizes["broadcast"]),
            }
        )
    if count > 1:
        dist.destroy_process_group()


class Watch:
    """Sink that measures the time from the first training step to the last."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def __call__(self, event: Event) -> None:
        """Note the time of a training step."""
        if event.kind == "progress" and event.fields["phase"] == "training":
            self._times.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Time between the first step's end and the last's."""
        return self._times[-1] - self._times[0]


def counting(collective: Any, seen: list[int]) -> Any:
    """The collective, noting the bytes of its tensor."""

    def counted(tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
        seen.append(tensor.numel() * tensor.element_size())
        return collective(tensor, *args, **options)

    return counted


if __name__ == "__main__":
    main()
