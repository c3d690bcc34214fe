"""Streams of many tasks from shards: time, memory and files of the last tasks beside the first.

    python benchmarks/speed/long_stream.py --methods lda,nsp2,iprompt --tasks 500

Draws images of two classes per task into tars, learns them task after task with a tiny backbone of
random weights, and prints, for each method, the median seconds of a task (of the processor, evaluation
left out), the resident memory and the bytes of a checkpoint: of the ten tasks after the first
evaluation, and of the last ten. A fixed computation is timed after every task, and the ratio of the
seconds is corrected by its own: other work on the machine slows both. `OMP_NUM_THREADS=1` makes
seconds those of one thread.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from perdure.engine.build import make_backbone, make_stream
from perdure.engine.config import make_config
from perdure.engine.evaluate import Evaluator
from perdure.engine.events import Event
from perdure.engine.run import Run
from perdure.metrics import Counts
from perdure.testing.trial import BACKBONE, SIDE

WINDOW = 10
STEADY = np.random.default_rng(0).random((200, 200))
EVALUATIONS = 20
"""Evaluations of a stream: each is on all images so far, so that one after every task costs the square
of the number of tasks, whatever the method."""


COLUMNS = (
    "method",
    "processor seconds per task",
    "reference, ms",
    "by the reference",
    "memory, MiB",
    "checkpoint, KiB",
    "per class",
)


@dataclass
class Record:
    """What was measured after every task."""

    seconds: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)


class TimedRun(Run):
    """Run whose evaluations stand outside of the time."""

    record: Record
    folder: Path
    outside: float

    def measure(self, folder: Path) -> Record:
        """Run, and return what was measured."""
        self.record, self.folder = Record(), folder
        self._began, self.outside = time.process_time(), 0.0
        vars(self)["_evaluate"] = Outside(self._evaluate, self)
        self.sink = self._note
        self()
        return self.record

    def _note(self, event: Event) -> None:
        if event.kind != "checkpoint" or event.fields.get("steps_done"):
            return
        if event.fields["stages_done"] == len(self.record.seconds):
            return  # before the training of a task
        now = time.process_time()
        self.record.seconds.append(now - self._began - self.outside)
        self.record.reference.append(reference())
        self.record.resident.append(resident())
        newest = max(self.folder.glob("stage-*.safetensors"), key=lambda path: path.stat().st_mtime)
        self.record.written.append(newest.stat().st_size)
        self._began, self.outside = time.process_time(), 0.0


class Outside:
    """Evaluator whose time a run does not count."""

    def __init__(self, evaluator: Evaluator, run: TimedRun) -> None:
        self._evaluator, self._run = evaluator, run

    def __call__(self, *arguments: Any) -> dict[str, Counts]:
        """Evaluate, and note how long it took."""
        began = time.process_time()
        found = self._evaluator(*arguments)
        self._run.outside += time.process_time() - began
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._evaluator, name)


def reference() -> float:
    """Processor seconds of a computation that is always the same: other work slows it, too."""
    began = time.process_time()
    for _ in range(20):
        STEADY @ STEADY
    return time.process_time() - began


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", default="lda,nsp2,iprompt")
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--classes", type=int, default=2, help="of every task")
    parser.add_argument("--images", type=int, default=30, help="training images per class")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PERDURE_HOME"] = f"{folder}/cache"
        draw(Path(folder) / "shards", args.classes * args.tasks, args.images)
        shown = f"{args.classes} class{'es' if args.classes > 1 else ''}"
        print(f"{args.tasks} tasks of {shown}, {args.images} images each, {SIDE} px\n")
        print(f"| {' | '.join(COLUMNS)} |\n|:--|{'--:|' * (len(COLUMNS) - 1)}")
        for method in args.methods.split(","):
            found = measured(method, Path(folder), args.tasks, args.classes)
            print(line(method, found, args.classes), flush=True)


def draw(folder: Path, classes: int, images: int) -> None:
    """Write tars of a hundred classes each, and one of a test image per class."""
    folder.mkdir()
    for first in range(0, classes, 100):
        some = range(first, min(first + 100, classes))
        write(folder / f"train-{first:04d}.tar", some, range(images))
    write(folder / "test-0000.tar", range(classes), range(images, images + 1))


def write(path: Path, classes: range, places: range) -> None:
    with tarfile.open(path, "w") as packed:
        for label in classes:
            colour = np.random.default_rng(label).integers(0, 256, (4, 4, 3))
            for place in places:
                noise = np.random.default_rng([label, place]).integers(-30, 31, (SIDE, SIDE, 3))
                pixels = np.kron(colour, np.ones((SIDE // 4, SIDE // 4, 1), np.int64)) + noise
                file = io.BytesIO()
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "PNG")
                add(packed, f"{label:04d}-{place}.png", file.getvalue())
                add(packed, f"{label:04d}-{place}.cls", str(label).encode())


def add(packed: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    packed.addfile(info, io.BytesIO(content))


def measured(method: str, folder: Path, tasks: int, classes: int) -> Record:
    keys: dict[str, Any] = {
        "method": method,
        "data": f"shards:{folder / 'shards'}",
        "tasks": f"B0-Inc{classes}",
        "backbone": BACKBONE,
        "weights": "random",
        "img_size": SIDE,
        "precision": "fp32",
        "device": "cpu",
        "workers": 0,
        "eval_batch_size": 256,
        "evaluate_every": between(tasks),
    }
    if method != "lda":
        keys |= {"epochs": 2, "batch_size": 16, "heads": "gaussian"}
    config = make_config(keys)
    stream = make_stream(config)
    assert len(stream.tasks) == tasks
    checkpoints = folder / method
    return TimedRun(config, stream, make_backbone(config), checkpoints).measure(checkpoints)


def between(tasks: int) -> int:
    """Return after how many tasks there is an evaluation."""
    return max(WINDOW, tasks // EVALUATIONS)


def line(method: str, record: Record, classes: int) -> str:
    first = between(len(record.written))
    early = slice(first, first + WINDOW)
    late = slice(-WINDOW, None)
    seconds = [statistics.median(record.seconds[part]) for part in (early, late)]
    steady = [statistics.median(record.reference[part]) for part in (early, late)]
    ratio = seconds[1] / seconds[0] * steady[0] / steady[1]
    memory = [max(record.resident[part]) / 2**20 for part in (early, late)]
    written = [statistics.median(record.written[part]) / 2**10 for part in (early, late)]
    done = (first + WINDOW / 2, len(record.written) - WINDOW / 2)
    each = [size / (classes * tasks) for size, tasks in zip(written, done, strict=True)]
    cells = [
        f"{seconds[0]:.3f} → {seconds[1]:.3f}",
        f"{1e3 * steady[0]:.1f} → {1e3 * steady[1]:.1f}",
        f"× {ratio:.2f}",
        f"{memory[0]:.0f} → {memory[1]:.0f} (× {memory[1] / memory[0]:.2f})",
        f"{written[0]:.0f} → {written[1]:.0f}",
        f"{each[0]:.2f} → {each[1]:.2f}",
    ]
    return f"| `{method}` | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
