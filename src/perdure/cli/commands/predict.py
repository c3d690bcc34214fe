"""``perdure predict``: the classes of images, by what a model has learned."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.arguments import (
    STDIN,
    add_head,
    add_model,
    add_ray,
    add_reject,
    check_images,
    find_images,
    model_folder,
)
from perdure.cli.output import messages, print_json
from perdure.cli.parsing import UsageError, add_command, positive
from perdure.errors import ConfigError
from perdure.wording import counted, printable

if TYPE_CHECKING:
    from perdure.cli.writers import Output
    from perdure.learner.state import LearnerState
    from perdure.streams.images.find_images import Listed

FORMATS = ("table", "csv", "json")


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "predict", predict, rest="paths")
    add_model(command)
    command.argument(
        "paths",
        "PATH",
        "image files, folders or tables of them, or - for a path per line on standard input; with "
        "--ray also tars and Parquet files of any size, and s3:// or gs://",
        nargs="+",
    )
    command.option("--top", "K", "classes per image", type=positive, default=5)
    command.option(
        "--format", "FORMAT", "table, csv or json; default: table (--json: json)", choices=FORMATS
    )
    add_head(command)
    add_reject(command)
    command.option(
        "--batch-size",
        "N",
        "images that go through the backbone together; default: the model's eval_batch_size",
        type=positive,
    )
    add_ray(
        command,
        "predict on Ray, shard by shard; without an address on this machine, or where RAY_ADDRESS says",
    )
    command.option("--out", "DIR", "with --ray: folder of the answers, a Parquet file per shard")
    command.option(
        "--actors",
        "N",
        "with --ray: processes that hold the model; default: as many as there are CPUs or GPUs for",
        type=positive,
    )
    command.option("--threads", "N", "with --ray: threads of each; default: 1", type=positive)


def predict(args: argparse.Namespace) -> int:
    """Name the classes of images with what a run has learned.

    Examples:
        perdure predict runs/digits/nsp2 a.png b.png
        perdure predict runs/digits/nsp2 photos --format csv > photos.csv
        perdure predict pets photos --reject 0.05           strange images get no class
        find photos -mtime -1 | perdure predict runs/digits/nsp2 - --json
        perdure predict pets s3://shop/photos --ray --out answers      on all CPUs, by Ray

        Folders are gone through with all folders in them. An image that cannot be read gets a
        row with the reason; the exit code is 1 then. With --ray the same command goes on after an
        interruption; it needs: pip install 'perdure[ray]'.
    """
    if args.ray is not None:
        return _on_ray(args)
    if alone := [f"--{one}" for one in ("out", "actors", "threads") if getattr(args, one)]:
        raise UsageError(f"{alone[0]} has no use without --ray. Add --ray, or leave it out.")
    if args.json and args.format not in (None, "json"):
        raise ConfigError(f"--json and --format {args.format} exclude each other. Leave one out.")
    check_images(args.paths)
    folder = model_folder(args.model)
    from perdure.cli.interrupt import CtrlC
    from perdure.cli.progress import ProgressBar
    from perdure.learner.saved.model import read_model

    state = read_model(folder)
    notes: list[str] = []
    with CtrlC() as ctrl_c, ProgressBar() as bar:

        def show(done: int) -> None:
            ctrl_c.check()
            bar("images", done, None)

        done, faulty = write_predictions(
            state,
            find_images(args.paths, state.model.config.stream, notes.append),
            sys.stdout,
            "json" if args.json else args.format or "table",
            head=args.head,
            top=args.top,
            batch_size=args.batch_size,
            reject=args.reject,
            on_progress=show,
        )
    for note in notes:
        messages().print(printable(f"note: {note}"))
    if faulty:
        messages().print(f"{faulty:,} of {done:,} images could not be read")
    return 1 if faulty else 0


def _on_ray(args: argparse.Namespace) -> int:
    """Predict with many processes, into a folder."""
    from perdure.cluster.connection import import_ray

    if args.out is None:
        raise UsageError("--ray needs a folder for the answers. Add --out DIR.")
    if args.format is not None or STDIN in args.paths:
        given = f"--format {args.format}" if args.format else "'-'"
        raise UsageError(f"--ray writes Parquet files, and {given} has no use then. Leave it out.")
    import_ray()
    from perdure.cluster.shards import containers
    from perdure.streams.shards.opening import is_url

    check_images([path for path in args.paths if not is_url(path) and not containers(path)])
    folder = model_folder(args.model)
    from perdure.cli.progress import ProgressBar
    from perdure.cluster.prediction import Actors, Prediction, check_prediction, predict_on_ray
    from perdure.learner.saved.model import read_model

    state = read_model(folder)
    size = args.batch_size or state.model.config.runtime.eval_batch_size
    head = state.head_name(args.head)
    asked = Prediction(str(folder.absolute()), head, args.top, size, args.reject)
    check_prediction(state, asked)
    config, notes = state.model.config.stream, list[str]()
    del state  # the processes of the pool have their own
    with ProgressBar() as bar:
        done = predict_on_ray(
            asked,
            args.paths,
            lambda paths: find_images(paths, config, notes.append),
            Path(args.out),
            args.ray,
            Actors(args.actors, args.threads or 1),
            args.imports,
            lambda shards, of: bar("shards", shards, of),
        )
    for note in [*notes, *done.faults]:
        messages().print(printable(f"note: {note}"))
    failed = len(done.faults)
    if failed:
        messages().print(
            f"{failed:,} of {done.shards:,} shards have no answers; the same command tries them again."
        )
    if done.faulty:
        messages().print(f"{done.faulty:,} of {done.images:,} images could not be read")
    if args.json:
        print_json({"folder": args.out, **dataclasses.asdict(done)})
    else:
        print(f"{counted(done.images, 'image')} in {counted(done.shards - failed, 'shard')}")
        print(f"answers  {Path(args.out) / 'part-*.parquet'}")
    return 1 if failed or done.faulty else 0


def write_predictions(
    state: LearnerState,
    files: Iterable[Listed],
    out: Output,
    form: str,
    *,
    top: int = 5,
    on_progress: Callable[[int], None] = lambda done: None,
    **options: Any,
) -> tuple[int, int]:
    """Predict files and write the answers as they come.

    Args:
        state: predicts.
        files: image files, in the order of the answers.
        out: where to write.
        form: one of `FORMATS`.
        top: as for ``predict_files``.
        on_progress: receives after every answer how many there are.
        options: others of ``predict_files``.

    Returns:
        How many files there were, and how many of them could not be read.

    Raises:
        ConfigError: as ``predict_files``.
    """
    from perdure.cli.writers import WRITERS
    from perdure.learner.predict_files import predict_files

    answers = predict_files(state, files, top=top, **options)
    familiarity = options.get("reject") is not None
    writer = WRITERS[form](out, state.columns.names, top, familiarity=familiarity)
    done = faulty = 0
    # Closed at once where nobody reads on, so that no thread goes on decoding.
    with contextlib.closing(answers), writer as write:
        for answer in answers:
            write(answer)
            done += 1
            faulty += bool(answer.fault)
            on_progress(done)
    return done, faulty
