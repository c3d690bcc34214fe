"""Inputs that are mutated: a folder of each kind, what reads it, and how its checksums are forged."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import safetensors.torch
import timm
import torch
from calls import act_at, kill
from commands import OPERATIONS, command
from forks import in_child
from PIL import Image

from perdure.backbones.catalog import create_backbone
from perdure.backbones.convert import load_weights
from perdure.backbones.frozen import FrozenBackbone
from perdure.cache import sha256_of
from perdure.engine.checkpoint import Checkpoints
from perdure.engine.config import load_config
from perdure.errors import PerdureError
from perdure.learner import ContinualClassifier
from perdure.learner.saved.contents import read_contents
from perdure.learner.saved.format import CONFIG
from perdure.reports.results.runs import read_run
from perdure.reports.tables.comparison import as_text_table, compare
from perdure.streams import load_source
from perdure.streams.config import StreamConfig
from perdure.streams.decoding import decode
from perdure.streams.fetch.unpacking import is_archive, unpack

ZEROS = "0" * 64


@dataclass(frozen=True)
class Kind:
    """Kind of input.

    Attributes:
        name: also that of its folder.
        make: makes it in its folder, given the world of `commands.prepare`.
        probe: reads all of it.
        mutates: whether a file is one to be mutated.
        forge: makes its checksums right again, to come to what lies behind them.
    """

    name: str
    make: Callable[[Path, Path], None]
    probe: Callable[[Path], Any]
    mutates: Callable[[Path], bool] = lambda path: True
    forge: Callable[[Path], None] | None = None


def make_inputs(world: Path, folder: Path, kinds: Sequence[Kind]) -> None:
    """Make an input of each of some kinds."""
    for kind in {kind.name: kind for kind in kinds}.values():
        (folder / kind.name).mkdir()
        kind.make(world, folder / kind.name)


@functools.cache
def _backbone() -> FrozenBackbone:
    return create_backbone("test_vit", weights="random", img_size=32, precision="fp32")


# ---------------------------------------------------------------------------------- saved models


def _copy(name: str) -> Callable[[Path, Path], None]:
    def make(world: Path, folder: Path) -> None:
        source = world / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / source.name)

    return make


def _format_1(world: Path, folder: Path) -> None:
    """A model as the first format had it."""
    held = read_contents(world / "m")
    about = {
        "format": 1,
        "config": held.description.config,
        "preset": None,
        "tasks": [[held.classes.classes[label] for label in task] for task in held.classes.tasks],
        "backbone_sha256": held.description.backbone.sha256,
        "weights_sha256": held.description.files["weights.safetensors"],
    }
    (folder / "m").mkdir()
    (folder / "m" / "model.json").write_text(json.dumps(about), "utf-8")
    (folder / "m" / "weights.safetensors").write_bytes(held.weights)


def _predict(folder: Path) -> None:
    classifier = ContinualClassifier.load(folder / "m", _backbone())
    classifier.predict([np.zeros((32, 32, 3), np.uint8)])


def _forge_format_2(folder: Path) -> None:
    """Note the checksums anew, that of the description in itself too."""
    path = folder / "m" / CONFIG
    try:
        about = json.loads(path.read_bytes())
        for name in about["files"]:
            about["files"][name] = sha256_of(folder / "m" / name)
        text = json.dumps({**about, "sha256": ZEROS}).encode()
    except (ValueError, TypeError, KeyError, OSError, RecursionError):
        return
    path.write_bytes(text.replace(ZEROS.encode(), hashlib.sha256(text).hexdigest().encode()))


def _forge_format_1(folder: Path) -> None:
    path = folder / "m" / "model.json"
    try:
        about = json.loads(path.read_bytes())
        about["weights_sha256"] = sha256_of(folder / "m" / "weights.safetensors")
        path.write_text(json.dumps(about), "utf-8")
    except (ValueError, TypeError, KeyError, RecursionError):
        return


# ------------------------------------------------------------------------------- runs and results


def _half_a_run(world: Path, folder: Path) -> None:
    """A run that was killed in its second task."""
    run = next(one for one in OPERATIONS if one.name == "run")

    def work() -> None:
        act_at(folder, 55, kill)
        run.work()

    in_child(work, folder)
    if not any((folder / "r" / "checkpoints").glob("step-*")):
        raise RuntimeError("The run was killed at another place than was meant.")


def _read_checkpoints(folder: Path) -> None:
    checkpoints = folder / "r" / "checkpoints"
    held = Checkpoints(checkpoints, load_config(str(folder / "r" / "config.toml")).hash())
    point = held.latest()
    for stored in point.files if point else ():
        held.read(stored)


def _resume(folder: Path) -> None:
    path = folder / "r" / "config.toml"
    command("run", str(path), "--out", str(folder / "r"), "--resume", "-q")()


def _forge_checkpoints(folder: Path) -> None:
    path = folder / "r" / "checkpoints" / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
        for point in manifest["points"]:
            for stored in (point["base"], point["step"]):
                if stored:
                    stored["sha256"] = sha256_of(path.parent / stored["name"])
        path.write_text(json.dumps(manifest), "utf-8")
    except (ValueError, TypeError, KeyError, OSError, RecursionError):
        return


def _show_results(folder: Path) -> None:
    run = read_run(folder / "r")
    if run is not None:
        as_text_table(compare(run.entries), every=True).markdown()


def _preset(world: Path, folder: Path) -> None:
    shutil.copyfile(world / "r" / "config.toml", folder / "config.toml")
    text = 'method = "nsp2"\nlr = 0.01\nepochs = 3\nheads = ["linear", "gaussian(shrinkage=0.5)"]\n'
    (folder / "preset.toml").write_text(f'{text}data = "digits"\ntasks = "B0-Inc2"\n', "utf-8")


def _load_presets(folder: Path) -> None:
    for path in sorted(folder.glob("*.toml")):
        load_config(str(path))


# ---------------------------------------------------------------------------------------- weights


def _weights(world: Path, folder: Path) -> None:
    state = timm.create_model("test_vit", num_classes=0, img_size=32, depth=1).state_dict()
    safetensors.torch.save_file(state, folder / "a.safetensors")
    torch.save(state, folder / "b.pth")
    torch.save({"state_dict": state}, folder / "c.pth", _use_new_zipfile_serialization=False)
    np.savez(folder / "d.npz", **{name: value.numpy() for name, value in state.items()})


def _load_weights(folder: Path) -> None:
    _each(sorted(folder.iterdir()), lambda path: load_weights(_vit(), path))


@functools.cache
def _vit() -> torch.nn.Module:
    return timm.create_model("test_vit", num_classes=0, img_size=32, depth=1)


def _each(paths: Sequence[Path], read: Callable[[Path], object]) -> None:
    """Read every file, also after one that is refused; the last refusal comes out."""
    refused = None
    for path in paths:
        try:
            read(path)
        except PerdureError as error:
            refused = error
    if refused is not None:
        raise refused


# ----------------------------------------------------------------------- images, tables, archives


def _images(world: Path, folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    image, deep = Image.fromarray(pixels), Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    for ending in ("jpg", "png", "webp", "bmp", "gif", "tiff", "ppm", "avif"):
        image.save(folder / f"a.{ending}")
    image.convert("P").save(folder / "palette.png")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.save(folder / "turned.jpg", exif=_turned())
    image.save(folder / "packed.tiff", compression="tiff_lzw")
    image.save(folder / "moving.gif", save_all=True, append_images=[image.rotate(90)])
    for ending in ("png", "tiff", "pgm"):
        deep.save(folder / f"deep.{ending}")
    pillow_heif.from_pillow(image).save(folder / "a.heic")


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def _decode(folder: Path) -> None:
    _each(sorted(folder.iterdir()), decode)


def _tables(world: Path, folder: Path) -> None:
    pyarrow, parquet, ipc = (import_module(f"pyarrow{part}") for part in ("", ".parquet", ".ipc"))
    shutil.copytree(world / "d1", folder / "d1")
    paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    labels = [Path(path).parent.name for path in paths]
    columns = {"path": paths, "label": labels, "split": ["train", "test", "train"] * 2}
    rows = [list(columns), *zip(*columns.values(), strict=True)]
    for name, mark in (("a.csv", ","), ("b.tsv", "\t"), ("c.csv", ";")):
        (folder / name).write_text("".join(f"{mark.join(row)}\n" for row in rows), "utf-8")
    parquet.write_table(pyarrow.table(columns), folder / "d.parquet")
    images = [{"bytes": (folder / path).read_bytes(), "path": path} for path in paths]
    table = pyarrow.table({"image": images, "label": labels})
    parquet.write_table(table, folder / "e.parquet")
    with ipc.new_file(str(folder / "f.arrow"), table.schema) as writer:
        writer.write_table(table)


def _load_tables(folder: Path) -> None:
    def read(path: Path) -> None:
        images = load_source(StreamConfig(data=str(path))).train
        for index in range(len(images)):
            images.image(index)

    _each(sorted(path for path in folder.iterdir() if path.is_file()), read)


def _archives(world: Path, folder: Path) -> None:
    shutil.copyfile(world / "photos.zip", folder / "a.zip")
    with zipfile.ZipFile(folder / "b.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(world / "d1" / "a" / "0.png", "a/0.png")
        packed.writestr("a/text.txt", "photographs " * 20)
    for ending in ("tar", "tar.gz"):
        with tarfile.open(folder / f"c.{ending}", "w:gz" if ending != "tar" else "w") as archive:
            archive.add(world / "d1", "d1")
            info = tarfile.TarInfo("é" * 60 + "/x.txt")
            info.size = 5
            archive.addfile(info, io.BytesIO(b"hello"))


def _unpack(folder: Path) -> None:
    def read(path: Path) -> None:
        (folder / "out" / path.name).mkdir(parents=True)
        unpack(path, folder / "out" / path.name, lambda done: None)

    _each(sorted(path for path in folder.iterdir() if is_archive(path.name)), read)


LIGHT = (
    Kind("model", _copy("m"), _predict, forge=_forge_format_2),
    Kind("model of format 1", _format_1, _predict, forge=_forge_format_1),
    Kind(
        "checkpoints",
        _half_a_run,
        _read_checkpoints,
        lambda path: path.parent.name == "checkpoints",
        _forge_checkpoints,
    ),
    Kind("results", _copy("r"), _show_results, lambda path: path.suffix in (".json", ".csv")),
    Kind("preset", _preset, _load_presets),
    Kind("weights", _weights, _load_weights),
    Kind("images", _images, _decode),
    Kind("tables", _tables, _load_tables, lambda path: path.suffix != ".png"),
    Kind("archives", _archives, _unpack),
)
"""Kinds that take milliseconds."""
RESUMED = Kind("run", _half_a_run, _resume, forge=_forge_checkpoints)
KINDS = (*LIGHT * 5, RESUMED)
"""Every kind, as often as its turn comes: a run that goes on takes a hundred times as long."""
