"""Arguments that several commands take, and what they stand for: models, runs, images, seeds."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.cli.parsing import Parser, UsageError, positive
from perdure.errors import CheckpointError, ConfigError, OutputError, did_you_mean

if TYPE_CHECKING:
    from perdure.streams.config import StreamConfig
    from perdure.streams.images.find_images import Listed

STDIN = "-"


def add_preset(command: Parser) -> None:
    """Add a configuration: a preset or a file, and keys in place of those in it."""
    command.argument("what", "PRESET|FILE.toml", "a preset, or a file of your own")
    add_overrides(command, "in place of the preset's")


def add_overrides(command: Parser, about: str) -> None:
    """Add ``key=value``, any number of times."""
    command.argument("overrides", "key=value", about, nargs="*", default=[])


def add_quiet(command: Parser) -> None:
    """Add ``--quiet``."""
    command.flag("-q", "--quiet", "no progress")


def add_ray(command: Parser, about: str) -> None:
    """Add ``--ray``, with or without an address."""
    command.option("--ray", "ADDRESS", about, nargs="?", const="")


def add_jobs(command: Parser, about: str) -> None:
    """Add ``--ray`` and what every job on it is given, which `check_jobs` checks."""
    add_ray(command, f"{about}; without an address on this machine, or where RAY_ADDRESS says")
    command.option("--cpus", "N", "with --ray: CPUs and threads of each; default: 1", type=positive)
    command.option(
        "--gpus",
        "N",
        "with --ray: GPUs of each, or a share of one; default: 1 where there are any",
        type=_gpus,
    )


def _gpus(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf or (value > 1 and value % 1):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of GPUs, as 1 or 0.5")
    return value


def check_jobs(args: argparse.Namespace) -> None:
    """Refuse resources of jobs without Ray, and Ray where it is not installed.

    Raises:
        UsageError: resources of nothing.
        ConfigError: Ray is not installed.
    """
    if args.ray is None:
        for name in ("cpus", "gpus"):
            if getattr(args, name) is not None:
                raise UsageError(f"--{name} has no use without --ray. Add --ray, or leave it out.")
        return
    if importlib.util.find_spec("ray") is None:
        from perdure.cluster.connection import import_ray

        import_ray()


def add_seeds(command: Parser, about: str) -> None:
    """Add ``--seeds``, which `read_seeds` reads."""
    command.option("--seeds", "0,1,2", about)


def add_runs(command: Parser) -> None:
    """Add folders of runs, which `result_folders` looks through."""
    command.argument("folders", "DIR", "a run's folder, or a folder of such folders", nargs="+")


def add_model(command: Parser) -> None:
    """Add a saved model, which `model_folder` finds."""
    command.argument("model", "MODEL", "folder of a finished run, or its model")


def add_head(command: Parser, about: str = "default: the last one of the model's heads") -> None:
    """Add ``--head``."""
    command.option("--head", "NAME", about)


def add_reject(command: Parser) -> None:
    """Add ``--reject``."""
    command.option(
        "--reject",
        "SHARE",
        "no class for an image that is stranger than all but this share of known images, as 0.05",
        type=float,
    )


def read_seeds(text: str | None, overrides: Sequence[str]) -> list[int]:
    """Read the value of ``--seeds``; an empty list without one.

    Raises:
        UsageError: it is no list of different numbers, or an override sets the seed too.
    """
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) != len(parts):
        raise UsageError(
            f"--seeds {text}: allowed are different whole numbers joined by commas, as --seeds 0,1,2."
        )
    given = [override for override in overrides if override.partition("=")[0].strip() == "seed"]
    if given:
        raise UsageError(f"{given[0]} and --seeds {text} contradict each other. Leave one out.")
    return [int(part) for part in parts]


def saved_model(path: Path) -> Path | None:
    """Return the folder of the saved model in a run's folder, or the folder itself, if there is one."""
    from perdure.learner.saved.contents import is_model

    return next((folder for folder in (path, path / "model") if is_model(folder)), None)


