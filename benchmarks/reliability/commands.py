"""What is interrupted: commands and calls that write, each in a small folder of its own.

A backbone of random weights on 32 pixels, photographs of one colour each. What takes long and writes
nothing, drawing figures and tracing a network, is done once, before the children are forked.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forks import Work, in_child
from PIL import Image

import perdure.experiment
import perdure.learner.export.graph
import perdure.reports.page.html
import perdure.tuning
from perdure.atomic import LOCK, atomic_write
from perdure.cli.main import parser, read
from perdure.learner import ContinualClassifier
from perdure.learner.saved.contents import is_model, read_contents
from perdure.reports.results.runs import read_run
from perdure.streams.fetch.published import PUBLISHED

MODEL = ("weights=random", "img_size=32", "device=cpu", "precision=fp32", "attention=fused")
NEW = ("--backbone", "test_vit", *MODEL)
RUN: tuple[str, ...] = (
    *MODEL,
    "backbone=test_vit",
    "data=synthetic",
    "tasks=5+5",
    "images_per_class=3",
)
RUN += ("test_images_per_class=1", "epochs=1", "batch_size=15", "checkpoint_every=1")
TUNE = ("digits/nsp2", *RUN, "--space", "lr=0.01,0.03", "--budget", "2", "--out", "t", "-q")

State = Callable[[Path], Any]
"""What a folder holds, comparable: None for nothing yet."""


@dataclass(frozen=True)
class Operation:
    """Operation that writes.

    Attributes:
        name: what it is.
        work: does it, in its folder.
        state: what of the folder it may change, all at once.
        needs: files and folders that are there before.
    """

    name: str
    work: Work
    state: State
    needs: tuple[str, ...]


def command(*words: str) -> Work:
    """A command line, whose errors come out as they are."""

    def work() -> int:
        args = read(parser(), words)
        code: int = args.handler(args)
        return code

    return work


def prepare(world: Path, *, trained: bool = True) -> None:
    """Import and compute, in this process, what the children then have; nothing is trained here.

    Args:
        world: folder for what operations need.
        trained: whether that includes a run, and what needs one.

    Raises:
        RuntimeError: a command fails.
    """
    torch.set_num_threads(1)
    for folder, names in (("d1", "ab"), ("d2", "cd")):
        for number, name in enumerate(names):
            _photographs(world / folder / name, 90 * number + (40 if folder == "d2" else 0))
    with zipfile.ZipFile(world / "photos.zip", "w") as archive:
        for path in sorted((world / "d1").rglob("*.png")):
            archive.write(path, path.relative_to(world / "d1"))
    _archive(world / "birds.zip", world / "d1")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for model, data in (("m", "d1"), ("other", "d2")):
            command("learn", str(world / model), str(world / data), "-q", *NEW)()
        command("save", str(world / "m"), str(world / "m"))()
    if trained:
        perdure.experiment.__dict__["draw"] = lambda entries, path: atomic_write(path, b"figure")
        _do(command("run", "digits/nsp2", *RUN, "--out", "r", "-q"), world)
        _settle_export(world)
        _settle_report(world)


def _do(work: Work, world: Path) -> None:
    ending = in_child(work, world)
    if not ending.fine:
        raise RuntimeError(f"The campaign cannot be prepared: {ending}")


def _photographs(folder: Path, base: int) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(base)
    for number in range(3):
        pixels = np.clip(base + random.integers(0, 60, (24, 24, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def _archive(path: Path, photographs: Path) -> None:
    """A published data set: what CUB-200's archive has, but for its images."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt"):
            archive.writestr(f"CUB_200_2011/{name}", f"1 {name}\n")
        for file in sorted(photographs.rglob("*.png")):
            archive.write(file, f"CUB_200_2011/images/{file.relative_to(photographs)}")


def _settle_export(world: Path) -> None:
    """Trace the network once."""
    graph = perdure.learner.export.graph
    classifier = ContinualClassifier.load(world / "m", device="cpu")
    state = classifier.state_
    traced = graph.trace(state, state.head_name(None))
    graph.trace = lambda state, head: traced


def _settle_report(world: Path) -> None:
    """Draw the figures once."""
    html = perdure.reports.page.html
    page = html.make_report([run for run in [read_run(world / "r")] if run])
    html.make_report = lambda runs, against=False: page


def forget() -> None:
    """Forget a class, unless that was done."""
    classifier = ContinualClassifier.load("m", device="cpu")
    if "a" in classifier.classes_:
        classifier.forget_class("a")
    classifier.save("m")


def fetch() -> None:
    """Fetch a published data set from a file beside."""
    published = PUBLISHED["cub200"]
    url = Path("birds.zip").absolute().as_uri()
    file = replace(published.files[0], name="birds.zip", url=url)
    PUBLISHED["cub200"] = replace(published, files=(file,), elsewhere=())
    command("data", "fetch", "cub200")()


# ---------------------------------------------------------------------------------------- states


def saved(name: str) -> State:
    """The bytes of a saved model, each checked."""

    def state(folder: Path) -> Any:
        if not is_model(folder / name):
            return None
        held = read_contents(folder / name)
        return [_digest(held.weights), repr(held.classes), repr(held.description)]

    return state


def files(*names: str) -> State:
    """The bytes of files, and of everything in folders."""

    def state(folder: Path) -> Any:
        tops = [folder / name for name in names]
        paths = [path for top in tops for path in (top, *sorted(top.rglob("*"))) if path.is_file()]
        return {str(p.relative_to(folder)): _digest(p.read_bytes()) for p in paths} or None

    return state


def finished_run(folder: Path) -> Any:
    """A run's results and model, but for the seconds that it took."""
    path = folder / "r" / "results.json"
    if not path.exists():
        return None
    rest = files("r/accuracy.csv", "r/model", "r/config.toml")(folder)
    return [_timeless(json.loads(path.read_bytes())), rest]


def trials(folder: Path) -> Any:
    """What a search has found, but for the seconds that it took."""
    winner = folder / "t" / "winner.toml"
    if not winner.exists():
        return None
    found = json.loads((folder / "t" / "trials.json").read_bytes())
    return [_timeless(found["trials"]), winner.read_text("utf-8")]


def _timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


OPERATIONS = (
    Operation("first learn", command("learn", "n", "d1", "-q", *NEW), saved("n"), ("d1",)),
    Operation("learn", command("learn", "m", "d2", "-q"), saved("m"), ("m", "d2")),
    Operation(
        "learn zip", command("learn", "n", "photos.zip", "-q", *NEW), saved("n"), ("photos.zip",)
    ),
    Operation("save", command("save", "m", "other"), saved("other"), ("m", "other")),
    Operation("forget", forget, saved("m"), ("m",)),
    Operation(
        "run",
        command("run", "digits/nsp2", *RUN, "--out", "r", "--resume", "-q"),
        finished_run,
        (),
    ),
    Operation("tune", command("tune", *TUNE), trials, ()),
    Operation("fetch", fetch, files("home/data/cub200"), ("birds.zip",)),
    Operation("export", command("export", "m", "m.onnx"), files("m.onnx"), ("m",)),
    Operation("report", command("report", "r", "--out", "p.html"), files("p.html"), ("r",)),
)


def lay_out(operation: Operation, world: Path, folder: Path) -> Path:
    """Make a folder in which an operation can be tried."""
    folder.mkdir(parents=True)
    for name in operation.needs:
        source = world / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)
    return folder


def names(folder: Path) -> set[str]:
    """Every file and folder within a folder, but for locks, which hold nothing."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return {name for name in found if not name.endswith(LOCK)}
