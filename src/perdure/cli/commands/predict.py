"""``perdure predict``: the classes of images, by what a run has learned."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from perdure.cli.counting import Counting
from perdure.cli.interrupt import CtrlC
from perdure.cli.output import messages
from perdure.cli.writers import WRITERS, Output
from perdure.errors import CheckpointError, ConfigError, did_you_mean
from perdure.learner import ContinualClassifier
from perdure.learner.predict_files import predict_files
from perdure.learner.saved.contents import is_model
from perdure.streams.images.decoding import SUFFIXES
from perdure.streams.images.find_images import Listed, walk

STDIN = "-"


def predict(args: argparse.Namespace) -> int:
    """Do ``perdure predict``."""
    if args.json and args.format not in (None, "json"):
        raise ConfigError(f"--json and --format {args.format} exclude each other. Leave one out.")
    check_paths(args.paths)
    classifier = ContinualClassifier.load(model_folder(Path(args.model)))
    ctrl_c = CtrlC()
    ctrl_c.watch()
    try:
        with Counting() as counting:

            def tell(done: int) -> None:
                ctrl_c.check()
                counting("images", done, None)

            done, faulty = write_answers(
                classifier,
                listed(args.paths),
                sys.stdout,
                "json" if args.json else args.format or "table",
                head=args.head,
                top=args.top,
                batch_size=args.batch_size,
                tell=tell,
            )
    finally:
        ctrl_c.leave()
    if faulty:
        messages().print(f"{faulty:,} of {done:,} images could not be read")
    return 1 if faulty else 0


def write_answers(
    classifier: ContinualClassifier,
    files: Iterable[Listed],
    out: Output,
    form: str,
    *,
    head: str | None = None,
    top: int = 5,
    batch_size: int | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> tuple[int, int]:
    """Predict files and write the answers as they come.

    Args:
        classifier: predicts.
        files: image files, in the order of the answers.
        out: where to write.
        form: how, one of ``perdure.cli.writers.FORMATS``.
        head: as for ``predict_files``.
        top: likewise.
        batch_size: likewise.
        tell: told after every answer how many there are.

    Returns:
        How many files there were, and how many of them could not be read.

    Raises:
        ConfigError: as ``predict_files``.
    """
    found = predict_files(classifier, files, head=head, top=top, batch_size=batch_size)
    done = faulty = 0
    # Closed at once where nobody reads on, so that no thread goes on decoding.
    with contextlib.closing(found), WRITERS[form](out, classifier.classes_.tolist(), top) as write:
        for answer in found:
            write(answer)
            done += 1
            faulty += bool(answer.fault)
            tell(done)
    return done, faulty


def model_folder(path: Path) -> Path:
    """Return the folder of the saved model in a run's folder, or the folder itself.

    Raises:
        CheckpointError: it does not exist, holds no model, or its run is not finished.
    """
    for folder in (path, path / "model"):
        if is_model(folder):
            return folder
    if not path.exists():
        near = did_you_mean(path.name, _neighbours(path))
        raise CheckpointError(
            f"The folder '{path}' does not exist.{near} Name the folder of a finished run, as "
            "runs/digits/nsp2."
        )
    if (path / "config.toml").exists():
        raise CheckpointError(
            f"The run in '{path}' is not finished. Go on with "
            f"`perdure run {path / 'config.toml'} --out {path} --resume`."
        )
    raise CheckpointError(
        f"'{path}' holds no model. Name a saved model's folder, with its config.json, or the folder of "
        "a finished run."
    )


def check_paths(given: Sequence[str]) -> None:
    """Refuse what the command line names in vain, before anything is computed.

    Raises:
        ConfigError: a name that does not exist, or a folder without an image.
    """
    for path in (Path(one) for one in given if one != STDIN):
        if path.is_dir():
            if next(walk(path), None) is None:
                raise ConfigError(
                    f"The folder '{path}' holds no image file. Expected are files ending in "
                    f"{', '.join(sorted(SUFFIXES))}, in it or in folders in it."
                )
        elif not path.exists():
            near = did_you_mean(path.name, _neighbours(path))
            raise ConfigError(
                f"There is no image '{path}'.{near} Name image files, folders of them, or '-' to "
                "read paths from standard input."
            )


def listed(given: Sequence[str]) -> Iterator[Listed]:
    """Find the image files that files and folders stand for; ``-`` names those on standard input."""
    for one in given:
        for path in _paths_on_stdin() if one == STDIN else [Path(one)]:
            if not _is_folder(path):
                yield Listed(path)
                continue
            inside = walk(path)
            yield next(inside, Listed(path, "this folder holds no image file"))
            yield from inside


def _paths_on_stdin() -> Iterator[Path]:
    """Read a path per line, in whatever bytes files are called."""
    for line in sys.stdin.buffer:
        name = line.rstrip(b"\r\n")
        if name:
            yield Path(os.fsdecode(name))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, or a folder on the way that may not be entered
        return False


def _neighbours(path: Path) -> list[str]:
    return [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