def model_folder(given: str) -> Path:
    """Return the folder of the saved model in a run's folder, or the folder itself.

    Raises:
        CheckpointError: it does not exist, holds no model, or its run is not finished.
    """
    path = Path(given)
    folder = saved_model(path)
    if folder is not None:
        return folder
    if not path.exists():
        raise CheckpointError(
            f"The folder '{path}' does not exist.{_neighbour(path)} Name the folder of a finished "
            "run, as runs/digits/nsp2."
        )
    if (path / "config.toml").exists():
        raise CheckpointError(_unfinished(path))
    raise CheckpointError(
        f"'{path}' holds no model. Name a saved model's folder, with its config.json, or the folder of "
        "a finished run."
    )


def result_folders(path: Path) -> list[Path]:
    """Return the folders of finished runs that a name stands for.

    Args:
        path: a run's folder, its ``results.json``, or a folder that holds runs, at any depth.

    Raises:
        OutputError: it does not exist, or no run in it is finished.
    """
    if path.name == "results.json":
        return [path.parent]
    if not path.is_dir():
        what = "is no folder" if path.exists() else "does not exist"
        raise OutputError(
            f"'{path}' {what}. Name the folder of a finished run, as runs/digits/nsp2."
        )
    if (path / "results.json").exists():
        return [path]
    folders = sorted(file.parent for file in path.rglob("results.json"))
    if folders:
        return folders
    if (path / "config.toml").exists():
        raise OutputError(_unfinished(path))
    raise OutputError(
        f"'{path}' holds no results.json. Name the folder of a finished run, or of several."
    )


def check_images(given: Sequence[str]) -> None:
    """Check that every path exists and every folder holds an image, before anything is computed.

    Raises:
        ConfigError: one does not.
    """
    from perdure.streams.decoding import SUFFIXES
    from perdure.streams.images.find_images import walk

    for path in (Path(one) for one in given if one != STDIN):
        if path.is_dir():
            if next(walk(path), None) is None:
                raise ConfigError(
                    f"The folder '{path}' holds no image file. Expected are files ending in "
                    f"{', '.join(sorted(SUFFIXES))}, in it or in folders in it."
                )
        elif not path.exists():
            raise ConfigError(
                f"There is no image '{path}'.{_neighbour(path)} Name image files, folders of them, "
                "tables, or '-' to read paths from standard input."
            )


def find_images(
    given: Sequence[str],
    config: StreamConfig | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Listed]:
    """Find the images that files, folders and tables stand for; ``-`` names files line by line.

    Args:
        given: paths, or ``-`` for standard input.
        config: names the column of images in a table, where it has not a usual name.
        say: receives a sentence on what is left out of a folder.
    """
    from perdure.streams.config import StreamConfig
    from perdure.streams.images.find_images import Listed
    from perdure.streams.images.left_out import LeftOut
    from perdure.streams.sources.file_lists import images_in, is_list

    config = StreamConfig() if config is None else config
    for one in given:
        for path in _paths_on_stdin() if one == STDIN else [Path(one)]:
            if not is_list(path):
                yield Listed(path)
                continue
            left_out = LeftOut()
            inside = images_in(path, config, left_out)
            yield next(inside, Listed(path, "this folder holds no image file"))
            yield from inside
            if left_out:
                say(left_out.told(left_out.root or path, path))


def _paths_on_stdin() -> Iterator[Path]:
    """Read a path per line, in whatever bytes files are called."""
    for line in sys.stdin.buffer:
        name = line.rstrip(b"\r\n")
        if name:
            yield Path(os.fsdecode(name))


def _neighbour(path: Path) -> str:
    """Ask whether a path beside this one was meant."""
    others = path.parent.iterdir() if path.parent.is_dir() else []
    return did_you_mean(path.name, [other.name for other in others])


def _unfinished(path: Path) -> str:
    return (
        f"The run in '{path}' is not finished. Go on with "
        f"`perdure run {path / 'config.toml'} --out {path} --resume`."
    )
