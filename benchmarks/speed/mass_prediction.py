"""Mass prediction on Ray beside one process: images per second in turn, and memory by images.

    python benchmarks/speed/mass_prediction.py --pairs 5
    python benchmarks/speed/mass_prediction.py --memory 1000,10000,100000

The first predicts the same tars in turn by two actors of one thread each and by one process with two
threads, and prints the ratio of each pair; the start of either is left out (nothing is timed before
its second shard is finished). The second predicts folders of hard links to one image with a tiny
model, and prints the most memory that the command and an actor of it took.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import tarfile
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from perdure.cluster.prediction import Actors, Prediction, predict_on_ray
from perdure.cluster.shards import images_in, shards_of
from perdure.learner import ContinualClassifier
from perdure.learner.predict_files import predict_files
from perdure.learner.saved.model import read_model
from perdure.streams.config import StreamConfig
from perdure.streams.images.find_images import walk
from perdure.testing.trial import BACKBONE, SIDE

BATCH = 32
WARM = 2
"""Shards before the clock starts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--memory", default="", help="numbers of images")
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--images", type=int, default=64, help="images of a shard")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.pairs:
            throughput(Path(folder), args)
        if args.memory:
            memory(Path(folder), [int(count) for count in args.memory.split(",")])


def model(folder: Path, backbone: str, **options: Any) -> Path:
    """A model of two classes with random weights."""
    pixels = list(np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8))
    classifier = ContinualClassifier(
        "lda", backbone, device="cpu", options={"weights": "random", "precision": "fp32", **options}
    )
    classifier.learn(pixels, list("aabbaabb")).save(folder)
    return folder


def throughput(folder: Path, args: argparse.Namespace) -> None:
    saved = model(folder / "model", args.backbone)
    state = read_model(saved)
    tars = [
        str(write(folder / f"{number}.tar", number, args.images)) for number in range(args.shards)
    ]
    asked = Prediction(str(saved), state.head_name(None), 5, BATCH, None)
    ratios = []
    for pair in range(args.pairs):
        ours, theirs = on_ray(asked, tars, folder / f"out-{pair}"), alone(state, tars)
        ratios.append(theirs / ours)
        shown = [args.images * (args.shards - WARM) / seconds for seconds in (ours, theirs)]
        print(
            f"pair {pair + 1}: Ray {shown[0]:.1f}, one process {shown[1]:.1f} images/s", flush=True
        )
    print(
        f"{args.backbone}, {args.shards} tars of {args.images} images, batches of {BATCH}: 2 actors of "
        f"1 thread over 1 process of 2 threads: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} … {max(ratios):.2f})"
    )


def write(path: Path, seed: int, images: int) -> Path:
    """A tar of photographs' size and content, as JPEG takes them for."""
    random = np.random.default_rng(seed)
    with tarfile.open(path, "w") as packed:
        for place in range(images):
            coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            file = io.BytesIO()
            coarse.resize((400, 300), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            info = tarfile.TarInfo(f"{place:05d}.jpg")
            info.size = file.tell()
            file.seek(0)
            packed.addfile(info, file)
    return path


def on_ray(asked: Prediction, tars: Sequence[str], out: Path) -> float:
    """Seconds from the end of the last warm shard to that of the last."""
    ends: list[float] = []

    def note(done: int, shards: int) -> None:
        if done:
            ends.append(time.perf_counter())

    predict_on_ray(asked, tars, lambda paths: iter(()), out, "", Actors(2, 1), on_progress=note)
    return ends[-1] - ends[WARM - 1]


def alone(state: Any, tars: Sequence[str]) -> float:
    """The same of this process with two threads."""
    torch.set_num_threads(2)
    ends = []
    for shard in shards_of(tars, BATCH):
        for _ in predict_files(state, images_in(shard, StreamConfig()), batch_size=BATCH):
            pass
        ends.append(time.perf_counter())
    return ends[-1] - ends[WARM - 1]


def memory(folder: Path, counts: Sequence[int]) -> None:
    saved = model(folder / "tiny", BACKBONE, img_size=SIDE)
    asked = Prediction(str(saved), "gaussian", 5, 256, None)
    file = folder / "one.png"
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(file)
    print(f"{BACKBONE} at {SIDE} px, folders of 1,000 hard links of a PNG, 2 actors of 1 thread\n")
    print("| images | command, MiB | an actor, MiB | listing, KiB |\n|--:|--:|--:|--:|")
    for count in counts:
        photos, out = folder / f"photos-{count}", folder / f"out-{count}"
        for place in range(count):
            part = photos / f"{place // 1000:05d}"
            if place % 1000 == 0:  # a file of its own: file systems limit the links of one
                part.mkdir(parents=True)
                first = shutil.copyfile(file, part / f"{place:06d}.png")
            else:
                os.link(first, part / f"{place:06d}.png")
        with Watch() as watch:
            done = predict_on_ray(
                asked, [str(photos)], lambda paths: walk(Path(paths[0])), out, "", Actors(2, 1)
            )
        assert (done.images, done.faulty) == (count, 0)
        own, actor = (peak / 2**20 for peak in (watch.own, watch.actor))
        listing = (out / "listing.parquet").stat().st_size / 2**10
        print(f"| {count:,} | {own:.0f} | {actor:.0f} | {listing:.0f} |", flush=True)


class Watch:
    """Watcher of the memory of this process and of the actors of this machine, twice a second."""

    def __enter__(self) -> Watch:
        self.own = self.actor = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._over.wait(0.5):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    name = (process / "cmdline").read_bytes()
                    resident = int((process / "statm").read_text().split()[1]) * page
                except (OSError, IndexError):
                    continue
                if int(process.name) == os.getpid():
                    self.own = max(self.own, resident)
                elif name.startswith(b"ray::MapWorker"):
                    self.actor = max(self.actor, resident)


if __name__ == "__main__":
    main()
